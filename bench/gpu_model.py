"""The production path for `bench.gpu`: a model of a true shape with random weights, its adapter, kernels and engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from bench.cards import supports_fp8
from bench.gpu_jobs import Job, Setting
from bench.random_model import make_random
from harness.assembly import assemble
from harness.data import MicroBatch, collate
from harness.loss import ForestLanguageModel, split_forward
from harness.shapes import find_shape
from preprocess.errors import ConfigError

if TYPE_CHECKING:
    from harness.config import LoraSettings, ModelSettings

LOSS_CHUNK = 1024

Part = Callable[[str], AbstractContextManager[None]]
"""Opens a part of a step ("forward", "loss", "backward", "optimizer")."""


class NotSupportedError(RuntimeError):
    """This machine, or what is installed on it, cannot run a configuration."""


class Stepper(Protocol):
    """Takes optimizer steps."""

    used: str

    def step(self, batch: MicroBatch, part: Part) -> None:
        """One optimizer step over one micro-batch."""


@dataclass(frozen=True, slots=True)
class Built:
    """A model ready for steps.

    Attributes:
        model: The model with its adapter.
        stepper: Takes its steps.
        used: What took part, by what it is for.
        recompute_layers: Layers that run again in the backward pass.
        flat: Whether a micro-batch is one long row without padding.
    """

    model: ForestLanguageModel
    stepper: Stepper
    used: dict[str, str]
    recompute_layers: int
    flat: bool


def targets_of(job: Job) -> tuple[str, ...]:
    """The layers with an adapter: all projections of a decoder layer, and the head where the job says so."""
    projections = tuple(find_shape("toy").projections)
    return (*projections, "lm_head") if job.head_lora else projections


def build(job: Job, setting: Setting, device: torch.device, dtype: torch.dtype) -> Built:
    """Everything of a configuration up to its first step, as `harness.train` puts it together.

    Raises:
        NotSupportedError: It needs a card or a package that is not there.
    """
    check_support(job, device)
    shape = find_shape(setting.shape)
    base = make_random(shape, device, dtype)
    if job.liger:
        apply_liger(base)
    recompute_layers = round(job.recompute * shape.num_layers)
    settings, lora = make_settings(job, setting, recompute_layers, dtype)
    try:
        ready = assemble(base, settings, lora, seed=0, device=device)
    except ConfigError as error:
        raise NotSupportedError(str(error)) from error
    if ready.notes:
        raise NotSupportedError("; ".join(ready.notes))
    if job.fp8:
        check_float8(ready.model)
    for name, parameter in ready.adapter.named_parameters():
        if "lora_B" in name:  # at zero, as training starts, A would have no gradient to speak of
            nn.init.normal_(parameter, std=0.02)
    stepper = make_stepper(ready.model, device, settings)
    used = {"attention": ready.attention, "engine": stepper.used}
    return Built(ready.model, stepper, used, recompute_layers, flat=ready.attention not in ("sdpa", "eager"))


def make_settings(
    job: Job, setting: Setting, recompute_layers: int, dtype: torch.dtype
) -> tuple[ModelSettings, LoraSettings]:
    """A configuration as a run's settings; where pydantic is missing, the same values unchecked."""
    model: dict[str, Any] = {
        "path": setting.shape,
        "precision": {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype],
        "attention": job.attention,
        "recompute_layers": recompute_layers,
        "lora_kernel": job.lora_kernel,
        "compile": job.compile,
        "fp8": job.fp8,
        "loss_chunk": LOSS_CHUNK,
    }
    lora: dict[str, Any] = {
        "r": setting.r,
        "alpha": 2.0 * setting.r,
        "dropout": job.dropout,
        "targets": targets_of(job),
    }
    try:
        from harness.config import LoraSettings, ModelSettings
    except ModuleNotFoundError:
        return cast("Any", SimpleNamespace(**model)), cast("Any", SimpleNamespace(**lora))
    return ModelSettings(**model), LoraSettings(**lora)


def check_support(job: Job, device: torch.device) -> None:
    """Refuse what cannot run here.

    Raises:
        NotSupportedError: See there.
    """
    if job.fp8 and not supports_fp8(device):
        raise NotSupportedError("float8 needs a card of the Ada or Hopper generation or later")
    if job.liger and find_spec("liger_kernel") is None:
        raise NotSupportedError("liger_kernel is not installed")
    if job.liger and device.type != "cuda":
        raise NotSupportedError("Liger's kernels need a GPU")


def check_float8(model: nn.Module) -> None:
    """Refuse to call a model float8 that has no float8 weight.

    Raises:
        NotSupportedError: It has none.
    """
    if not any(getattr(module, "quantized", None) for module in model.modules()):
        raise NotSupportedError("no projection was turned into float8")


def apply_liger(base: nn.Module) -> None:
    """Liger's norms, rotary embeddings and gated MLP; the head stays the harness's."""
    import_module("liger_kernel.transformers").apply_liger_kernel_to_llama(
        rope=True,
        rms_norm=True,
        swiglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        model=base,
    )


def make_stepper(model: ForestLanguageModel, device: torch.device, settings: ModelSettings) -> Stepper:
    """DeepSpeed's engine where it is installed, else plain AdamW over float32 masters."""
    if find_spec("deepspeed") is not None and find_spec("pydantic") is not None:
        return DeepSpeedStepper(model, settings)
    return PlainStepper(model, device)


class DeepSpeedStepper:
    """The harness's engine, at ZeRO 0: one process has nothing to share out."""

    def __init__(self, model: ForestLanguageModel, settings: ModelSettings) -> None:
        from harness.config import DataSettings, RunConfig
        from harness.dist import join_world
        from harness.engine import build_engine

        config = RunConfig(
            output_dir=Path("unused"),
            model=settings,
            data=DataSettings(path=Path("unused")),
            deepspeed="zero0",
        )
        self.world = join_world(1)
        self.engine = build_engine(model, config, self.world)
        self.num_steps = 0
        self.used = "deepspeed, zero0"

    def step(self, batch: MicroBatch, part: Part) -> None:
        """One optimizer step over one micro-batch."""
        from harness.engine import train_step

        train_step(
            self.engine,
            [batch],
            self.world,
            step=self.num_steps,
            global_valid_tokens=batch.counts.supervised_tokens,
            learning_rate=1e-4,
            seed=0,
            part=part,
        )
        self.num_steps += 1


class PlainStepper:
    """torch's AdamW over float32 copies of the trained weights, clipped to norm 1: what the engine does, without it."""

    def __init__(self, model: ForestLanguageModel, device: torch.device) -> None:
        self.model = model.train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.masters = [parameter.detach().float().clone() for parameter in self.trained]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-4, fused=device.type == "cuda")
        self.num_steps = 0
        self.used = "torch AdamW (deepspeed is not installed)"

    def step(self, batch: MicroBatch, part: Part) -> None:
        """One optimizer step over one micro-batch."""
        with split_forward(self.model, part):
            loss_sum, _ = self.model(batch, seed=self.num_steps)
        with part("backward"):
            cast("Any", loss_sum / max(1, batch.counts.supervised_tokens)).backward()
        with part("optimizer"), torch.no_grad():
            self._update()
        self.num_steps += 1

    def _update(self) -> None:
        for master, parameter in zip(self.masters, self.trained, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_copy_(list[torch.Tensor](self.trained), self.masters)


def no_part(name: str) -> AbstractContextManager[None]:
    """A part that nothing is measured of."""
    return nullcontext()


def lay_out(rows: Sequence[Any], built: Built, device: torch.device) -> MicroBatch:
    """Rows as a micro-batch on the device.

    Raises:
        ConfigError: There are none.
    """
    if not rows:
        raise ConfigError("a micro-batch needs a row")
    return collate(rows, flat=built.flat).to(device)
