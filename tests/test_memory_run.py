"""What a run on two ranks leaves about its memory, without and with 64 MiB planted somewhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.memory.malloc import find_malloc_count
from harness.memory.plan_file import read_plan
from harness.memory.profile import MemoryRecord, read_memory
from harness.memory.timeline import MemoryTimeline, read_timelines
from tests.dist_ranks import run_ranks
from tests.memory_ranks import PLANTED_BYTES, train_with_plants
from tests.runs import make_config, read_metrics, start_train, write_zero3_that_splits_everything
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MIB = 2**20
NOISE = 8 * MIB
STEP_PHASES = ("forward", "loss", "backward", "optimizer")
needs_count = pytest.mark.skipif(find_malloc_count() is None, reason="this C library has no mallinfo2")


class Left(NamedTuple):
    """What two runs left: records by rank and phase, and each rank's timeline."""

    records: dict[tuple[int, str], MemoryRecord]
    timelines: dict[int, MemoryTimeline]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    make_dataset(folder / "data", num_songs=40, seq_len=256, num_eval_songs=6)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


def config_of(root: Path, name: str, *overrides: str) -> Path:
    return make_config(root, root / name, root / "data", root / "model", overrides)


def read_left(run_dir: Path) -> Left:
    records = {(one.rank, one.phase): one for one in read_memory(run_dir / "memory.jsonl")}
    return Left(records, {one.rank: one for one in read_timelines(run_dir / "memory_timeline.jsonl")})


@pytest.fixture(scope="module")
def left(root: Path) -> tuple[Left, Left]:
    """A plain run and a planted one, both of three steps of two micro-steps."""
    settings = (
        "batch.micro_batch_size=3",
        "schedule.max_steps=3",
        "deepspeed=zero2",
        "model.lora_kernel=peft",
    )
    paths = [config_of(root, name, *settings) for name in ("plain", "planted")]
    run_ranks(train_with_plants, 2, *paths, timeout_s=240)
    plain, planted = (read_left(root / name) for name in ("plain", "planted"))
    return plain, planted


def test_each_rank_has_every_phase_of_a_run_and_the_parts_of_its_state(left: tuple[Left, Left]) -> None:
    for rank in range(2):
        phases = [phase for of_rank, phase in left[0].records if of_rank == rank]
        assert phases == ["load", "lora", "engine_init", *STEP_PHASES, "eval", "save"]
        backward, optimizer = (left[0].records[rank, phase].parts for phase in ("backward", "optimizer"))
        assert backward["gradients"] > 0 == optimizer["gradients"]
        assert backward["optimizer_states"] == pytest.approx(2 * backward["master_weights"], abs=64)
        assert left[0].records[rank, "load"].parts == {}
    assert left[0].records[0, "forward"].num_runs == left[0].records[0, "loss"].num_runs == 6
    assert left[0].records[0, "eval"].num_runs == 1


def test_the_state_that_was_predicted_is_the_state_that_is_measured(
    left: tuple[Left, Left], root: Path
) -> None:
    plans = read_plan(root / "plain" / "memory_plan.json")
    assert len(plans) == 2
    for rank, plan in enumerate(plans):
        predicted = next(one.parts for one in plan.phases if one.phase == "backward")
        measured = left[0].records[rank, "backward"].parts
        for part in ("frozen_weights", "lora_weights", "master_weights", "optimizer_states", "gradients"):
            assert measured[part] == pytest.approx(predicted[part], abs=512), part


def ends(left: Left, rank: int, measure: str = "allocated") -> dict[str, int]:
    return {phase: left.records[rank, phase].last[measure] for phase in STEP_PHASES}


@needs_count
def test_what_a_phase_takes_on_one_rank_shows_in_that_phase_on_that_rank(left: tuple[Left, Left]) -> None:
    plain, planted = left
    own = ends(planted, 1)
    assert own["loss"] - own["forward"] == pytest.approx(PLANTED_BYTES, abs=NOISE)
    assert own["loss"] - own["backward"] == pytest.approx(PLANTED_BYTES, abs=NOISE)
    for which, rank in ((plain, 0), (plain, 1)):
        figures = ends(which, rank).values()
        assert max(figures) - min(figures) < NOISE
    other = ends(planted, 0)  # it has taken as much in a layer, so in the forward pass
    assert abs(other["loss"] - other["forward"]) < NOISE


def rises(timeline: MemoryTimeline) -> dict[str, int]:
    """The largest rise to a place from the point before."""
    found: dict[str, int] = {}
    for before, after in pairwise(timeline.points):
        found[after.where] = max(found.get(after.where, -NOISE), after.allocated - before.allocated)
    return found


@needs_count
def test_what_a_layer_takes_on_one_rank_shows_at_that_layer_on_that_rank(left: tuple[Left, Left]) -> None:
    plain, planted = left
    own, other = rises(planted.timelines[0]), rises(planted.timelines[1])
    assert own.pop("layer 1 forward") == pytest.approx(PLANTED_BYTES, abs=NOISE)
    assert max(own.values()) < NOISE
    assert other.pop("loss ends") == pytest.approx(PLANTED_BYTES, abs=NOISE)
    assert max(other.values()) < NOISE
    assert max(max(rises(plain.timelines[rank]).values()) for rank in range(2)) < NOISE


PLACES = [
    "forward begins",
    "layer 0 forward",
    "layer 1 forward",
    "forward ends",
    "loss begins",
    "loss ends",
    "backward begins",
    "head backward",
    "layer 1 backward",
    "backward ends",
]


@needs_count
def test_the_timeline_is_of_the_last_step_looked_at_with_all_its_micro_steps(left: tuple[Left, Left]) -> None:
    timeline = left[0].timelines[1]
    assert timeline.step == 3
    assert [point.where for point in timeline.points] == [
        *PLACES,
        *PLACES,
        "optimizer begins",
        "optimizer ends",
    ]
    assert [point.time_s for point in timeline.points] == sorted(point.time_s for point in timeline.points)


@needs_count
def test_recomputation_and_zero_3_have_the_same_points(root: Path) -> None:
    path = config_of(
        root,
        "recompute",
        f"deepspeed={write_zero3_that_splits_everything(root)}",
        "model.recompute_layers=all",
        "schedule.max_steps=1",
        "batch.micro_batch_size=12",
    )
    process = start_train(path, "--memory-snapshot")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.count("no snapshot of CPU memory") == 1
    (timeline,) = read_left(root / "recompute").timelines.values()
    places = [point.where for point in timeline.points if not point.where.startswith("layer 0 backward")]
    assert places == [*PLACES, "optimizer begins", "optimizer ends"]


def test_time_is_told_by_forward_and_loss_apart(left: tuple[Left, Left], root: Path) -> None:
    assert left
    lines = [line for line in read_metrics(root / "plain") if line["kind"] == "train"]
    assert {*lines[-1]["parts_s"]} == {"data", *STEP_PHASES, "wait", "communication", "other"}
    assert all(line["parts_s"]["forward"] > 0 < line["parts_s"]["loss"] for line in lines)
