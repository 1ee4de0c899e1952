"""Work shared out to processes: order, errors, and what happens when a process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from preprocess.build.workers import Workers
from preprocess.errors import DataError, OutOfMemoryError


def make_state() -> list[int]:
    return [1000]


def make_other_state() -> list[int]:
    return [7]


def refuse_state() -> list[int]:
    raise DataError("no state today")


def add(state: list[int], item: int) -> int:
    if item % 3 == 0:
        time.sleep(0.01)  # the others overtake it
    return state[0] + item


def refuse_seven(state: list[int], item: int) -> int:
    if item == 7:
        raise DataError("seven is refused")
    return item


def die_at_five(state: list[int], item: int) -> int:
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("num_workers", [1, 3])
def test_results_come_in_the_order_of_the_work(num_workers: int) -> None:
    with Workers(num_workers) as workers:
        assert list(workers.run(add, range(40), make_state)) == [1000 + i for i in range(40)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_each_stage_has_a_state_of_its_own(num_workers: int) -> None:
    with Workers(num_workers) as workers:
        first = list(workers.run(add, range(6), make_state))
        second = list(workers.run(add, range(6), make_other_state))
    assert (first, second) == ([1000 + i for i in range(6)], [7 + i for i in range(6)])


def test_nothing_to_do_is_done_at_once() -> None:
    with Workers(2) as workers:
        assert list(workers.run(add, [], refuse_state)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_the_work_reaches_the_caller(num_workers: int) -> None:
    results: list[int] = []
    with Workers(num_workers) as workers, pytest.raises(DataError, match="seven"):
        results.extend(workers.run(refuse_seven, range(20), make_state))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_the_state_reaches_the_caller(num_workers: int) -> None:
    with Workers(num_workers) as workers, pytest.raises(DataError, match="no state today"):
        list(workers.run(add, range(5), refuse_state))


def test_a_worker_that_was_killed_is_an_error_with_advice() -> None:
    with Workers(2) as workers, pytest.raises(OutOfMemoryError, match="fewer --workers"):
        list(workers.run(die_at_five, range(20), make_state))


def test_work_is_taken_only_as_workers_become_free() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with Workers(2) as workers:
        results = workers.run(add, items(), make_state)
        next(results)
        assert len(taken) < 20


PARENT = """
import sys, time
from tests.test_workers import make_state, sleep_long
from preprocess.build.workers import Workers
if __name__ == "__main__":
    list(Workers(2).run(sleep_long, range(100), make_state))
"""


def sleep_long(state: list[int], item: int) -> int:
    time.sleep(30)
    return item


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[1]
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        children = _wait_for_children(parent.pid, 2)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def _wait_for_children(pid: int, num: int) -> list[psutil.Process]:
    for _ in range(400):
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        if len(workers) >= num:
            time.sleep(1)
            return children
        time.sleep(0.05)
    raise AssertionError("the workers never came")
