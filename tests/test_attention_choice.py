"""The kernel fits the hardware, and models call it by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from harness.attention.choice import IMPLEMENTATIONS, choose_attention, register_attention
from harness.config import Attention
from preprocess.errors import ConfigError
from tests.attention_cases import Case, draw_rows, make_case

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pretend_gpu(
    patch: pytest.MonkeyPatch,
    *,
    capability: tuple[int, int] = (9, 0),
    flash: bool = True,
    triton: bool = True,
) -> None:
    """Answer torch's questions about the GPU."""
    patch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    patch.setattr(torch.cuda, "get_device_name", lambda _: "Pretended GPU")
    patch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: flash)
    patch.setattr(torch.utils._triton, "has_triton", lambda: triton)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_cpu_takes_flash_in_any_precision(dtype: torch.dtype) -> None:
    assert choose_attention("auto", CPU, dtype) == "flash"


@pytest.mark.parametrize(
    ("facts", "dtype", "kind"),
    [
        ({}, torch.bfloat16, "flash"),
        ({"capability": (8, 0)}, torch.float16, "flash"),
        ({}, torch.float32, "flex"),
        ({"triton": False}, torch.float32, "sdpa"),
        ({"capability": (7, 5)}, torch.float16, "flex"),
        ({"capability": (7, 5), "triton": False}, torch.float16, "sdpa"),
        ({"flash": False}, torch.bfloat16, "flex"),
    ],
)
def test_a_gpu_takes_what_it_can_compute(
    facts: dict[str, Any], dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, **facts)
    assert choose_attention("auto", CUDA, dtype) == kind


@pytest.mark.parametrize(
    ("head_dim", "kind"), [(8, "flash"), (80, "flash"), (256, "flash"), (100, "flex"), (264, "flex")]
)
def test_a_gpu_takes_flash_for_heads_that_its_kernels_have(
    head_dim: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch)
    assert choose_attention("auto", CUDA, torch.bfloat16, head_dim) == kind
    assert choose_attention("auto", CPU, torch.bfloat16, head_dim) == "flash"
    if kind != "flash":
        with pytest.raises(ConfigError, match=f"multiple of 8 up to 256, not {head_dim}; use"):
            choose_attention("flash", CUDA, torch.bfloat16, head_dim)


def test_an_unknown_device_takes_sdpa() -> None:
    assert choose_attention("auto", torch.device("mps"), torch.float16) == "sdpa"


@pytest.mark.parametrize("setting", ["flash", "flex", "sdpa", "eager"])
def test_what_is_asked_for_is_taken_where_it_can_be(
    setting: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch)
    assert choose_attention(setting, CUDA, torch.bfloat16) == setting


@pytest.mark.parametrize(
    ("setting", "device", "dtype", "facts", "message"),
    [
        (
            "flex",
            CPU,
            torch.bfloat16,
            {},
            "flex: FlexAttention has no gradient on a cpu device.* use auto, or flash or",
        ),
        (
            "flash",
            CUDA,
            torch.float32,
            {},
            "in bf16 and fp16 on a GPU, not in float32; use auto, or flex or sdpa",
        ),
        ("flash", CUDA, torch.float16, {"capability": (7, 5)}, r"8\.0 or above, not Pretended GPU .*7\.5"),
        (
            "flash",
            CUDA,
            torch.bfloat16,
            {"flash": False},
            "built without flash kernels; use auto, or flex or sdpa",
        ),
        ("flex", CUDA, torch.float32, {"triton": False}, "needs Triton.*; use auto, or sdpa$"),
        (
            "flash",
            torch.device("mps"),
            torch.float16,
            {},
            "no flash kernels for a mps device; use auto, or sdpa$",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_with_what_can(
    setting: Attention,
    device: torch.device,
    dtype: torch.dtype,
    facts: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_gpu(monkeypatch, **facts)
    with pytest.raises(ConfigError, match=message):
        choose_attention(setting, device, dtype)


def make_model(attention: str, **changes: Any) -> LlamaForCausalLM:
    """A tiny Llama in float64; the weights are the same at each call."""
    register_attention()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        attn_implementation=attention,
        **changes,
    )
    return LlamaForCausalLM(config).double()


def make_body(attention: str, **changes: Any) -> LlamaModel:
    """Its body."""
    return make_model(attention, **changes).model


def run_body(body: LlamaModel, case: Case, **how: Any) -> list[torch.Tensor]:
    """Hidden states at tokens and the gradient of each weight."""
    ids = torch.arange(case.is_token.numel()).view(case.is_token.shape) % 50
    positions = torch.arange(ids.shape[1]).expand(ids.shape) % 11
    hidden = body(input_ids=ids, position_ids=positions, use_cache=False, **how).last_hidden_state
    hidden = hidden * case.is_token[:, :, None]
    grads = torch.autograd.grad(hidden.square().sum(), list(body.parameters()))
    return [hidden.detach(), *grads]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_a_model_under_flash_gives_what_it_gives_under_a_dense_mask(flat: bool, recompute: bool) -> None:
    case = make_case(draw_rows(5), flat=flat)
    body = make_body("lyrics_forest")
    if recompute:
        body.gradient_checkpointing_enable({"use_reentrant": False})
        body.train()
    found = run_body(body, case, attention_mask=case.layout.no_mask, forest=case.layout)
    expected = run_body(make_body("sdpa"), case, attention_mask=case.mask)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(found, expected, strict=True))
    leaked = run_body(make_body("sdpa"), case, attention_mask=torch.ones_like(case.mask).tril())
    assert (found[0] - leaked[0]).abs().max() > 1e-3


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # torch's own
def test_one_compiled_graph_serves_layers_and_layouts_of_any_size() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    body = make_body("lyrics_forest")
    for layer in body.layers:
        layer.self_attn.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    for seed in range(3):
        case = make_case(draw_rows(seed), flat=True)
        found = run_body(body, case, attention_mask=case.layout.no_mask, forest=case.layout)
        expected = run_body(make_body("sdpa"), case, attention_mask=case.mask)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(found, expected, strict=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_with_no_mask_a_model_builds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor | None] = []

    def spy(*tensors: Any, **_: Any) -> Any:
        seen.append(tensors[4])
        return tensors[1].transpose(1, 2), None

    body = make_body("lyrics_forest")
    monkeypatch.setattr("harness.attention.choice.forest_attention_forward", spy)
    register_attention()
    case = make_case(draw_rows(5), flat=True)
    ids = torch.zeros(case.is_token.shape, dtype=torch.int64)
    given = {"input_ids": ids, "position_ids": torch.arange(ids.shape[1])[None] % 11, "use_cache": False}
    body(**given, attention_mask=case.layout.no_mask, forest=case.layout)
    assert all(mask is case.layout.no_mask for mask in seen)
    seen.clear()
    body(**given, forest=case.layout)  # the control: for positions that restart transformers makes one
    assert all(mask is not None and mask.numel() == ids.numel() ** 2 for mask in seen)
    monkeypatch.undo()
    register_attention()


def test_without_a_forest_a_model_generates_what_it_generates_under_sdpa() -> None:
    prompts = torch.tensor([[0, 0, 5, 9, 3], [4, 8, 1, 2, 6]])
    how: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    texts = [
        make_model(attention).generate(prompts, attention_mask=(prompts > 0).long(), **how)
        for attention in ("lyrics_forest", "lyrics_flex", "sdpa")
    ]
    assert torch.equal(texts[0], texts[2])
    assert torch.equal(texts[1], texts[2])


def test_attention_dropout_is_refused() -> None:
    case = make_case(draw_rows(5), flat=True)
    body = make_body("lyrics_forest", attention_dropout=0.1).train()
    with pytest.raises(ConfigError, match="attention_dropout, which the forest kernels do not compute; set"):
        run_body(body, case, attention_mask=case.layout.no_mask, forest=case.layout)


def test_every_kind_has_a_name_for_transformers() -> None:
    register_attention()
    for name in IMPLEMENTATIONS.values():
        assert make_body(name).config._attn_implementation == name
