"""Lean LoRA computes what peft's own layers compute, in every setting that it takes, and says why it takes no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.attention.choice import IMPLEMENTATIONS, register_attention
from harness.attention.layout import assemble_layout, find_blocks
from harness.config import ATTENTION_AND_MLP
from harness.dropout import DropoutDraw, keep_windows
from harness.lean import make_lean, projection
from harness.lean.functions import norm_project
from harness.lean.layer import LeanLayer
from harness.lean.projection import Group, join_group
from harness.lora import adapter_state
from harness.recompute import enable_recompute
from preprocess.schema import ROOT
from tests.lean_models import SHAPE, embed, exact_norms, largest_error, make_model, run_backward

EXACT = 1e-10


def both_ways(**options: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The results of lean LoRA and of peft's own path, in float64."""
    with exact_norms():
        model, draw = make_model(**options)
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        return run_backward(model, draw, embed()), reference


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_outputs_and_all_gradients_are_those_of_peft(family: str, dropout: float) -> None:
    results, reference = both_ways(family=family, dropout=dropout)
    assert len(results) == 2 + 2 * 7 * 2
    assert largest_error(results, reference) < EXACT


@pytest.mark.parametrize(
    "targets", [("q_proj",), ("v_proj", "k_proj"), ("o_proj", "up_proj"), ("gate_proj", "down_proj")]
)
def test_any_subset_of_the_projections_may_have_adapters(targets: tuple[str, ...]) -> None:
    results, reference = both_ways(targets=targets)
    assert largest_error(results, reference) < EXACT


def test_frozen_adapters_hand_the_gradient_through() -> None:
    with exact_norms():
        model, draw = make_model()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("layers.1.mlp.down_proj.lora_A" in name)
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        assert largest_error(run_backward(model, draw, embed()), reference) < EXACT


def test_eager_attention_and_options_of_rope_are_passed_through() -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    with exact_norms():
        model, draw = make_model(shape={"head_dim": 16, "rope_parameters": rope, "attention_bias": True})
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        assert largest_error(run_backward(model, draw, embed()), reference) < EXACT
        model.get_base_model().set_attn_implementation("eager")
        eager = run_backward(model, draw, embed())
        assert largest_error(eager, reference) < 1e-5  # its softmax is in float32


def test_the_layout_of_a_forest_reaches_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    register_attention()
    layout = assemble_layout(find_blocks([9, 5, 4], [ROOT, 0, 0]))
    with exact_norms():
        model, draw = make_model()
        apart = run_backward(model, draw, embed(rows=1, length=18))
        causal = model.get_base_model()
        causal.set_attn_implementation(IMPLEMENTATIONS["flash"])
        run_body = partial(causal.model.forward, forest=layout, attention_mask=layout.no_mask)
        monkeypatch.setattr(causal.model, "forward", run_body)
        reference = run_backward(model, draw, embed(rows=1, length=18))
        assert make_lean(model) is None
        results = run_backward(model, draw, embed(rows=1, length=18))
    assert largest_error(results, reference) < EXACT
    assert largest_error(results, apart) > 1e-2


def test_another_mask_in_the_backward_pass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def keep_others(values: torch.Tensor, offsets: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return keep_windows(values, offsets + (1 if len(calls) > 8 else 0), table)  # 4 inputs of 2 layers

    with exact_norms():
        model, draw = make_model()
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        monkeypatch.setattr(projection, "keep_windows", keep_others)
        results = run_backward(model, draw, embed())
    assert len(calls) == 8 + 2 * 8
    torch.testing.assert_close(results["output"], reference["output"], rtol=0, atol=1e-10)
    assert largest_error(results, reference) > 1e-2


def test_a_forgotten_scale_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def forget(*arguments: Any) -> Group:
        calls.append(1)
        group = join_group(*arguments)
        return group if len(calls) <= 8 else group._replace(scales=tuple(1.0 for _ in group.scales))

    with exact_norms():
        model, draw = make_model()
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        monkeypatch.setattr("harness.lean.functions.join_group", forget)
        assert largest_error(run_backward(model, draw, embed()), reference) > 1e-2


def rounding_error(results: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    """The error of each result as a share of its length (root of the sum of squares)."""
    return {
        name: float((results[name].double() - right).norm() / right.norm()) for name, right in exact.items()
    }


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_bfloat16_rounds_no_worse_than_peft(dropout: float) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 160}
    inputs = embed(rows=4, length=32, hidden=64).bfloat16().double()
    model, draw = make_model(dropout=dropout, dtype=torch.bfloat16, shape=shape)
    peft = run_backward(model, draw, inputs)
    assert make_lean(model) is None
    lean = run_backward(model, draw, inputs)
    with exact_norms():
        exact = run_backward(model.double(), draw, inputs)
    peft_error, lean_error = rounding_error(peft, exact), rounding_error(lean, exact)
    assert 1e-3 < peft_error["output"] < 0.1
    assert lean_error["output"] <= 1.3 * peft_error["output"]
    assert lean_error["input"] <= 1.3 * peft_error["input"]
    assert sum(lean_error.values()) <= 1.05 * sum(peft_error.values())
    assert all(lean_error[name] <= 1.3 * error for name, error in peft_error.items())


def test_recomputed_layers_run_again_and_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    results, reference = both_ways()
    with exact_norms():
        model, draw = make_model()
        assert make_lean(model) is None
        enable_recompute(model.get_base_model(), 1)
        calls = []

        def count(*arguments: Any) -> Any:
            calls.append(1)
            return norm_project(*arguments)

        monkeypatch.setattr("harness.lean.layer.norm_project", count)
        again = run_backward(model, draw, embed())
    assert len(calls) == 2 * 2 + 2  # two a layer, and those of the first layer once more
    assert largest_error(again, reference) < EXACT
    assert largest_error(again, results) < 1e-14


def generate(model: PeftModel) -> torch.Tensor:
    model.eval()
    prompt = torch.arange(1, 7).view(1, 6)
    result = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
    )
    return cast("torch.Tensor", result)


def test_generation_with_a_cache_and_evaluation_without_one_are_those_of_peft() -> None:
    model, _ = make_model(dtype=torch.float32)
    model.eval()
    ids = torch.arange(20).view(2, 10)
    tokens = generate(model)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    assert make_lean(model) is None
    assert torch.equal(generate(model), tokens)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, logits, rtol=1e-5, atol=1e-5)


def test_adapters_that_are_switched_off_or_merged_are_left_out() -> None:
    model, _ = make_model(dtype=torch.float64)
    model.eval()
    ids = torch.arange(20).view(2, 10)
    with model.disable_adapter():
        base = model(input_ids=ids, use_cache=False).logits
    assert make_lean(model) is None
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, base, rtol=0, atol=0)
    with torch.no_grad():
        adapted = model(input_ids=ids, use_cache=False).logits
        assert float((adapted - base).abs().max()) > 1e-2
        model.merge_adapter()
        torch.testing.assert_close(
            model(input_ids=ids, use_cache=False).logits, adapted, rtol=1e-5, atol=1e-5
        )


def test_the_adapter_is_saved_as_before() -> None:
    model, _ = make_model()
    names, before = list(model.state_dict()), adapter_state(model)
    assert make_lean(model) is None
    after = adapter_state(model)
    assert list(model.state_dict()) == names
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def compile_layers(model: PeftModel, **options: Any) -> None:
    torch._dynamo.reset()
    for layer in cast("Any", model.get_base_model()).model.layers:
        layer.compile(**options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # torch's own
def test_compiled_layers_are_one_graph_that_serves_every_draw() -> None:
    with exact_norms():
        model, draw = make_model()
        reference = [run_backward(model, draw, embed(seed), seed) for seed in (1, 2, 3)]
        assert make_lean(model) is None
        compile_layers(model, backend="aot_eager", fullgraph=True)
        results = [run_backward(model, draw, embed(1), 1)]
        with torch._dynamo.config.patch(error_on_recompile=True):
            results += [run_backward(model, draw, embed(seed), seed) for seed in (2, 3)]
    for left, right in zip(results, reference, strict=True):
        assert largest_error(left, right) < EXACT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # torch's own
def test_layers_compiled_by_inductor_give_the_same_gradients() -> None:
    model, draw = make_model(dtype=torch.float32, shape={"num_hidden_layers": 1})
    reference = run_backward(model, draw, embed())
    assert make_lean(model) is None
    compile_layers(model, fullgraph=True)
    assert largest_error(run_backward(model, draw, embed()), reference) < 1e-4


def with_config(**options: Any) -> PeftModel:
    causal = LlamaForCausalLM(LlamaConfig(**SHAPE)).requires_grad_(requires_grad=False)
    targets = list(ATTENTION_AND_MLP)
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", **options)
    return get_peft_model(causal, config, autocast_adapter_dtype=False)


def merge(model: PeftModel) -> None:
    model.merge_adapter()


def train_norms(model: PeftModel) -> None:
    model.get_base_model().model.layers[0].input_layernorm.weight.requires_grad_()


def train_base(model: PeftModel) -> None:
    model.get_base_model().model.layers[1].mlp.up_proj.base_layer.weight.requires_grad_()


def add_second_adapter(model: PeftModel) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=list(ATTENTION_AND_MLP)))
    model.base_model.set_adapter(["default", "other"])


def replace_base(model: PeftModel) -> None:
    class Quantized(nn.Linear):
        pass

    model.get_base_model().model.layers[0].mlp.up_proj.base_layer = Quantized(32, 48).requires_grad_(False)


def change_activation(model: PeftModel) -> None:
    model.get_base_model().config.hidden_act = "gelu"


def change_precision(model: PeftModel) -> None:
    model.get_base_model().model.layers[0].self_attn.q_proj.lora_A.double()


REFUSED: list[tuple[dict[str, Any], Callable[[PeftModel], None] | None, str]] = [
    ({"use_dora": True}, None, "adapter variant DoraLinearVariant"),
    ({"lora_dropout": 0.1}, None, "q_proj has a dropout that cannot be redrawn"),
    ({"lora_bias": True}, None, "adapter with a bias"),
    ({}, merge, "merged adapter"),
    ({}, train_norms, "its norms are trained"),
    ({}, train_base, "layer 1: up_proj trains the base's own weight"),
    ({}, add_second_adapter, "has 2 active adapters"),
    ({}, replace_base, "layer 0: up_proj is a Linear over a Quantized"),
    ({}, change_activation, "its activation is gelu"),
    ({}, change_precision, "q_proj has an adapter of another precision"),
]


@pytest.mark.parametrize(("options", "change", "reason"), REFUSED)
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_what_it_does_not_take_is_left_alone_with_a_reason(
    options: dict[str, Any], change: Callable[[PeftModel], None] | None, reason: str
) -> None:
    model = with_config(**options)
    if change is not None:
        change(model)
    assert reason in str(make_lean(model))
    assert not any(isinstance(module, LeanLayer) for module in model.modules())


def test_a_model_of_another_kind_is_left_alone_with_a_reason() -> None:
    class Stranger(nn.Module):
        pass

    causal = LlamaForCausalLM(LlamaConfig(**SHAPE))
    causal.model.layers[0] = Stranger()
    assert str(make_lean(causal)).startswith("layer 0: Stranger is none of LlamaDecoderLayer")


def test_a_model_without_adapters_runs_lean_too() -> None:
    causal = LlamaForCausalLM(LlamaConfig(**SHAPE)).requires_grad_(requires_grad=False)
    ids = torch.arange(20).view(2, 10)
    before = causal(input_ids=ids, use_cache=False).logits
    assert make_lean(causal) is None
    torch.testing.assert_close(causal(input_ids=ids, use_cache=False).logits, before, rtol=1e-5, atol=1e-5)


def test_nothing_is_drawn_again_for_a_pass_that_was_started_before() -> None:
    """What the backward pass redraws is its own pass's mask, even after the next pass was drawn."""
    with exact_norms():
        model, draw = make_model()
        reference = run_backward(model, draw, embed())
        assert make_lean(model) is None
        start = DropoutDraw.start
        values = embed().requires_grad_()
        model.zero_grad()
        start(draw, torch.arange(1, 19).view(2, 9), 7)
        output = model.get_base_model().model(inputs_embeds=values, use_cache=False).last_hidden_state
        start(draw, torch.arange(101, 119).view(2, 9), 8)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).double()
        (output * weights).sum().backward()
    torch.testing.assert_close(values.grad, reference["input"], rtol=0, atol=1e-10)
