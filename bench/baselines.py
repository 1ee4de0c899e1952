"""The trainers that the harness is measured against: TRL's SFTTrainer, transformers' Trainer with DeepSpeed ZeRO-1.

Both get the finished examples of each of the harness's steps, as token ids and labels, in a layout of
`bench.baseline_layouts`. TRL's `padding_free` with packing gives attention that is right without flash-attn too:
`transformers` finds the borders in the positions.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast
from unittest.mock import patch

import datasets
import torch
from accelerate.state import AcceleratorState, PartialState
from tokenizers import Tokenizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from bench.baseline_layouts import Batching, Micro, lay_out, to_features
from harness.config import RunConfig
from harness.lora import add_lora, trainable_parameters
from harness.model import load_base_model
from harness.schedule import learning_rate
from preprocess.forest import PackedRow

TRL: Final = "trl"
TRL_PATCHED: Final = "trl_patched"
DEEPSPEED: Final = "trainer_deepspeed"
Library = Literal["trl", "trl_patched", "trainer_deepspeed"]
"""TRL; TRL with its head at supervised positions alone, which it does on a GPU, but on a CPU for a patch alone;
transformers' Trainer with DeepSpeed ZeRO-1."""

LIBRARIES: tuple[Library, ...] = (TRL, TRL_PATCHED, DEEPSPEED)


class Watch(TrainerCallback):  # type: ignore[misc] # transformers ships no types
    """Seconds of each step, from the end of the one before it, without what `between` does after a step."""

    def __init__(self, between: Callable[[int], None]) -> None:
        self.seconds: list[float] = []
        self._between = between
        self._started = 0.0

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        """The first step starts, with its data."""
        self._started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """A step is done."""
        self.seconds.append(time.perf_counter() - self._started)
        self._between(len(self.seconds) - 1)
        self._started = time.perf_counter()


class _Fixed:
    """A trainer that takes the micro-batches and the schedule it is given, and keeps each step's loss."""

    micro_batches: list[Micro]
    accumulation: int
    losses: list[torch.Tensor]
    rate_share: Callable[[int], float]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """The harness's schedule, step for step, instead of one of the trainer's own."""
        own = cast("Any", self)
        if own.lr_scheduler is None:
            own.lr_scheduler = LambdaLR(own.optimizer if optimizer is None else optimizer, self.rate_share)
        return cast("LambdaLR", own.lr_scheduler)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The micro-batches."""
        own = cast("Any", self)
        return DataLoader(
            cast("Any", own.train_dataset), batch_sampler=self.micro_batches, collate_fn=own.data_collator
        )

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *options: object
    ) -> torch.Tensor:
        """The trainer's own, but for a filler nothing at all."""
        if inputs["labels"].numel() == 2:
            self.losses.append(torch.zeros((), dtype=torch.float64))
            return torch.zeros(())
        return cast("torch.Tensor", cast("Any", super()).training_step(model, inputs, *options))

    def compute_loss(self, *arguments: object, **options: object) -> Any:  # noqa: ANN401 - a loss, or it and more
        """The trainer's own loss, which is a share of the step's mean over tokens."""
        result = cast("Any", super()).compute_loss(*arguments, **options)
        self.losses.append((result[0] if isinstance(result, tuple) else result).detach().double())
        return result

    def step_losses(self) -> list[float]:
        """Mean loss over the supervised tokens of each step."""
        parts = torch.stack(self.losses).reshape(-1, self.accumulation).sum(1)
        return cast("list[float]", parts.tolist())


class _FixedSFTTrainer(_Fixed, SFTTrainer):  # type: ignore[misc] # TRL ships no types
    pass


class _FixedTrainer(_Fixed, Trainer):  # type: ignore[misc] # transformers ships no types
    pass


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training: seconds and mean token loss of each step."""

    seconds: list[float]
    losses: list[float]


def train_baseline(
    library: Library,
    config: RunConfig,
    steps: Sequence[Sequence[PackedRow]],
    batching: Batching,
    between: Callable[[int], None] = lambda step: None,
) -> Trained:
    """Train on the examples of some steps, one optimizer step each.

    Args:
        library: Which trainer.
        config: The harness's run whose model, adapters, optimizer and schedule are taken.
        steps: The examples of each step.
        batching: How they are laid out.
        between: Called after each step, outside of its time.
    """
    plan = lay_out(steps, batching)
    with _alone(library), _quiet(), _head_of(library):
        trainer = _make_trainer(library, config, len(steps), len(plan[0]), batching)
        trainer.train_dataset = to_features([example for step in steps for example in step])
        trainer.micro_batches = [micro for step in plan for micro in step]
        trainer.accumulation = len(plan[0])
        trainer.losses = []
        trainer.rate_share = partial(_share_of_rate, config)
        watch = Watch(between)
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Trained(watch.seconds, trainer.step_losses())


def _make_trainer(
    library: Library, config: RunConfig, num_steps: int, accumulation: int, batching: Batching
) -> Any:  # noqa: ANN401 - either trainer, of which neither has types
    base = load_base_model(config.model.model_copy(update={"attention": "sdpa"}))
    model = add_lora(base, config.lora, config.seed)
    if batching.adapter == "fp32":
        for _, parameter in trainable_parameters(model):
            parameter.data = parameter.data.float()
    tokenizer = _load_tokenizer(config)
    settings = config.optimizer
    options: dict[str, Any] = {
        "output_dir": str(config.output_dir / "baseline"),
        "max_steps": num_steps,
        "per_device_train_batch_size": 1,  # the micro-batches are given, of whatever size
        "gradient_accumulation_steps": accumulation,
        "learning_rate": settings.learning_rate,
        "adam_beta1": settings.betas[0],
        "adam_beta2": settings.betas[1],
        "adam_epsilon": settings.eps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": config.model.precision == "bf16" and (batching.adapter == "fp32" or library == DEEPSPEED),
        "gradient_checkpointing": False,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    packs = batching.kind == "packed"
    dummy = datasets.Dataset.from_dict({"input_ids": [[0, 1]], "labels": [[-100, 1]]})
    if library != DEEPSPEED:
        arguments = SFTConfig(
            **options, padding_free=packs, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
        )
        return _FixedSFTTrainer(model=model, args=arguments, train_dataset=dummy, processing_class=tokenizer)
    arguments = TrainingArguments(**options, deepspeed=_deepspeed_values(config, accumulation))
    collator = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, padding_free=packs)
    return _FixedTrainer(model=model, args=arguments, train_dataset=dummy, data_collator=collator)


def _share_of_rate(config: RunConfig, step: int) -> float:
    """A step's learning rate as a share of the highest."""
    rate = learning_rate(step, config.schedule.max_steps or 1, config.optimizer)
    return rate / config.optimizer.learning_rate


def _deepspeed_values(config: RunConfig, accumulation: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.optimizer.max_grad_norm,
        "bf16": {"enabled": config.model.precision == "bf16"},
        "zero_optimization": {"stage": 1},
        "steps_per_print": 1_000_000_000,
    }


def _load_tokenizer(config: RunConfig) -> PreTrainedTokenizerFast:
    file = Path(config.data.path) / "tokenizer" / "tokenizer.json"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(file)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


@contextmanager
def _alone(library: Library) -> Iterator[None]:
    """Without another trainer's state; TRL's without a launcher's variables, or a lone process is wrapped in DDP."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE") if library != DEEPSPEED else ()
    own = {name: value for name, value in os.environ.items() if name not in names}
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    with patch.dict(os.environ, own, clear=True):
        yield
    AcceleratorState._reset_state(True)


@contextmanager
def _head_of(library: Library) -> Iterator[None]:
    """TRL picks out the supervised positions where it thinks that Triton runs; nothing else of it looks there."""
    if library == TRL_PATCHED:
        with patch("trl.trainer.utils._use_triton", lambda device: True):
            yield
    else:
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars, warnings and tables."""
    datasets.disable_progress_bars()
    for name in ("transformers", "trl", "accelerate", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
