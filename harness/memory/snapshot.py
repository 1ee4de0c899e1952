"""torch's own record of every allocation on a GPU, for its standard viewer at https://pytorch.org/memory_viz.

Source: https://docs.pytorch.org/docs/stable/torch_cuda_memory.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

MAX_EVENTS = 100_000
"""Allocations and frees that are kept, the newest ones: each takes some KB of the host's memory."""


def snapshot_file(run_dir: Path, rank: int, *, out_of_memory: bool = False) -> Path:
    """Where a rank's snapshot lies: of the run's end, or of the last moment when memory ran out."""
    return run_dir / f"memory-rank{rank}{'-oom' if out_of_memory else ''}.pickle"


@contextmanager
def record_snapshot(
    run_dir: Path, rank: int, device: torch.device, say: Callable[[str], None]
) -> Iterator[None]:
    """Record allocations within the block, and write them at its end, also where it ends with an error.

    When the device runs out of memory, `memory-rank<r>-oom.pickle` is written there and then, before anything is freed
    (also where the run finds a way to go on).

    Args:
        run_dir: The run's folder.
        rank: Global rank; each writes a file of its own.
        device: Where the rank computes; a CPU's memory has no snapshot, and that is said.
        say: Takes a line for the user.
    """
    if device.type != "cuda":
        say("memory.snapshot: torch has no snapshot of CPU memory; see memory_timeline.jsonl instead")
        yield
        return
    memory = cast("Any", torch.cuda.memory)
    memory._record_memory_history(max_entries=MAX_EVENTS)
    _dump_when_out_of_memory(snapshot_file(run_dir, rank, out_of_memory=True))
    path = snapshot_file(run_dir, rank)
    try:
        yield
    finally:
        try:
            memory._dump_snapshot(str(path))
            memory._record_memory_history(enabled=None)
            say(f"snapshot of memory: {path}; open it at https://pytorch.org/memory_viz")
        except (RuntimeError, OSError) as error:  # it must not hide what the run ended with
            say(f"no snapshot of memory: {error}")


def _dump_when_out_of_memory(path: Path) -> None:
    def dump(device: int, asked: int, device_total: int, device_free: int) -> None:
        cast("Any", torch.cuda.memory)._dump_snapshot(str(path))

    cast("Any", torch._C)._cuda_attach_out_of_memory_observer(dump)
