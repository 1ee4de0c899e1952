"""Drive the engine over toy rows on one rank: any ZeRO stage, precision and micro-steps, with poison where asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from unittest.mock import patch

import deepspeed
import numpy as np
import torch
from deepspeed.accelerator import get_accelerator

from harness.config import (
    DataSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    Precision,
    RunConfig,
)
from harness.data import MicroBatch, collate
from harness.dist import Engine, World, join_world
from harness.engine import build_engine, train_step
from harness.half_precision import loss_scale
from harness.head import count_chunks
from harness.lean import make_lean
from harness.lora import add_lora, trainable_parameters
from harness.loss import ForestLanguageModel
from harness.step import Float64Array, StepResult
from preprocess.forest import PackedRow
from tests.device_watch import Watch, Watched
from tests.runs import REPOSITORY
from tests.toys import TASKS, encode_songs, make_model_dir, make_songs, make_tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATE = 1e-2
LOSS_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Poison:
    """A number that is not finite, in one step on one rank.

    Attributes:
        step: In which step.
        rank: On which rank.
        kind: In what: a loss or a gradient.
        value: NaN or infinity.
    """

    step: int
    rank: int
    kind: str
    value: float = float("nan")


@dataclass(frozen=True, slots=True)
class Case:
    """A few optimizer steps.

    Attributes:
        stage: ZeRO's.
        precision: Of weights and computation.
        micro_steps: For each step, how many on each rank.
        left_out: Steps that are not taken at all; the others keep their rows.
        poison: What goes wrong.
        first_scale_power: log2 of the first fp16 loss scale.
        lean: Whether the layers compute LoRA their own way.
        weight_decay: Of AdamW.
        scale_window: Steps without overflow after which the fp16 loss scale grows.
        communication: What gradients travel in, where the JSON says it.
    """

    stage: int
    precision: Precision = "fp32"
    micro_steps: tuple[int, ...] = (1, 3, 2)
    left_out: tuple[int, ...] = ()
    poison: tuple[Poison, ...] = ()
    first_scale_power: int = 16
    lean: bool = False
    weight_decay: float = 0.0
    scale_window: int = 1000
    communication: str | None = None


@dataclass(slots=True)
class Outcome:
    """What a case did on one rank.

    Attributes:
        results: Of each step taken.
        state: The bytes of every tensor that the case leaves: masters, optimizer state, trained weights in the model.
        weights: float64[...], the whole trained weights, one after another.
        held_bytes: Held by masters and optimizer state on this rank.
        watched: What the last step asked of the machine.
        loss_scale: After the last step; 1 unless in fp16.
    """

    results: list[StepResult] = field(default_factory=list)
    state: list[bytes] = field(default_factory=list)
    weights: Float64Array = field(default_factory=lambda: np.zeros(0))
    held_bytes: int = 0
    watched: Watched = field(default_factory=lambda: Watched([], 0))
    loss_scale: float = 1.0


def make_model(root: Path, precision: Precision, *, lean: bool = False) -> ForestLanguageModel:
    """A tiny Llama with an adapter whose halves are both nonzero."""
    from transformers import AutoModelForCausalLM

    causal = AutoModelForCausalLM.from_pretrained(
        root / "model", dtype=DTYPES[precision], attn_implementation="sdpa"
    )
    causal.requires_grad_(requires_grad=False)
    adapter = add_lora(causal, LoraSettings(r=4, alpha=8), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapter):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert not lean or make_lean(adapter) is None
    return ForestLanguageModel(adapter.get_base_model(), loss_chunk=LOSS_CHUNK)


def write_deepspeed(root: Path, case: Case, rank: int) -> Path:
    """The shipped file of a stage, for a model whose every parameter is small."""
    values = json.loads((REPOSITORY / "ds_configs" / f"zero{case.stage}.json").read_text())
    values["fp16"]["initial_scale_power"] = case.first_scale_power
    values["fp16"]["loss_scale_window"] = case.scale_window
    if case.communication:
        values["communication_data_type"] = case.communication
    if case.stage == 3:
        values["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (path := root / f"zero-{rank}.json").write_text(json.dumps(values))
    return path


def make_engine(root: Path, case: Case, world: World) -> Engine:
    """The engine of a case, as a run builds it."""
    config = RunConfig(
        output_dir=root,
        data=DataSettings(path=root),
        model=ModelSettings(path="unused", precision=case.precision),
        optimizer=OptimizerSettings(learning_rate=LEARNING_RATE, weight_decay=case.weight_decay),
        deepspeed=str(write_deepspeed(root, case, world.rank)),
    )
    model = make_model(root, case.precision, lean=case.lean)
    return build_engine(model, config, world)


def rows_of(rows: Sequence[PackedRow], case: Case, step: int, world_size: int) -> list[list[list[PackedRow]]]:
    """[micro-step][rank]: the rows of a step. The last micro-step's last rank has none, as at an epoch's end."""
    start = sum(case.micro_steps[:step]) * world_size
    dealt = [
        [[rows[(start + micro * world_size + rank) % len(rows)]] for rank in range(world_size)]
        for micro in range(case.micro_steps[step])
    ]
    if step == len(case.micro_steps) - 1 and len(dealt) > 1:
        dealt[-1][-1] = []
    return dealt


def make_rows() -> list[PackedRow]:
    """Rows with unequal numbers of supervised tokens."""
    return encode_songs(make_songs(24, num_lines=2), make_tokenizer(), 160)


def most_chunks(rows: Sequence[PackedRow]) -> int:
    """Passes through the head that any micro-step of one row needs at most."""
    return count_chunks(max(int(row.label_mask.sum()) for row in rows), LOSS_CHUNK)


def take_step(engine: Engine, case: Case, step: int, world: World, rows: Sequence[PackedRow]) -> StepResult:
    """One step of a case."""
    dealt = rows_of(rows, case, step, world.size)
    batches: list[MicroBatch] = [collate(of_ranks[world.rank]) for of_ranks in dealt]
    tokens = sum(int(row.label_mask.sum()) for of_ranks in dealt for of_rank in of_ranks for row in of_rank)
    with spoil(engine, case, step, world.rank):
        return train_step(
            engine,
            batches,
            world,
            step=step,
            global_valid_tokens=tokens,
            learning_rate=LEARNING_RATE,
            seed=0,
            part=lambda name: nullcontext(),
            num_tasks=len(TASKS),
            num_chunks=[most_chunks(rows)] * len(batches),
        )


@contextmanager
def spoil(engine: Engine, case: Case, step: int, rank: int) -> Iterator[None]:
    """Put the poison of a step into this rank's loss or gradient."""
    with ExitStack() as stack:
        for poison in (one for one in case.poison if (one.step, one.rank) == (step, rank)):
            stack.callback(add_poison(engine, poison))
        yield


def add_poison(engine: Engine, poison: Poison) -> Callable[[], None]:
    """Spoil what the engine computes from now on; what is returned ends it."""
    if poison.kind == "loss":
        hook = engine.module.register_forward_hook(
            lambda module, inputs, output: (output[0] * poison.value, output[1] * poison.value)
        )
    else:
        _, parameter = trainable_parameters(engine.module)[-1]
        hook = parameter.register_hook(lambda gradient: gradient * poison.value)  # type: ignore[no-untyped-call]
    return hook.remove  # type: ignore[no-any-return]


def held_tensors(engine: Engine) -> list[torch.Tensor]:
    """Masters and optimizer state: this rank's part of them."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    groups = [weight for group in optimizer.param_groups for weight in group["params"]]
    masters = getattr(engine.optimizer, "fp32_partitioned_groups_flat", groups)  # ZeRO-3 empties the groups
    return [*masters, *(value for weight in masters for value in optimizer.state[weight].values())]


def read_state(engine: Engine) -> list[bytes]:
    """Masters, optimizer state and trained weights, this rank's part of them, bit for bit."""
    weights = [getattr(one, "ds_tensor", one) for _, one in trainable_parameters(engine.module)]
    tensors = [tensor.detach().flatten() for tensor in (*held_tensors(engine), *weights)]
    return [tensor.view(torch.uint8).numpy().tobytes() for tensor in tensors]


def read_weights(engine: Engine) -> Float64Array:
    """The whole trained weights as the model computes with them, on every rank."""
    parameters = [parameter for _, parameter in trainable_parameters(engine.module)]
    with deepspeed.zero.GatheredParameters(parameters, enabled=engine.zero_optimization_stage() == 3):
        flat = torch.cat([parameter.detach().double().flatten() for parameter in parameters])
        return cast("Float64Array", flat.numpy())


def run_case(root: Path, case: Case, world: World, rows: Sequence[PackedRow]) -> Outcome:
    """Take the steps of a case, the last one watched."""
    engine = make_engine(root, case, world)
    outcome, steps = Outcome(), [step for step in range(len(case.micro_steps)) if step not in case.left_out]
    for step in steps[:-1]:
        outcome.results.append(take_step(engine, case, step, world, rows))
    with Watch() as watch:
        outcome.results.append(take_step(engine, case, steps[-1], world, rows))
    outcome.watched = Watched(watch.collectives, watch.reads)
    outcome.state, outcome.weights = read_state(engine), read_weights(engine)
    outcome.held_bytes = sum(tensor.nbytes for tensor in held_tensors(engine))
    outcome.loss_scale = loss_scale(engine)
    engine.destroy()
    return outcome


def run_cases(root: Path, cases: Sequence[Case]) -> list[Outcome]:
    """Cases one after another in this rank's process group."""
    world = join_world(None)
    torch.use_deterministic_algorithms(mode=True)
    rows = make_rows()
    with fp16_on_cpu():
        return [run_case(root, case, world, rows) for case in cases]


@contextmanager
def fp16_on_cpu() -> Iterator[None]:
    """Let DeepSpeed compute in fp16 on a CPU, which torch can do and DeepSpeed takes to be too slow."""
    with patch.object(type(get_accelerator()), "is_fp16_supported", lambda self: True):
        yield


def make_root(folder: Path) -> Path:
    """A folder with the toy model."""
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


def without_poison(case: Case) -> Case:
    """The case with its poisoned steps left out."""
    return replace(case, poison=(), left_out=tuple(sorted({poison.step for poison in case.poison})))
