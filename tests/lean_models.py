"""Tiny models with adapters for the tests of lean LoRA, in float64 throughout where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from harness.config import ATTENTION_AND_MLP, LoraSettings
from harness.dropout import DropoutDraw, install_dropout
from harness.lora import add_lora

FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
}
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
ROWS, LENGTH = 2, 9


def make_model(
    family: str = "llama",
    *,
    dropout: float = 0.2,
    targets: Sequence[str] = ATTENTION_AND_MLP,
    dtype: torch.dtype = torch.float64,
    rank: int = 4,
    shape: dict[str, Any] | None = None,
) -> tuple[PeftModel, DropoutDraw]:
    """The same random model with the same adapters (lora_B not zero) at every call; biases of Qwen2 are not zero."""
    make_config, make_causal = FAMILIES[family]
    torch.manual_seed(0)
    causal = make_causal(make_config(**{**SHAPE, **(shape or {})})).requires_grad_(requires_grad=False)
    settings = LoraSettings(r=rank, alpha=2.0 * rank + 1, dropout=dropout, targets=tuple(targets))
    model = add_lora(causal, settings, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return model.to(dtype), install_dropout(model)


def embed(seed: int = 0, rows: int = ROWS, length: int = LENGTH, hidden: int = 32) -> torch.Tensor:
    """float64[R, T, H], what stands for the embedded tokens."""
    return torch.randn(
        rows, length, hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def run_backward(
    model: PeftModel, draw: DropoutDraw, inputs: torch.Tensor, seed: int = 7
) -> dict[str, torch.Tensor]:
    """One training pass: the body's output, the gradient of its input, and of every adapter matrix."""
    model.train()
    model.zero_grad()
    rows, length, _ = inputs.shape
    draw.start(torch.arange(1, rows * length + 1).view(rows, length), seed)
    values = inputs.to(next(model.parameters()).dtype).requires_grad_()
    body = cast("Any", model.get_base_model()).model
    output = body(inputs_embeds=values, use_cache=False).last_hidden_state
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    (output * weights.to(output.dtype)).sum().backward()
    assert values.grad is not None
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    results = {"output": output.detach(), "input": values.grad, **grads}
    return {name: cast("torch.Tensor", tensor).clone() for name, tensor in results.items()}


def largest_error(results: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> float:
    """The largest difference of any result, as a share of that result's largest value."""
    assert results.keys() == reference.keys()
    return max(
        float((results[name].double() - right.double()).abs().max() / right.double().abs().max())
        for name, right in reference.items()
    )


@contextmanager
def exact_norms() -> Iterator[None]:
    """Inside, transformers' norms compute in their input's own precision, not in float32."""

    def forward(self: Any, values: torch.Tensor) -> torch.Tensor:
        mean = values.square().mean(-1, keepdim=True)
        return cast("torch.Tensor", self.weight * (values * torch.rsqrt(mean + self.variance_epsilon)))

    with (
        patch.object(LlamaRMSNorm, "forward", forward),
        patch.object(MistralRMSNorm, "forward", forward),
        patch.object(Qwen2RMSNorm, "forward", forward),
    ):
        yield
