"""Lean LoRA trains the same adapters as peft's own layers at every ZeRO stage, with the layers whole at stage 3."""

from __future__ import annotations

from typing import Any, cast

import deepspeed
import numpy as np
import numpy.typing as npt
import pytest
import torch
from deepspeed.utils import set_z3_leaf_modules
from torch import nn

from harness.dist import join_world
from harness.lean import make_lean
from harness.lean.layer import LeanLayer
from harness.recompute import enable_recompute
from tests.dist_ranks import RankFailedError, run_ranks
from tests.lean_models import embed, make_model

Weights = npt.NDArray[np.float32]


class Body(nn.Module):
    """A model whose forward pass is its layers', as an engine wants it."""

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output = cast("Any", self.causal).model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        weights = torch.arange(output.numel()).view(output.shape).sin()  # the norm fixes the mean of squares
        return cast("torch.Tensor", (output * weights).mean())


def train(
    stage: int, *, lean: bool, recompute: int = 0, inputs_want_gradient: bool = True
) -> dict[str, Weights]:
    """Three steps of two micro-steps on this rank's own inputs; the adapter's weights afterwards."""
    rank = join_world(expected_size=2).rank
    model, draw = make_model(dtype=torch.float32)
    if lean:
        assert make_lean(model) is None
    enable_recompute(model.get_base_model(), recompute)
    body = Body(model.get_base_model())
    if lean and stage == 3:
        set_z3_leaf_modules(body, [LeanLayer])
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.SGD(weights, lr=0.5)
    engine, *_ = deepspeed.initialize(model=body, optimizer=optimizer, config=config)
    engine.train()
    for micro_step in range(6):
        draw.start(torch.arange(18).view(2, 9) + 100 * rank + 1, micro_step)
        # Stage 3 drops a layer's weights too early where none of its inputs wants a gradient.
        inputs = embed(10 * micro_step + rank).float().requires_grad_(stage == 3 and inputs_want_gradient)
        engine.backward(engine(inputs))
        engine.step()
    result = {}
    for name, parameter in body.named_parameters():
        if parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter], enabled=stage == 3):
                result[name] = parameter.detach().numpy().copy()  # arrays pass between processes
    return result


def train_all_ways() -> dict[str, dict[str, Weights]]:
    """Peft's layers at stage 0 and 3, and lean ones at every stage, with recomputation too."""
    results = {f"peft {stage}": train(stage, lean=False) for stage in (0, 3)}
    for stage in range(4):
        results[f"lean {stage}"] = train(stage, lean=True)
        results[f"recomputed {stage}"] = train(stage, lean=True, recompute=1)
    return results


@pytest.mark.slow
def test_adapters_trained_on_two_ranks_are_those_of_peft_at_every_stage() -> None:
    untrained = dict(make_model(dtype=torch.float32)[0].get_base_model().named_parameters())
    for results in run_ranks(train_all_ways, 2, timeout_s=300):
        reference = results.pop("peft 0")
        assert len(reference) == 28
        for name, weight in reference.items():
            start = untrained[name.removeprefix("causal.")].detach().numpy()
            assert np.abs(weight - start).max() > 1e-4
            for own in results.values():
                np.testing.assert_allclose(own[name], weight, rtol=1e-4, atol=1e-6)


def train_without_gradient_of_the_inputs() -> None:
    train(3, lean=True, inputs_want_gradient=False)


@pytest.mark.slow
def test_stage_3_fails_loudly_where_no_input_wants_a_gradient() -> None:
    with pytest.raises(RankFailedError, match="RuntimeError: The size of tensor"):
        run_ranks(train_without_gradient_of_the_inputs, 2, timeout_s=300)
