"""The parts of answering in batches: rows of keys and values, partial attention, the schedule, the draws."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from harness.generation.attention import attend_part, attend_part_plainly
from harness.generation.batch import Prompt, Sampling
from harness.generation.key_values import OwnKeyValues, Shape
from harness.generation.sampling import choose_tokens, open_draws
from harness.generation.schedule import PREFILL_SLOTS, PREFIXES_BESIDE, fill_rows, plan_trees
from preprocess.errors import CheckpointError


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_both_ways_through_a_part_of_the_keys_agree(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, 2, length, 8, generator=generator, dtype=torch.float64).to(dtype)
        for length in (2, 9, 9)
    )
    mask = torch.zeros(3, 1, 1, 9, dtype=dtype)
    mask[1, ..., 4:] = float("-inf")
    for hidden in (None, mask):
        found, plain = (
            attend(query, key, value, hidden, 0.3) for attend in (attend_part, attend_part_plainly)
        )
        torch.testing.assert_close(
            found[0], plain[0], rtol=1e-2 if dtype == torch.bfloat16 else 1e-12, atol=1e-2
        )
        torch.testing.assert_close(found[1].double(), plain[1].double(), rtol=1e-2, atol=1e-2)


def draw_parts(size: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A query with keys and values of width 128 whose entries are about so large."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 2, length, 128, generator=generator, dtype=torch.float64) for length in (4, 300, 300)
    )
    return (query * size).to(dtype), (key * size).to(dtype), value.to(dtype)


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"),
    [(torch.bfloat16, 4.0, 0.01), (torch.float16, 4.0, 0.002), (torch.float16, 50.0, 0.002)],
    ids=["bfloat16", "float16", "float16 with products above 65,504"],
)
def test_scores_of_half_precision_are_not_rounded_before_the_softmax(
    dtype: torch.dtype, size: float, tolerance: float
) -> None:
    query, key, value = draw_parts(size, dtype)
    out, lse = attend_part_plainly(query, key, value, None, 128**-0.5)
    scores = (query.double() @ key.double().transpose(-1, -2)) * 128**-0.5
    exact = scores.softmax(-1) @ value.double()
    assert scores.abs().max() > 40
    assert float((out.double() - exact).norm() / exact.norm()) < tolerance
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-4)


SHAPE = Shape(num_layers=2, num_heads=1, head_dim=3, dtype=torch.float32, device=torch.device("cpu"))


def test_rows_keep_what_they_hold_when_there_is_more_room_or_less() -> None:
    own = OwnKeyValues(SHAPE)
    own.reserve(2, 4, 0, most=100)
    values = torch.arange(1.0, 7.0).view(1, 2, 3)
    for layer in range(2):
        own.write_row(layer, 1, values + layer, values + 10)
    own.append(1, torch.tensor([0 * 4 + 0, 1 * 4 + 2]), -values, -values)
    own.reserve(5, 9, 2, most=100)
    assert (own.num_rows, own.row_slots) == (5, 9)
    key, value = own.read(1, 2, 3)
    assert key.shape == (2, 1, 3, 3)
    assert torch.equal(key[1, 0], torch.cat([values[0] + 1, -values[0, 1:]]))
    assert torch.equal(value[1, 0], torch.cat([values[0] + 10, -values[0, 1:]]))
    assert torch.equal(key[0, 0, 0], -values[0, 0])
    own.reserve(4, 8, 2, most=45)  # not worth a copy
    assert (own.num_rows, own.row_slots) == (5, 9)
    own.reserve(4, 8, 2, most=44)
    assert (own.num_rows, own.row_slots) == (4, 8)
    own.reserve(2, 4, 2, most=100)
    assert (own.num_rows, own.row_slots) == (2, 4)
    assert torch.equal(own.read(1, 2, 3)[0], key)
    own.move(1, 0, 3)
    assert torch.equal(own.read(1, 2, 3)[0][0], key[1])


def prompt(prefix: int, question: int, new_tokens: int) -> Prompt:
    return Prompt((prefix,) * prefix, (1,) * question, new_tokens)


def test_prompts_of_one_prefix_are_one_tree_as_far_as_they_fit() -> None:
    prompts = [prompt(10, 2, 4), prompt(20, 3, 4), prompt(10, 3, 6), prompt(0, 2, 4), prompt(10, 2, 4)]
    trees = [tree.prompts for tree in plan_trees(prompts, 1000)]
    assert trees == [(0, 2, 4), (1,), (3,)]
    # 10 + 2 * 8 slots fit into 26, and 10 + 3 * 8 do not.
    assert [tree.prompts for tree in plan_trees(prompts, 26)] == [(0, 2), (4,), (1,), (3,)]
    assert [tree.prompts for tree in plan_trees(prompts, 1)] == [(0,), (2,), (4,), (1,), (3,)]
    (first, *_) = plan_trees(prompts, 1000)
    assert (first.row_slots, first.num_tokens) == (8, 10 + 2 + 3 + 2)
    without = [prompt(0, 2, 4)] * 3
    assert [tree.prompts for tree in plan_trees(without, 1000)] == [(0,), (1,), (2,)]


def test_many_prompts_of_one_prefix_are_several_passes() -> None:
    prompts = [prompt(100, 90, 4)] * 60
    trees = list(plan_trees(prompts, 200_000))
    most = PREFILL_SLOTS + PREFIXES_BESIDE * 100
    assert most - 90 < trees[0].num_tokens <= most
    assert [len(row) for row in fill_rows(trees)] == [1] * 3
    assert sum(len(tree.prompts) for tree in trees) == 60


def test_a_pass_over_prompts_is_of_whole_trees_up_to_a_number_of_tokens() -> None:
    trees = list(plan_trees([prompt(n, 10, 4) for n in (990, 991, 100, 3000, 5)], 10_000))
    rows = [[len(tree.prefix) for tree in row] for row in fill_rows(trees)]
    assert sum(tree.num_tokens for tree in trees[:2]) <= PREFILL_SLOTS
    assert rows == [[990, 991], [100], [3000], [5]]
    assert list(fill_rows([])) == []


LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0, 1.5]])


def frequencies(sampling: Sampling, num_draws: int = 4000) -> torch.Tensor:
    """How often each token was drawn, each time for another prompt."""
    draws = [open_draws(sampling.seed, (number,)) for number in range(num_draws)]
    tokens, logprobs = choose_tokens(LOGITS.expand(num_draws, -1), draws, sampling)
    reference = LOGITS[0].log_softmax(-1)[tokens]
    assert logprobs == pytest.approx(reference.tolist(), abs=1e-6)  # the model's own, whatever the sampling
    return torch.bincount(torch.tensor(tokens), minlength=5) / num_draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    found = frequencies(Sampling(temperature, seed=3))
    expected = (LOGITS[0] / temperature).softmax(-1)
    assert float((found - expected).abs().max()) < 0.03  # four standard deviations of the likeliest


def test_only_the_nucleus_is_drawn_from() -> None:
    probabilities = LOGITS[0].softmax(-1)  # token 0 has 0.46, 4 0.28, 2 0.17
    found = frequencies(Sampling(top_p=0.7))
    kept = torch.tensor([0, 4])
    expected = torch.zeros(5).index_copy(0, kept, probabilities[kept] / probabilities[kept].sum())
    assert float((found - expected).abs().max()) < 0.03
    assert found[[1, 2, 3]].tolist() == [0, 0, 0]
    assert frequencies(Sampling(top_p=1e-9), 50).tolist() == [1, 0, 0, 0, 0]
    for temperature in (1e-6, 1e-310):
        assert frequencies(Sampling(temperature=temperature), 50).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("sampling", [None, Sampling()])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(sampling: Sampling | None, wrong: float) -> None:
    logits = torch.stack([LOGITS[0], LOGITS[0].clone().index_fill(0, torch.tensor([3]), wrong)])
    draws = [open_draws(0, (number,)) for number in range(2)]
    with pytest.raises(CheckpointError, match="logits are not finite"):
        choose_tokens(logits, draws, sampling)
    masked = LOGITS.clone().index_fill(1, torch.tensor([1, 2, 3, 4]), float("-inf"))
    assert choose_tokens(masked, draws[:1], sampling) == ([0], [0.0])  # one that may be is enough


class AlmostOne:
    """Draws the largest number below 1."""

    def random(self) -> float:
        return 1 - 2**-53


def test_the_last_draw_of_all_is_a_token_of_the_nucleus() -> None:
    source = cast("np.random.Generator", AlmostOne())
    for top_p, last in ((0.7, 4), (1.0, 3)):
        assert choose_tokens(LOGITS, [source], Sampling(top_p=top_p))[0] == [last]


def test_draws_depend_on_seed_and_prompt_alone() -> None:
    first = open_draws(1, (5, 6)).random(4).tolist()
    assert open_draws(1, (5, 6)).random(4).tolist() == first
    for other in (open_draws(2, (5, 6)), open_draws(1, (5, 7)), open_draws(1, (5,))):
        assert other.random(4).tolist() != first


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 1.0, 0),
        (float("inf"), 1.0, 0),
        (float("nan"), 1.0, 0),
        (1.0, 0.0, 0),
        (1.0, 1.1, 0),
        (1.0, 1.0, -1),
        (1.0, 1.0, 2**63),
    ],
)
def test_a_sampling_out_of_range_is_refused(values: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="expected a temperature above 0"):
        Sampling(*values)
