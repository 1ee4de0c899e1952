"""Count every tensor on a rank: after the engine is built, and before, in and after an optimizer step."""

from __future__ import annotations

import gc
import json
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import harness.engine
from harness.assembly import assemble
from harness.config import (
    DataSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    RunConfig,
    deepspeed_config,
)
from harness.data import MicroBatch, collate
from harness.dist import Engine, World, join_world
from harness.engine import build_engine, train_step
from harness.linear_flops import LoraShape
from harness.loss import ForestLanguageModel
from harness.memory.case import MemoryCase, Precision, ZeroSettings
from harness.shapes import read_shape
from harness.vocabulary import NewTokens
from preprocess.forest import PackedRow
from tests.engine_ranks import DTYPES, LOSS_CHUNK, fp16_on_cpu, make_rows, most_chunks
from tests.lean_models import FAMILIES
from tests.runs import REPOSITORY

VOCAB_SIZE = 391
OF_THE_HARNESS = ("harness/step.py", "harness/dist.py")
VECTORS = ("harness/head.py", "harness/loss.py", "harness/engine.py", "deepspeed/runtime/utils.py")
"""Whose tensors of one dimension are losses and norms."""


@dataclass(frozen=True, slots=True)
class StateCase:
    """What a rank trains.

    Attributes:
        deepspeed: Name of a file in `ds_configs/`.
        precision: Of weights and computation.
        targets: Layers with an adapter.
        tied: Whether the head is the embedding.
        new_tokens: Rows that train besides.
        family: Whose layers.
        zero: What is different in `zero_optimization`.
        recompute_layers: Layers that run again.
        dropout: On adapters' inputs.
        kernel: As `lora_kernel`.
        num_layers: Decoder layers.
    """

    deepspeed: str
    precision: Precision = "bf16"
    targets: tuple[str, ...] = ("q_proj", "down_proj")
    tied: bool = True
    new_tokens: int = 0
    family: str = "llama"
    zero: dict[str, Any] = field(default_factory=dict)
    recompute_layers: int = 0
    dropout: float = 0.0
    kernel: str = "lean"
    num_layers: int = 2


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes of tensors at four moments of the second step (the first is the engine's making), and of gathered weights.

    Attributes:
        case: The case as a plan has it.
        rank: This rank.
        at_init: The engine is built.
        before_step: All gradients are there.
        at_step: At the peak of reduction and update.
        at_rest: The step is done.
        gathered: Most bytes of whole weights in the passes, those that persist included.
        others: Bytes of what is no state: frequencies, dropout's tables.
    """

    case: MemoryCase
    rank: int
    at_init: int
    before_step: int
    at_step: int
    at_rest: int
    gathered: int
    others: int


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages from their making to their end; scalars, losses and the step's sums are left out.

    Attributes:
        now: Bytes alive.
        most: Most of them since the last `restart`.
        whole: Bytes alive of weights that ZeRO-3 has gathered.
        most_whole: Most of them since the last `restart`.
        is_patient: Whether to wait after a collective until gloo's thread has let go of what it sent.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = self.whole = self.most_whole = 0
        self.is_patient = self._has_sent = False
        self._alive: dict[int, tuple[int, bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self._has_sent = True
        elif self._has_sent and self.is_patient:
            self._has_sent = False
            time.sleep(0.01)
        if not any(returned.alias_info for returned in func._schema.returns):  # else a view, or in place
            for value in tensors_in(result):
                if value.dim() and value.dtype != torch.bool:
                    self._add_if_state(value)
        return result

    def _add_if_state(self, value: torch.Tensor) -> None:
        owner, function = find_owner()
        if owner.endswith(OF_THE_HARNESS) or (owner.endswith(VECTORS) and value.dim() == 1):
            return
        self.add(
            value, is_whole=owner.endswith("partition_parameters.py") and "_partition_param" not in function
        )

    def add(self, value: torch.Tensor, *, is_whole: bool = False) -> None:
        """Count a tensor, unless its storage is counted already."""
        storage = value.untyped_storage()
        if storage._cdata in self._alive or not storage.nbytes() or value.device.type != "cpu":
            return
        self._alive[storage._cdata] = (storage.nbytes(), is_whole)
        self._change(storage.nbytes(), is_whole=is_whole)
        weakref.finalize(storage, self._end, storage._cdata)

    def _end(self, key: int) -> None:
        size, is_whole = self._alive.pop(key)
        self._change(-size, is_whole=is_whole)

    def _change(self, size: int, *, is_whole: bool) -> None:
        self.now += size
        self.whole += size * is_whole
        self.most, self.most_whole = max(self.most, self.now), max(self.most_whole, self.whole)

    def restart(self) -> None:
        """Forget the peaks, once gloo's thread has let go of what it sent."""
        time.sleep(0.05)
        gc.collect()
        self.most, self.most_whole = self.now, self.whole

    def counts(self, value: torch.Tensor) -> bool:
        """Whether a tensor's storage is among those counted."""
        return value.untyped_storage()._cdata in self._alive


def tensors_in(values: Any) -> list[torch.Tensor]:
    """All tensors of a nested structure."""
    return [value for value in tree_iter(values) if isinstance(value, torch.Tensor)]


def find_owner() -> tuple[str, str]:
    """File and function, of DeepSpeed or the harness, that asked for an operation."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if ("/deepspeed/" in name and not name.endswith("nvtx.py")) or "/harness/" in name:
            return name, frame.f_code.co_name
        frame = frame.f_back
    return "", ""


def make_causal(case: StateCase) -> nn.Module:
    """A random frozen model with sizes that divide by nothing in particular."""
    make_config, make_causal_model = FAMILIES[case.family]
    torch.manual_seed(0)
    config = make_config(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=120,
        num_hidden_layers=case.num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=case.tied,
        max_position_embeddings=512,
        use_cache=False,
    )
    causal = make_causal_model(config).to(DTYPES[case.precision]).requires_grad_(requires_grad=False)
    assert isinstance(causal, nn.Module)
    return causal


def make_config(case: StateCase, root: Path, rank: int) -> RunConfig:
    """The run's configuration, with the case's own DeepSpeed file."""
    values = json.loads((REPOSITORY / "ds_configs" / f"{case.deepspeed}.json").read_text())
    values["zero_optimization"] |= case.zero
    values["zero_force_ds_cpu_optimizer"] = False
    values["fp16"]["initial_scale_power"] = 4  # no step is skipped
    (path := root / f"state-{rank}.json").write_text(json.dumps(values))
    return RunConfig(
        output_dir=root,
        data=DataSettings(path=root),
        model=ModelSettings.model_validate(
            {
                "path": "unused",
                "precision": case.precision,
                "attention": "sdpa",
                "loss_chunk": LOSS_CHUNK,
                "recompute_layers": case.recompute_layers,
                "lora_kernel": case.kernel,
            }
        ),
        lora=LoraSettings(r=4, alpha=8, dropout=case.dropout, targets=case.targets),
        optimizer=OptimizerSettings(),
        deepspeed=str(path),
    )


def make_tokens(count: int) -> NewTokens | None:
    """The last tokens of the vocabulary as new ones."""
    ids = tuple(range(VOCAB_SIZE - count, VOCAB_SIZE))
    return NewTokens(ids, tuple(f"[{id_}]" for id_ in ids), ((),) * count) if count else None


def plan_case(case: StateCase, config: RunConfig, ranks: int, rows: Sequence[PackedRow]) -> MemoryCase:
    """The case as a plan has it, of the same sizes."""
    return MemoryCase(
        shape=read_shape(make_causal(case).config),
        lora=LoraShape(config.lora.r, case.targets),
        zero=ZeroSettings.read(deepspeed_config(config, ranks)),
        ranks=ranks,
        slots=160,
        supervised=most_chunks(rows) * LOSS_CHUNK,
        precision=case.precision,
        recompute_layers=case.recompute_layers,
        loss_chunk=LOSS_CHUNK,
        lora_kernel="lean" if case.kernel == "lean" else "peft",
        new_tokens=case.new_tokens,
        device="cpu",
    )


def count_case(case: StateCase, root: Path, world: World, rows: Sequence[PackedRow]) -> Counted:
    """Train some steps of a case and count."""
    config = make_config(case, root, world.rank)
    plan = plan_case(case, config, world.size, rows)
    stage, tokens = plan.zero.stage, make_tokens(case.new_tokens)
    made = assemble(
        make_causal(case),
        config.model,
        config.lora,
        seed=1,
        device=world.device,
        zero_stage=stage,
        new_tokens=tokens,
    )
    batches = [
        [collate([rows[(2 * step + micro + world.rank) % len(rows)]]) for micro in range(2)]
        for step in range(3)
    ]
    live = Live()
    for name, value in (*made.model.named_parameters(), *made.model.named_buffers()):
        if not name.endswith("inv_freq"):
            live.add(value)
    with live:
        engine = build_engine(made.model, config, world, shared_storage=True)
        live.restart()
        at_init = live.now - count_others(live, made.model)
        for step in range(2):
            take_step(engine, world, batches[step], step, most_chunks(rows))
        live.restart()
        before = list[int]()
        with watch_step(live, before):
            take_step(engine, world, batches[2], 2, most_chunks(rows))
        before_step, gathered = before[0], before[1]
        at_step = live.most
        live.restart()
        others, counts = count_others(live, made.model), count_steps(engine)
        at_rest = live.now
    engine.destroy()
    extra = counts - others
    return Counted(
        plan, world.rank, at_init, before_step + extra, at_step + extra, at_rest + extra, gathered, others
    )


@contextmanager
def watch_step(live: Live, before: list[int]) -> Iterator[None]:
    """Note what is alive when the engine begins to reduce, and the most of whole weights until then."""
    reduce: Callable[..., None] = harness.engine._reduce_gradients

    def reduce_watched(engine: Engine, world: World) -> None:
        most_whole = live.most_whole
        live.restart()
        before.extend((live.now, most_whole))
        live.is_patient = True
        reduce(engine, world)

    with patch.object(harness.engine, "_reduce_gradients", reduce_watched):
        yield


def take_step(engine: Engine, world: World, batches: Sequence[MicroBatch], step: int, chunks: int) -> None:
    """One step, each of whose micro-steps passes the head as often."""
    train_step(
        engine,
        batches,
        world,
        step=step,
        global_valid_tokens=100,
        learning_rate=1e-3,
        seed=0,
        part=lambda name: nullcontext(),
        num_chunks=[chunks] * len(batches),
    )


def count_others(live: Live, model: ForestLanguageModel) -> int:
    """Bytes of counted tensors that are no state: frequencies, dropout's tables and offsets."""
    tensors = [value for name, value in model.named_buffers() if name.endswith("inv_freq")]
    if model.draw is not None:
        tensors += model.draw.tables.values()
        tensors += [model.draw.offsets] if model.draw.offsets is not None else []
    return sum(value.untyped_storage().nbytes() for value in tensors if live.counts(value))


def count_steps(engine: Engine) -> int:
    """Bytes of Adam's step counts, the only scalars that are state."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return sum(state["step"].nbytes for state in optimizer.state.values())


def count_cases(root: Path, cases: Sequence[StateCase]) -> list[Counted]:
    """Cases one after another in this rank's process group."""
    warnings.simplefilter("ignore", FutureWarning)  # of torch, about collectives that DeepSpeed calls
    world, rows = join_world(None), make_rows()
    with fp16_on_cpu():
        return [count_case(case, root, world, rows) for case in cases]
