"""Profiles of real toy runs: what they hold, that they add up, and that the run is the same with and without them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.profiling.summary import Profile, RankProfile, read_summary
from tests.dist_ranks import RankFailedError, run_ranks
from tests.profile_ranks import SLEEP_S, train_all, train_and_die_while_writing, train_on_own_disk
from tests.runs import make_config, read_adapter, read_losses, read_metrics, train_on_ranks
from tests.toys import make_dataset, make_model_dir, make_tokenizer

STEPS = (3, 4)
PARTS = {"data", "forward", "loss", "backward", "optimizer"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    make_dataset(folder / "data", num_songs=16, seq_len=256, num_eval_songs=0)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


def config_of(root: Path, name: str, *overrides: str) -> Path:
    small = ("batch.global_batch_size=3", "schedule.max_steps=5")
    return make_config(root, root / name, root / "data", root / "model", (*small, *overrides))


@pytest.fixture(scope="module")
def runs(root: Path) -> Path:
    """On one rank: plain, profiled, profiled beyond the end, profiled with a sleep, profiled on a disk that is full."""
    asked = "profile.steps=3:5"
    paths = [
        config_of(root, "plain"),
        config_of(root, "profiled", asked),
        config_of(root, "beyond", "profile.steps=5:9", "profile.shapes=false", "profile.flops=false"),
        config_of(root, "agreeing", "profile.steps=1:2", "model.lora_kernel=peft", "model.attention=sdpa"),
    ]
    slow, full = config_of(root, "slow", asked), config_of(root, "full", asked)
    run_ranks(train_all, 1, paths, slow, full, timeout_s=600)
    return root


def profile_of(run: Path) -> Profile:
    return read_summary(run / "profile" / "summary.json")


def events_of(run: Path, rank: int = 0) -> list[dict[str, Any]]:
    with gzip.open(run / "profile" / f"rank{rank}.trace.json.gz", "rt") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def check_sums(rank: RankProfile) -> None:
    assert rank.step_time_s == pytest.approx(sum(step.time_s for step in rank.steps))
    whole = rank.operator_s + rank.communication_exposed_s + rank.gap_s
    assert whole == pytest.approx(rank.step_time_s)
    assert sum(part.time_s for part in rank.parts) == pytest.approx(rank.step_time_s)
    assert sum(one.self_s for one in rank.operators) == pytest.approx(rank.operator_s)
    exposed = sum(one.exposed_s for one in rank.communication)
    assert exposed == pytest.approx(rank.communication_exposed_s)


def test_the_trace_holds_the_steps_asked_for_their_parts_layers_and_operators(runs: Path) -> None:
    names = [event["name"] for event in events_of(runs / "profiled")]
    assert [name for name in names if name.startswith("ProfilerStep#")] == [
        f"ProfilerStep#{step}" for step in STEPS
    ]
    assert {name.removeprefix("part ") for name in names if name.startswith("part ")} >= PARTS
    assert {"layer 0", "layer 1", "aten::mm"} <= set(names)


def test_losses_and_weights_are_the_same_to_the_bit_with_and_without_a_profile(runs: Path) -> None:
    assert len(read_losses(runs / "plain")) == 5
    plain = read_adapter(runs / "plain")
    for name in ("profiled", "beyond", "slow", "full"):
        assert read_losses(runs / name) == read_losses(runs / "plain"), name
        assert all(bool((weight == plain[key]).all()) for key, weight in read_adapter(runs / name).items())


def test_what_the_table_tells_adds_up_to_the_steps_of_the_trace(runs: Path) -> None:
    profile = profile_of(runs / "profiled")
    assert (profile.asked, profile.steps, profile.world_size) == ("3:5", STEPS, 1)
    (rank,) = profile.ranks
    spans = [e["dur"] / 1e6 for e in events_of(runs / "profiled") if e["name"].startswith("ProfilerStep#")]
    assert rank.step_time_s == pytest.approx(sum(spans), rel=0.02)
    check_sums(rank)
    assert {part.part for part in rank.parts} >= PARTS
    text = (runs / "profiled" / "profile" / "top.txt").read_text()
    for name in ("aten::", "all_reduce", "forward", "gaps", "DeepSpeed"):
        assert name in text


def test_a_sleep_in_the_data_shows_as_a_gap_in_that_part_and_only_there(runs: Path) -> None:
    def gap_of(name: str, part: str) -> float:
        (rank,) = profile_of(runs / name).ranks
        return next(one.gap_s for one in rank.parts if one.part == part)

    assert gap_of("slow", "data") >= SLEEP_S
    longest = profile_of(runs / "slow").ranks[0].gaps[0]
    assert (longest.part, longest.step) == ("data", 3)
    assert longest.time_s >= SLEEP_S
    assert gap_of("profiled", "data") < SLEEP_S


def test_steps_beyond_the_end_are_left_out(runs: Path) -> None:
    assert profile_of(runs / "beyond").steps == (5,)


def test_a_profile_that_cannot_be_written_is_told_of_and_the_run_goes_on(runs: Path) -> None:
    assert len(read_losses(runs / "full")) == 5
    profile = profile_of(runs / "full")
    assert profile.ranks == ()
    assert "No space left" in profile.notes[0]


def test_deepspeeds_count_misses_what_it_cannot_see_and_agrees_where_it_sees_all(runs: Path) -> None:
    blind, seeing = profile_of(runs / "profiled").flops, profile_of(runs / "agreeing").flops
    assert blind is not None
    assert seeing is not None
    assert blind.ratio < 0.5
    assert "autograd functions" in blind.reason
    assert seeing.ratio == pytest.approx(1, abs=0.02)
    assert seeing.reason == "they agree"


def test_a_run_without_a_profile_has_no_folder_for_it(runs: Path) -> None:
    assert not (runs / "plain" / "profile").exists()


def test_a_killed_profile_leaves_no_half_file_where_a_reader_would_look(root: Path) -> None:
    with pytest.raises(RankFailedError, match="died"):
        run_ranks(train_and_die_while_writing, 1, config_of(root, "killed", "profile.steps=1:2"))
    left = {path.name for path in (root / "killed" / "profile").iterdir()}
    assert left
    assert all(name.endswith(".tmp") for name in left)


# Three ranks compute by turns on one core.


@pytest.fixture(scope="module")
def three(root: Path) -> Path:
    """On three ranks, each with a disk of its own: profiled; and on a common disk without a profile."""
    config = config_of(root, "apart", "profile.steps=3:5", "data.verify_hashes=false")
    run_ranks(train_on_own_disk, 3, config, root, timeout_s=600)
    train_on_ranks(3, [config_of(root, "three")], timeout_s=600)
    return root


@pytest.mark.slow
def test_three_ranks_are_profiled_alike_and_their_traces_come_to_rank_0(three: Path) -> None:
    run = three / "host0"
    profile = profile_of(run)
    assert [rank.rank for rank in profile.ranks] == [0, 1, 2]
    for rank in profile.ranks:
        check_sums(rank)
        assert [step.step for step in rank.steps] == list(STEPS)
        assert rank.trace == f"rank{rank.rank}.trace.json.gz"
        assert len([e for e in events_of(run, rank.rank) if e["name"].startswith("ProfilerStep#")]) == 2
        reduced = next(one for one in rank.communication if one.collective == "all_reduce")
        assert reduced.calls >= 2 * len(STEPS)
        assert reduced.bytes
        assert reduced.exposed_s > 0
    assert [path.name for path in (three / "host1" / "profile").iterdir()] == ["rank1.trace.json.gz"]


@pytest.mark.slow
def test_three_ranks_lose_nothing_by_a_profile(three: Path) -> None:
    assert read_losses(three / "host0") == read_losses(three / "three")
    assert any(line["kind"] == "summary" for line in read_metrics(three / "host0"))
