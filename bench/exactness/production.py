"""The way that is checked: harness.data, harness.loss, harness.engine and DeepSpeed, on one of several ranks.

Only two things differ from a training run. The optimizer's `step` moves each weight against its gradient (but in the
runs with AdamW), so that the gradient which reached the optimizer can be read from the weights afterwards. And for
float64, which DeepSpeed does not know, the name float32 means float64 in its modules: buckets, reductions, partitions
and masters, all by its own code.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

import torch
from deepspeed.utils import safe_get_full_fp32_param

from bench.exactness.cases import NUM_TASKS, SEED, Case, Step
from bench.exactness.toys import (
    exact_transformers,
    fill_adapter,
    float32_means_float64,
    make_base,
    make_lora,
    make_rows,
    tied_adapter_allowed,
)
from bench.exactness.wrong import draw_by_place, spoil_batches, spoil_scale
from harness.assembly import assemble
from harness.batch_plan import BatchPlan
from harness.config import BatchSettings, DataSettings, ModelSettings, RunConfig
from harness.data import MicroBatch
from harness.dist import Engine, World, join_world
from harness.engine import build_engine, evaluate_loss, train_step
from harness.lora import trainable_parameters
from harness.loss import ForestLanguageModel
from harness.step import StepResult
from preprocess.settings import find_shipped

MODULES_OF_DEEPSPEED = (
    "deepspeed.accelerator.cpu_accelerator",
    "deepspeed.runtime.engine",
    "deepspeed.runtime.base_optimizer",
    "deepspeed.runtime.utils",
    "deepspeed.runtime.zero.parameter_offload",
    "deepspeed.runtime.zero.partition_parameters",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.stage_1_and_2",
    "deepspeed.utils.tensor_fragment",
)


def run_cases(cases: Sequence[Case]) -> list[list[Step]]:
    """Take the steps of some cases on this rank; every rank of a group calls it with the same cases."""
    world = join_world(None)
    torch.use_deterministic_algorithms(mode=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            assert case.ranks == world.size
            with exact_numbers() if case.precision == "float64" else nullcontext():
                results.append(run_case(case, world, write_deepspeed(Path(folder), case.stage)))
    return results


def write_deepspeed(folder: Path, stage: int) -> Path:
    """The shipped DeepSpeed file of a stage; ZeRO-3 without its exemption of small parameters, as all are here."""
    values = json.loads(find_shipped(f"zero{stage}", "ds_configs", ".json").read_text(encoding="utf-8"))
    if stage == 3:
        values["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / f"zero{stage}.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def run_case(case: Case, world: World, deepspeed: Path) -> list[Step]:
    """The steps of one case, each from the weights that the one before left."""
    config = make_config(case, deepspeed)
    engine = build_engine(make_model(case, config, world), config, world)
    if case.optimizer == "descent":
        descend_in_place_of_adam(engine)
    rows = make_rows(case.data, case.num_rows)
    plan, rate = case.plan(rows), case.settings.learning_rate
    result = []
    for step in case.steps:
        parts = [[rows[row] for row in part] for part in plan.rows_of_rank(step, world.rank)]
        mean, by_task, _ = evaluate_loss(engine, spoil_batches(case, parts, world.rank), world, NUM_TASKS)
        before = read_weights(engine)
        with spoil_scale(case, parts):
            done = take_step(engine, spoil_batches(case, parts, world.rank), plan, world, step, rate)
        after = read_weights(engine)
        moved = {name: ((before[name] - after[name]) / rate).double().numpy() for name in before}
        result.append(Step(done.loss, done.grad_norm, [mean, *by_task], moved))
    engine.destroy()
    return result


def take_step(
    engine: Engine, batches: Sequence[MicroBatch], plan: BatchPlan, world: World, step: int, rate: float
) -> StepResult:
    """One step of the harness, as `harness.train` takes it."""
    return train_step(
        engine,
        batches,
        world,
        step=step,
        global_valid_tokens=plan.supervised_of_step(step),
        learning_rate=rate,
        seed=SEED,
        part=lambda name: nullcontext(),
        num_tasks=NUM_TASKS,
    )


def make_model(case: Case, config: RunConfig, world: World) -> ForestLanguageModel:
    """The model as `harness.train` puts it together."""
    base = make_base(case.precision)
    with tied_adapter_allowed():
        assembly = assemble(
            base, config.model, config.lora, seed=0, device=world.device, zero_stage=case.stage
        )
    assert assembly.attention == case.attention
    assert not assembly.notes
    fill_adapter(assembly.model)
    if case.sabotage == "dropout by place":
        draw_by_place(assembly.model)
    return assembly.model


def make_config(case: Case, deepspeed: Path) -> RunConfig:
    """The configuration of a case; no file of it is read but DeepSpeed's."""
    return RunConfig(
        output_dir=Path("unused"),
        model=ModelSettings(
            path="unused",
            # DeepSpeed is told float32 for float64 too: see `exact_numbers`.
            precision="bf16" if case.precision == "bf16" else "fp32",
            attention=case.attention,
            recompute_layers=case.recompute,
            lora_kernel=case.lora_kernel,
            loss_chunk=24,
        ),
        data=DataSettings(path=Path("unused")),
        lora=make_lora(case.dropout),
        batch=BatchSettings(micro_batch_size=case.micro_batch_size, global_batch_size=case.rows_per_step),
        optimizer=case.settings,
        deepspeed=str(deepspeed),
    )


@contextmanager
def exact_numbers() -> Iterator[None]:
    """Compute in float64 what transformers and DeepSpeed compute in float32."""
    modules = [import_module(name) for name in MODULES_OF_DEEPSPEED]
    with exact_transformers(), float32_means_float64(*modules):
        yield


def descend_in_place_of_adam(engine: Engine) -> None:
    """Let the engine's own optimizer move weights against their gradients, and by nothing else."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)

    @torch.no_grad()
    def step() -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(weight.grad.to(weight.dtype), alpha=group["lr"])

    optimizer.step = step


def read_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """The adapter's master weights, whole, whichever rank holds them."""
    named = trainable_parameters(engine.module.causal)
    if engine.zero_optimization_stage() > 0:
        masters = [safe_get_full_fp32_param(parameter) for _, parameter in named]
    else:
        groups = getattr(engine.optimizer, "optimizer", engine.optimizer).param_groups
        flat = torch.cat([weight.detach().flatten() for group in groups for weight in group["params"]])
        masters = list(torch.split(flat, [parameter.numel() for _, parameter in named]))
    return {
        name: master.detach().reshape(shape_of(parameter)).clone()
        for (name, parameter), master in zip(named, masters, strict=True)
    }


def shape_of(parameter: torch.nn.Parameter) -> torch.Size:
    """A parameter's shape, also where ZeRO-3 has taken its contents away."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
