"""What do logits only where a label is, chunk by chunk, save against full logits and transformers' own loss?

The head alone is measured, with peft's LoRA on it: from hidden states to the loss and back to the gradients of the
hidden states and of the adapter. The baseline makes the logits of every slot, as a causal model of transformers does
under peft, and takes its loss function. Time and the most bytes of tensors that are alive at once are told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss

from bench.agreement import Computed, check_same, take_gradients, trained_of
from bench.live_memory import LiveMemory
from bench.record import Outcome, compare, costs, summarize, time_in_turns
from harness.head import precise, sum_losses, token_losses
from preprocess.schema import IGNORE_INDEX

FULL_LOGITS, SUPERVISED, RECOMPUTED = "transformers_full_logits", "supervised_logits", "recomputed_chunks"
TOLERANCE = 2e-5
"""Of the mean loss in nats and, as a share of the largest value, of the gradients; all is float32."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured.

    Attributes:
        slots: Of a row.
        supervised: One slot in so many has a label.
        hidden_size: Of the head's input.
        vocab_size: Of its output.
        chunks: Supervised tokens whose logits exist at a time.
        num_turns: Timed.
    """

    slots: int
    supervised: int
    hidden_size: int
    vocab_size: int
    chunks: tuple[int, ...]
    num_turns: int


FULL = Size(2048, 4, 512, 32_768, (64, 128, 256, 512), 7)
QUICK = Size(512, 4, 64, 4096, (16, 64, 128), 5)


class Head(nn.Module):
    """A linear head alone, under the name that adapters look for."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.lm_head = nn.Linear(size.hidden_size, size.vocab_size, bias=False)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What every way starts from.

    Attributes:
        head: With an adapter that is not zero.
        hidden: float32[T, H], asking for its gradient.
        labels: int64[T], unshifted; `IGNORE_INDEX` where nothing is supervised.
    """

    head: nn.Module
    hidden: torch.Tensor
    labels: torch.Tensor

    @property
    def targets(self) -> torch.Tensor:
        """int64[N], the supervised ids."""
        return self.labels[self.labels != IGNORE_INDEX]

    @property
    def sources(self) -> torch.Tensor:
        """int64[N], the slot before each of them."""
        return (self.labels != IGNORE_INDEX).nonzero().flatten() - 1

    @property
    def trained(self) -> list[torch.Tensor]:
        """What gradients are taken of."""
        return [self.hidden, *trained_of(self.head)]


def make_material(size: Size) -> Material:
    """Random weights, hidden states and labels; runs of supervised tokens at the row's end."""
    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["lm_head"])
    head = cast("nn.Module", get_peft_model(cast("nn.Module", Head(size)), lora).base_model.model.lm_head)
    for name, parameter in head.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    hidden = torch.randn(size.slots, size.hidden_size, requires_grad=True)
    labels = torch.randint(0, size.vocab_size, (size.slots,))
    labels[: size.slots - size.slots // size.supervised] = IGNORE_INDEX
    return Material(head, hidden, labels)


def full_logits(material: Material) -> Computed:
    """The logits of every slot, and transformers' loss of a causal model."""
    logits = material.head(material.hidden[None])
    loss = ForCausalLMLoss(logits, material.labels[None], logits.shape[-1])
    return take_gradients(cast("torch.Tensor", loss), material.trained)


def supervised_logits(material: Material) -> Computed:
    """The logits of the supervised positions, all at once."""
    logits = material.head(material.hidden[material.sources])
    return take_gradients(nn.functional.cross_entropy(precise(logits), material.targets), material.trained)


def recomputed_chunks(material: Material, chunk: int) -> Computed:
    """Chunks whose logits are computed a second time in the backward pass: what ZeRO-3 needs."""
    losses = token_losses(
        lambda part, _: material.head(part), material.hidden[material.sources], material.targets, chunk
    )
    return take_gradients(losses.sum() / len(material.targets), material.trained)


def chunks(material: Material, chunk: int) -> Computed:
    """Chunks whose gradients are taken while their logits are there: what a run does."""
    loss, _ = sum_losses(
        lambda part, _: material.head(part),
        trained_of(material.head),
        material.hidden[material.sources],
        material.targets,
        chunk,
    )
    return take_gradients(loss / len(material.targets), material.trained)


def list_ways(material: Material, size: Size) -> dict[str, Callable[[], Computed]]:
    """The baseline first."""
    ways: dict[str, Callable[[], Computed]] = {
        FULL_LOGITS: partial(full_logits, material),
        SUPERVISED: partial(supervised_logits, material),
        f"{RECOMPUTED}_{size.chunks[-1]}": partial(recomputed_chunks, material, size.chunks[-1]),
    }
    return ways | {f"chunks_{chunk}": partial(chunks, material, chunk) for chunk in size.chunks}


def peak_mib(way: Callable[[], Computed]) -> float:
    """Most MiB of tensors alive at once that a way makes."""
    with (memory := LiveMemory()):
        way()
    return memory.most / 2**20


def measure(*, quick: bool) -> Outcome:
    """Time each way, and count what it holds.

    Raises:
        WrongResultError: A loss or a gradient differs from the baseline's by more than `TOLERANCE`.
    """
    size = QUICK if quick else FULL
    material = make_material(size)
    ways = list_ways(material, size)
    turns = time_in_turns(ways, size.num_turns)
    difference = check_same(turns.results, FULL_LOGITS, TOLERANCE)
    turns.results.clear()
    others = [way for way in ways if way != FULL_LOGITS]
    facts: dict[str, float | int | str] = {f"{way}_peak_mib": peak_mib(run) for way, run in ways.items()}
    return Outcome(
        baseline=FULL_LOGITS,
        figures={
            f"{way}_us_per_supervised_token": summarize(
                costs(seconds, len(material.targets)), "us/supervised token"
            )
            for way, seconds in turns.seconds.items()
        },
        ratios={way: compare(turns.seconds[FULL_LOGITS], turns.seconds[way]) for way in others},
        facts=facts
        | {
            "model": f"a toy head alone: hidden {size.hidden_size}, {size.vocab_size} ids, float32, LoRA r=16 by peft",
            "slots": size.slots,
            "supervised_tokens": len(material.targets),
            "largest_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )
