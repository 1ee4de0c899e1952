"""How many bytes a token does training keep for the backward pass, with peft's layers and with lean ones?

Nothing is computed or allocated: the model and its pass are made of fake tensors, which have shapes but no values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.live_memory import kept_storages
from bench.random_model import make_random
from bench.record import Outcome, WrongResultError, summarize
from harness.attention.choice import IMPLEMENTATIONS, register_attention
from harness.attention.layout import assemble_layout, find_blocks
from harness.config import ATTENTION_AND_MLP
from harness.dropout import DropoutDraw, install_dropout
from harness.lean import make_lean
from harness.shapes import find_shape
from preprocess.schema import ROOT

SHAPE = find_shape("llama-3.2-3b")
NUM_LAYERS = SHAPE.num_layers
RANK = 128

Way = Literal["peft", "lean"]


def measure(*, quick: bool) -> Outcome:
    """Count the body of Llama-3.2-3B's shape in bfloat16, r = 128 on seven projections, one row, forest kernel.

    Raises:
        WrongResultError: Lean layers keep no less than peft's.
    """
    length = 256 if quick else 2048
    kept = {
        f"{way}, dropout {dropout:g}": kept_bytes_per_token(
            way, dropout=dropout, length=length, whole=not quick
        )
        for dropout in (0.0, 0.05)
        for way in ("peft", "lean")
    }
    shares = {
        f"lean / peft, dropout {dropout}": kept[f"lean, dropout {dropout}"] / kept[f"peft, dropout {dropout}"]
        for dropout in ("0", "0.05")
    }
    if max(shares.values()) >= 1:
        raise WrongResultError(f"lean layers keep as much as peft's or more: {kept}")
    return Outcome(
        baseline="peft",
        figures={name: summarize([value / 1e6], "MB/token") for name, value in kept.items()},
        ratios={},
        facts={
            **shares,
            "model": f"Llama-3.2-3B's shape, bfloat16, LoRA r={RANK} on seven projections, without head and loss",
            "layers": NUM_LAYERS,
            "tokens_counted": length,
        },
    )


def kept_bytes_per_token(
    way: Way, *, dropout: float, length: int, forest: bool = True, whole: bool = False
) -> float:
    """Bytes that a training pass through all `NUM_LAYERS` layers keeps for backward, for each token of a row.

    Weights, and what is one for all layers (the rotary angles, the table of the dropout), don't count.

    Args:
        way: "peft" with its own nn.Dropout, or "lean".
        dropout: On the adapters' inputs.
        length: Tokens of the row, a multiple of 4.
        forest: Attend by the forest kernel (half of the row is a prefix of two branches), else by SDPA.
        whole: Count every layer, not two of them to add up the rest.
    """
    layout = assemble_layout(find_blocks([length // 2, length // 4, length // 4], [ROOT, 0, 0]))
    options = {"forest": layout, "attention_mask": layout.no_mask} if forest else {}
    if whole:
        return _count_model(way, dropout, NUM_LAYERS, length, options) / length
    one, two = (_count_model(way, dropout, num_layers, length, options) for num_layers in (1, 2))
    return (one + (NUM_LAYERS - 1) * (two - one)) / length


def _count_model(way: Way, dropout: float, num_layers: int, length: int, options: dict[str, Any]) -> int:
    with _fake_model(num_layers, dropout) as model:
        draw = None
        if way == "lean":
            draw = install_dropout(model)
            if reason := make_lean(model):
                raise WrongResultError(f"lean layers were refused: {reason}")
        if options:
            register_attention()
            model.get_base_model().set_attn_implementation(IMPLEMENTATIONS["flash"])
        return _count_kept(model, draw, length, options)


@contextmanager
def _fake_model(num_layers: int, dropout: float) -> Iterator[PeftModel]:
    """A model with adapters whose tensors take no memory; inside, new tensors are fake too."""
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)  # fake tensors cannot be swapped
    try:
        with torch.device("meta"):
            base = make_random(replace(SHAPE, num_layers=num_layers), torch.device("meta"), torch.bfloat16)
            lora = LoraConfig(
                r=RANK, lora_dropout=dropout, target_modules=list(ATTENTION_AND_MLP), task_type="CAUSAL_LM"
            )
            model = get_peft_model(base, lora, autocast_adapter_dtype=False).to(torch.bfloat16)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            yield model.train()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


def _count_kept(model: PeftModel, draw: DropoutDraw | None, length: int, options: dict[str, Any]) -> int:
    """Bytes of the storages that autograd holds after a forward pass, each counted once."""
    body = cast("Any", model.get_base_model()).model
    if draw is not None:
        draw.start(torch.zeros(1, length, dtype=torch.int64), seed=0)
    inputs = torch.empty(1, length, SHAPE.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    output: list[torch.Tensor] = []
    kept = kept_storages(
        lambda: output.append(body(inputs_embeds=inputs, use_cache=False, **options).last_hidden_state)
    )
    assert output[0].requires_grad
    return sum(storage.nbytes() for key, storage in kept.items() if key not in _shared(model, draw))


def _shared(model: nn.Module, draw: DropoutDraw | None) -> set[int]:
    """Storages that are there anyway, or once for all layers."""
    tensors = [*model.parameters(), *model.buffers()]
    if draw is not None:
        tensors += list(draw.tables.values())
    return {tensor.untyped_storage()._cdata for tensor in tensors}
