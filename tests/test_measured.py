"""The state that an engine really holds on a rank, against what its tensors must take at each ZeRO stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.memory.case import PARTS_OF_STATE
from harness.memory.measured import find_tensors, measure_parts
from tests.dist_ranks import run_ranks
from tests.engine_ranks import Case, make_root
from tests.memory_ranks import EXTRA_BYTES, Weighed, weigh_cases

CASES = [Case(0, "fp32"), Case(0, "bf16"), Case(1, "fp32"), Case(2, "bf16"), Case(3, "bf16")]
VALUE_BYTES = {"fp32": 4, "bf16": 2}
RANKS = 2
FLAGS = 16
"""Bytes of DeepSpeed's scalars (overflow flags, norms)."""


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> list[list[Weighed]]:
    """[rank][case]."""
    return run_ranks(weigh_cases, RANKS, make_root(tmp_path_factory.mktemp("measured")), CASES)


def cases_of(weighed: list[list[Weighed]]) -> list[tuple[Case, Weighed]]:
    return [pair for rank in weighed for pair in zip(CASES, rank, strict=True)]


def test_weights_are_measured_to_the_byte(weighed: list[list[Weighed]]) -> None:
    for case, one in cases_of(weighed):
        size = VALUE_BYTES[case.precision]
        frequencies = one.new["frozen_weights"] - one.frozen_values * size
        assert 0 <= frequencies < 256, "besides weights there are only the rotary frequencies"
        shards = RANKS if case.stage == 3 else 1
        assert one.new["lora_weights"] == pytest.approx(one.trained_values * size / shards, abs=64)


def test_masters_and_moments_are_those_that_the_optimizer_holds(weighed: list[list[Weighed]]) -> None:
    for case, one in cases_of(weighed):
        parts = one.stepped
        trains_weights = case.stage == 0 and case.precision == "fp32"
        masters = parts["lora_weights" if trains_weights else "master_weights"]
        assert masters + parts["optimizer_states"] == one.held, case
        assert parts["master_weights"] == 0 or not trains_weights
        shards = RANKS if case.stage else 1
        assert parts["optimizer_states"] == pytest.approx(one.trained_values * 8 / shards, abs=200)


def test_moments_are_there_only_after_a_step(weighed: list[list[Weighed]]) -> None:
    assert all(one.new["optimizer_states"] == 0 for _, one in cases_of(weighed))


def test_gradients_between_micro_steps_are_measured_and_gone_after_the_step(
    weighed: list[list[Weighed]],
) -> None:
    for case, one in cases_of(weighed):
        if case.stage < 3:
            assert (one.stepped["gradients"], one.kept["gradients"]) == (0, one.trained_values * 4), case
        else:  # ZeRO-3 keeps a buffer for this rank's part from the start
            assert one.new["gradients"] == pytest.approx(one.trained_values * 4 / RANKS, abs=64)


def test_deepspeed_s_bucket_is_found_where_it_makes_one(weighed: list[list[Weighed]]) -> None:
    for case, one in cases_of(weighed):
        bucket = 50_000_000 * 4 if case.stage == 3 else 0
        assert bucket <= one.stepped["communication"] <= bucket + FLAGS, case


def test_bytes_more_on_one_rank_are_that_rank_s_and_that_part_s(weighed: list[list[Weighed]]) -> None:
    for rank, cases in enumerate(weighed):
        for one in cases:
            extra = {part: one.planted[part] - one.kept[part] for part in PARTS_OF_STATE}
            frozen = extra.pop("frozen_weights")
            assert frozen == (EXTRA_BYTES if rank == 0 else 0)
            if any(extra.values()):  # only gradients differ: `kept` was taken while there were some
                assert set(extra) - {"gradients"} == {part for part, more in extra.items() if not more}


class Offloaded(nn.Module):
    """A model on no device, with an optimizer whose state lies elsewhere: what a GPU with offloading looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8), requires_grad=False)


def test_what_lies_in_the_host_s_memory_is_told_apart() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(4))], lr=1.0)
    engine: Any = SimpleNamespace(module=Offloaded(), optimizer=optimizer, device="cuda:0")
    assert sum(measure_parts(engine).values()) == 0
    assert measure_parts(engine, on_host=True)["frozen_weights"] == 32
    engine.device = "cpu"
    assert measure_parts(engine)["frozen_weights"] == 32
    assert sum(measure_parts(engine, on_host=True).values()) == 0


def test_views_of_one_storage_count_once_and_containers_are_looked_into() -> None:
    base = torch.zeros(100)
    module = nn.Module()
    module.a, module.b = nn.Parameter(base[:50]), nn.Parameter(base[50:])
    engine: Any = SimpleNamespace(
        module=module, optimizer=torch.optim.SGD(module.parameters(), lr=1.0), device="cpu"
    )
    assert measure_parts(engine)["lora_weights"] == 400
    found = list(find_tensors({"x": [base, (base,)], "y": "text", "z": object()}))
    assert len(found) == 2
