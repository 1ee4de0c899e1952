"""A micro-step of the harness's own model, counted by torch storage by storage; fake tensors take no memory.

Operators that are one to torch are one here: what a kernel takes inside, no count sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.live_memory import LiveMemory
from bench.random_model import make_random
from harness.assembly import assemble
from harness.attention.layout import assemble_layout, find_blocks
from harness.config import LoraSettings, ModelSettings
from harness.data import MicroBatch
from harness.loss import ForestLanguageModel
from harness.memory.case import MemoryCase
from harness.model import DTYPES
from harness.throughput import StepCounts
from preprocess.schema import ROOT


@dataclass(frozen=True, slots=True)
class CountedStep:
    """Bytes of tensors that a micro-step made.

    Attributes:
        kept: Alive at the end of the body's forward pass, its output included.
        peaks: Most bytes alive at once in forward, loss and backward.
        left: Alive after all: what does not belong to the step (the dropout's tables and offsets).
    """

    kept: int
    peaks: Mapping[str, int]
    left: int


def count_step(case: MemoryCase, *, real: bool = False) -> CountedStep:
    """Count a micro-step of a step's later ones: float32 gradients lie on all parameters already.

    Args:
        case: What is counted; its device must be "cpu".
        real: Compute it, with real tensors.
    """
    assert case.device == "cpu"
    with _fake_or_real(case, real=real) as model:
        batch = make_batch(case)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad_dtype = torch.float32
                parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
        return _count(model, batch)


def _count(model: ForestLanguageModel, batch: MicroBatch) -> CountedStep:
    memory, kept = LiveMemory(), 0
    body = model.hidden_states

    def hidden_states(given: MicroBatch) -> torch.Tensor:
        nonlocal kept
        output = body(given)
        kept = memory.now
        memory.begin("loss")
        return output

    with memory, patch.object(model, "hidden_states", hidden_states):
        memory.begin("forward")
        loss, losses = model(batch, seed=0)
        memory.begin("backward")
        loss.backward()
        del loss, losses
    return CountedStep(kept, memory.peaks, memory.now)


@contextmanager
def _fake_or_real(case: MemoryCase, *, real: bool) -> Iterator[ForestLanguageModel]:
    """The assembled model in training mode; inside, new tensors are fake unless `real`."""
    device = torch.device("cpu" if real else "meta")
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)  # fake tensors cannot be swapped
    try:
        model = _assemble(case, device)
        with nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True):
            if not real:
                model.to_empty(device="cpu")
                _tie(model, case)
            yield model.train()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


def _assemble(case: MemoryCase, device: torch.device) -> ForestLanguageModel:
    """As `harness.train` does. Values are neither there to be sampled nor to tell whether they can be float8."""
    assert case.lora is not None
    dtype = DTYPES[case.precision]
    base = make_random(case.shape, device, dtype)
    settings = ModelSettings(
        path="random",
        precision=case.precision,
        attention=case.attention,
        recompute_layers=case.recompute_layers,
        lora_kernel=case.lora_kernel,
        fp8=case.fp8,
        loss_chunk=case.loss_chunk,
    )
    lora = LoraSettings(r=case.lora.r, dropout=case.dropout, targets=case.lora.targets)
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(patch("harness.lora.sample_weights", _no_samples))
        stack.enter_context(patch("harness.lean.fp8_supported", lambda _: None))
        stack.enter_context(device)
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(dtype)  # on the meta device peft leaves adapters in the default precision
        ready = assemble(base, settings, lora, seed=0, device=torch.device("cpu"))
    assert not ready.notes, ready.notes
    return ready.model


def _no_samples(_: nn.Module) -> str:
    return "{}"


def _tie(model: ForestLanguageModel, case: MemoryCase) -> None:
    """`to_empty` gives embedding and head a matrix each; tied ones share one again."""
    if case.shape.tied:
        causal = cast("Any", model.causal)
        head = getattr(causal.lm_head, "base_layer", causal.lm_head)
        head.weight = causal.model.embed_tokens.weight


def make_batch(case: MemoryCase) -> MicroBatch:
    """A micro-batch of the case's sizes: flat, or rows beside each other for a kernel with a dense mask."""
    flat = case.attention in ("flash", "flex")
    rows = 1 if flat else case.slots // case.row_slots
    shape = (rows, case.slots // rows)
    first = case.slots // 2
    second = (case.slots - first) // 2
    layout = assemble_layout(find_blocks([first, second, case.slots - first - second], [ROOT, 0, 0]))
    zeros: Callable[..., torch.Tensor] = torch.zeros
    entry = zeros(shape, dtype=torch.int32)
    ids, labels = zeros(shape, dtype=torch.int64), zeros(case.supervised, dtype=torch.int64)
    return MicroBatch(
        input_ids=ids,
        position_ids=ids,
        entry=entry,
        exit=entry + 1,
        sources=labels,
        targets=labels,
        target_tasks=labels,
        counts=StepCounts(slots=case.slots),
        layout=replace(layout, indices=torch.zeros(layout.indices.shape, dtype=torch.int64)),
        token_keys=ids,
        example_tasks=np.zeros(0, dtype=np.int64),
    )
