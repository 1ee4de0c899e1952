"""The loader that reads ahead: order, resuming, errors, and that no thread stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast, overload

import pytest
import torch

from harness.batch_plan import BatchPlan, StepTarget
from harness.data import MicroBatch, collate
from harness.loader import StepLoader
from harness.row_sizes import read_row_sizes
from preprocess.errors import DataError
from preprocess.forest import PackedRow
from preprocess.shards import ShardedRows, open_split
from tests.toys import make_dataset

WAIT_S = 10.0


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardedRows, BatchPlan]:
    folder = tmp_path_factory.mktemp("loader") / "data"
    manifest = make_dataset(folder, num_songs=16)
    sizes = read_row_sizes(folder, "train", manifest)
    return open_split(folder, "train", manifest), BatchPlan(sizes, StepTarget("examples", 10), 1, 2, seed=0)


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Spy(Sequence[PackedRow]):
    """Rows that tell which of them were read, in which thread, and that fail at one of them."""

    def __init__(
        self, rows: Sequence[PackedRow], fails_at: int | None = None, error: Exception | None = None
    ) -> None:
        self.rows = rows
        self.fails_at = fails_at
        self.error = error
        self.read: list[int] = []
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> PackedRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[PackedRow]: ...

    def __getitem__(self, index: int | slice) -> PackedRow | Sequence[PackedRow]:
        assert isinstance(index, int)
        if self.error is not None and index == self.fails_at:
            raise self.error
        self.read.append(index)
        self.threads.add(threading.current_thread().name)
        return self.rows[index]


def ids_of(batches: Sequence[MicroBatch]) -> list[list[int]]:
    return [batch.input_ids.flatten().tolist() for batch in batches]


def expected_ids(rows: Sequence[PackedRow], plan: BatchPlan, step: int, rank: int) -> list[list[int]]:
    return ids_of([collate([rows[int(i)] for i in part]) for part in plan.rows_of_rank(step, rank)])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "the thread did not get there"
        time.sleep(0.001)


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("rank", [0, 1])
def test_steps_come_in_the_order_of_the_plan_with_the_ranks_rows(
    rows: tuple[ShardedRows, BatchPlan], rank: int, depth: int
) -> None:
    split, plan = rows
    num_steps = plan.num_steps(2.5)
    with StepLoader(split, plan, rank, 0, num_steps, flat=True, pin=False, depth=depth) as loader:
        seen = list(loader)
    assert [loaded.step for loaded in seen] == list(range(num_steps))
    for loaded in seen:
        assert loaded.rows.tolist() == plan.rows_of_step(loaded.step).tolist()
        assert ids_of(loaded.batches) == expected_ids(split, plan, loaded.step, rank)


def test_a_resumed_loader_goes_on_as_the_first_would_have_from_every_step(
    rows: tuple[ShardedRows, BatchPlan],
) -> None:
    split, plan = rows
    num_steps = plan.num_steps(1.5)
    whole = [expected_ids(split, plan, step, 0) for step in range(num_steps)]
    for start in range(num_steps + 1):
        with StepLoader(split, plan, 0, start, num_steps, flat=True, pin=False) as loader:
            assert [ids_of(loaded.batches) for loaded in loader] == whole[start:]


def test_it_reads_two_steps_ahead_in_a_thread_of_its_own_and_no_further(
    rows: tuple[ShardedRows, BatchPlan],
) -> None:
    split, plan = rows
    spy = Spy(split)
    num_rows = [sum(map(len, plan.rows_of_rank(step, 0))) for step in range(5)]
    with StepLoader(spy, plan, 0, 0, 5, flat=True, pin=False) as loader:
        next(loader)
        wait_until(lambda: len(spy.read) == sum(num_rows[:4]))  # two are ready, and one waits for room
        time.sleep(0.05)
        assert len(spy.read) == sum(num_rows[:4])
    assert spy.threads == {"step-loader"}


def test_without_depth_each_step_is_laid_out_by_the_caller_when_it_is_asked_for(
    rows: tuple[ShardedRows, BatchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise AssertionError(f"{thread.name} was started")

    split, plan = rows
    spy = Spy(split)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with StepLoader(spy, plan, 0, 0, 5, flat=True, pin=False, depth=0) as loader:
        assert spy.read == []
        next(loader)
        assert len(spy.read) == sum(map(len, plan.rows_of_rank(0, 0)))
        loader.restart(plan, 3)
        assert [loaded.step for loaded in loader] == [3, 4]
    with pytest.raises(StopIteration):
        next(loader)


@pytest.mark.parametrize("error", [DataError("row 3 is damaged"), OSError(5, "I/O"), MemoryError("no room")])
def test_an_error_in_the_thread_is_raised_in_the_caller_as_it_is_at_its_step(
    rows: tuple[ShardedRows, BatchPlan], error: Exception
) -> None:
    split, plan = rows
    bad_row = int(plan.rows_of_rank(2, 0)[0][0])
    assert all(bad_row not in plan.rows_of_step(step) for step in (0, 1))
    seen: list[int] = []
    with (
        StepLoader(Spy(split, bad_row, error), plan, 0, 0, 5, flat=True, pin=False) as loader,
        pytest.raises(type(error)) as caught,
    ):
        seen.extend(loaded.step for loaded in loader)
    assert caught.value is error
    assert seen == [0, 1]
    assert list(loader) == []


@pytest.mark.parametrize("error", [RuntimeError("in the step"), KeyboardInterrupt()])
def test_an_error_in_the_step_ends_the_thread(
    rows: tuple[ShardedRows, BatchPlan], error: BaseException
) -> None:
    split, plan = rows

    def train() -> None:
        with StepLoader(split, plan, 0, 0, 5, flat=True, pin=False) as loader:
            next(loader)
            raise error

    with pytest.raises(type(error)):
        train()


@pytest.mark.parametrize("depth", [1, 2])
def test_closing_frees_a_thread_that_waits_for_room_and_closing_twice_does_no_harm(
    rows: tuple[ShardedRows, BatchPlan], depth: int
) -> None:
    split, plan = rows
    spy = Spy(split)
    loader = StepLoader(spy, plan, 0, 0, 100, flat=True, pin=False, depth=depth)
    wait_until(lambda: len(spy.read) >= depth + 1)
    loader.close()
    loader.close()
    assert list(loader) == []


def test_a_loader_without_steps_ends_at_once(rows: tuple[ShardedRows, BatchPlan]) -> None:
    split, plan = rows
    with StepLoader(split, plan, 0, 3, 3, flat=True, pin=False) as loader:
        assert list(loader) == []


def test_batches_are_padded_or_pinned_where_that_is_asked_for(
    rows: tuple[ShardedRows, BatchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, plan = rows
    pairs = BatchPlan(plan.sizes, StepTarget("rows", 4), 2, 1, seed=0)
    with StepLoader(split, pairs, 0, 0, 1, flat=False, pin=False) as loader:
        assert next(loader).batches[0].input_ids.shape[0] == 2
    chosen: list[int] = []
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setattr(MicroBatch, "pin", lambda batch: f"pinned {len(batch.targets)}")
    with StepLoader(split, pairs, 0, 0, 1, flat=True, pin=True) as loader:
        pinned = cast("list[str]", next(loader).batches)
    expected = [int(plan.sizes.supervised[part].sum()) for part in pairs.rows_of_rank(0, 0)]
    assert pinned == [f"pinned {supervised}" for supervised in expected]
    assert chosen == [3]
