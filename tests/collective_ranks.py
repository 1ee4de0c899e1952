"""Note which collectives torch is asked for in a step, on ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.scaling_rank import make_take
from bench.training import open_run
from harness.config import load_run_config

KINDS = {
    "c10d.allreduce_": "all_reduce",
    "c10d._allgather_base_": "all_gather",
    "c10d._reduce_scatter_base_": "reduce_scatter",
}


class Noted(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's has no types
    """Kind and bytes of every collective: of the whole tensor, which is the largest of a call's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # likewise
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(function).rpartition(".")[0]
        if name.startswith("c10d"):
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
            self.calls.append((KINDS.get(name, name), max(sizes)))
        return function(*args, **(kwargs or {}))


def note_step(configs: Mapping[int, Path]) -> dict[int, list[tuple[str, int]]]:
    """For each ZeRO stage the collectives of the fourth step, when ZeRO-3 knows its row of modules."""
    found = {}
    for stage, path in configs.items():
        run = open_run(load_run_config(path))
        with run.load_steps(run.train_split, 0, run.num_steps) as steps:
            take = make_take(run, steps)
            for _ in range(3):
                take()
            with Noted() as noted:
                take()
        found[stage] = noted.calls
    return found
