"""DeepSpeed's documented estimates, held to the functions of its package."""

from __future__ import annotations

import pytest

from harness.planning.estimator import estimate, estimate_zero2, estimate_zero3
from harness.shapes import SHAPES


@pytest.mark.parametrize("ranks", [1, 3, 8])
@pytest.mark.parametrize("offload", [False, True])
def test_the_arithmetic_is_deepspeeds_own(ranks: int, offload: bool) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    num_weights, largest = 3_423_900_123, 394_002_432
    _, theirs = estimate_zero2_model_states_mem_needs(num_weights, 1, ranks, cpu_offload=offload)
    assert estimate_zero2(num_weights, ranks, offload=offload) == theirs
    for parameters in {False, offload}:
        _, theirs, _ = estimate_zero3_model_states_mem_needs(
            num_weights, largest, 1, ranks, cpu_offload=offload, cpu_offload_params=parameters
        )
        ours = estimate_zero3(num_weights, largest, ranks, offload=offload, offload_parameters=parameters)
        assert ours == theirs


def test_it_takes_every_weight_for_a_trained_one() -> None:
    """By hand, for three ranks: 2 N + 18 N / 3 = 8 N, where a 6.6 % adapter needs about 2.7."""
    shape = SHAPES["llama-3.2-3b"]
    found = estimate(shape, 211_000_000, 3, 2)
    assert found == pytest.approx(8 * (shape.num_weights + 211_000_000), rel=1e-6)
    assert estimate(shape, 211_000_000, 3, 1) is None
