"""Count every tensor on a rank: after the engine is built, and before, in and after an optimizer step."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import harness.engine
from harness.assembly import assemble
from harness.config import DataSettings, LoraSettings, ModelSettings, OptimizerSettings, RunConfig
from harness.data import MicroBatch, collate
from harness.deepspeed_config import deepspeed_config
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
from tests.live_state import Live
from tests.runs import REPOSITORY

VOCAB_SIZE = 391


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
        engine = build_engine(made.model, config, world)
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
