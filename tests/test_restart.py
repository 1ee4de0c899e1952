from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import restart as restart_module
from harness.cluster.hostfile import Hostfile, parse_hostfile
from harness.cluster.launch import RestartPolicy, launch
from harness.cluster.outcome import read_outcome
from harness.cluster.restart import Attempts, can_help, choose_hosts, steps_lost
from harness.cluster.run_lock import LOCK_FILE, hold_run
from harness.cluster.start import Ending
from preprocess.errors import ConfigError, HangError, HostLostError, PreflightError

TESTS = Path(__file__).parent


def write_inputs(tmp_path: Path, deaths: Sequence[Sequence[int]], slots: int = 1) -> tuple[Path, Path, Path]:
    config, hostfile = tmp_path / "config.json", tmp_path / "hosts"
    config.write_text(json.dumps({"num_steps": 6, "save_every": 2, "deaths": deaths}))
    hostfile.write_text(f"localhost slots={slots}\n")
    (tmp_path / "run").mkdir(exist_ok=True)
    return config, hostfile, tmp_path / "run" / "launch"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Launch `restart_program` on this machine; `deaths` says which rank dies in which step, attempt by attempt."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))

    def start(deaths: Sequence[Sequence[int]], max_restarts: int) -> int:
        policy = RestartPolicy(max_restarts, first_wait_s=0.01)
        return launch(*write_inputs(tmp_path, deaths), module="restart_program", restarts=policy)

    return start


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_rank_is_started_again_from_the_newest_checkpoint(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([[0, 5]], max_restarts=1) == 0
    said = capfd.readouterr().err
    assert "was killed by SIGKILL" in said or "a launcher or a rank was killed" in said
    assert "restart 1 of 1 in 0.01 s from checkpoint 4; 1 steps since then are taken again" in said
    first, second = read_lines(tmp_path / "run" / "launch" / "attempts.jsonl")
    assert (first["exit_code"], first["checkpoint"], first["step"], first["steps_lost"]) == (6, 4, 5, 1)
    assert (second["exit_code"], second["checkpoint"]) == (0, 6)
    assert first["launch_id"] != second["launch_id"]
    steps = [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 5, 6]


@pytest.mark.slow
def test_without_a_checkpoint_a_run_of_ours_begins_again(run: Callable[..., int], tmp_path: Path) -> None:
    assert run([[0, 1]], max_restarts=1) == 0
    steps = [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "run" / "launch").glob("*/metrics-before.jsonl"))) == 1


@pytest.mark.slow
def test_a_run_that_was_there_before_is_never_begun_again(run: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    assert run([], max_restarts=3) == 2
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.slow
def test_a_rank_that_dies_in_the_same_step_each_time_is_given_up(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HostLostError):
        run([[0, 3]] * 9, max_restarts=9)
    assert "2 in a row brought no new checkpoint" in capfd.readouterr().err
    assert len(read_lines(tmp_path / "run" / "launch" / "attempts.jsonl")) == 3


def test_only_what_a_restart_can_mend_is_started_again() -> None:
    assert all(can_help(code) for code in (1, 6, 7, -9, 134, 247))
    assert not any(can_help(code) for code in (0, 2, 3, 4, 5, 8, 9, 10, 129, 130, 143))


def test_the_wait_before_a_restart_doubles_up_to_a_minute() -> None:
    assert [RestartPolicy(9).wait_s(restart) for restart in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def three_hosts_file(tmp_path: Path) -> Hostfile:
    (tmp_path / "three").write_text("node1 slots=2\nnode2 slots=1\nnode3 slots=2\n")
    return parse_hostfile(tmp_path / "three")


@pytest.mark.parametrize(
    ("failing", "policy", "expected"),
    [
        ([], RestartPolicy(1), ("node1", "node2", "node3")),
        (["node2"], RestartPolicy(1), None),
        (["node2"], RestartPolicy(1, elastic=True), ("node1", "node3")),
        (["node1"], RestartPolicy(1, elastic=True, min_hosts=2), ("node2", "node3")),
        (["node1", "node2"], RestartPolicy(1, elastic=True, min_hosts=2), None),
        (["node1", "node2", "node3"], RestartPolicy(1, elastic=True), None),
    ],
)
def test_a_restart_goes_on_with_the_hosts_that_answer_where_it_may(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: list[str],
    policy: RestartPolicy,
    expected: tuple[str, ...] | None,
) -> None:
    monkeypatch.setattr(restart_module, "find_failing_hosts", lambda _: dict.fromkeys(failing, "no route"))
    hosts, failures = choose_hosts(three_hosts_file(tmp_path), policy)
    assert (hosts and hosts.names) == expected
    assert list(failures) == failing


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    hostfile = three_hosts_file(tmp_path)
    for policy in (RestartPolicy(0, elastic=True), RestartPolicy(1, min_hosts=2), RestartPolicy(1, True, 4)):
        with pytest.raises(ConfigError):
            policy.check(hostfile)
    RestartPolicy(1, elastic=True, min_hosts=3).check(hostfile)


def test_attempts_count_those_in_a_row_that_came_no_further(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.jsonl")

    def end(checkpoint: int | None, step: int) -> int:
        ending = Ending("id", True, 6, HostLostError("node2: gone"), checkpoint, step, False)
        attempts.record(ending, ["node1"], 1)
        return attempts.standstills

    assert [end(None, 1), end(2, 3), end(2, 3), end(4, 4), end(4, 9), end(4, 9)] == [0, 0, 1, 0, 1, 2]
    attempts.record_absence({"node2": "no route"})
    lines = read_lines(attempts.path)
    assert [line.get("steps_lost") for line in lines] == [1, 1, 1, 0, 5, 5, None]
    assert lines[0]["why"] == "node2: gone"
    assert steps_lost(Ending("id", True, 6, None, None, None, False)) == 0


@pytest.mark.parametrize(
    ("verdict", "codes", "code", "said"),
    [
        (
            {"exit_code": 6, "rank": 1, "host": "node2", "message": "its process is gone"},
            {0: 143},
            6,
            "node2",
        ),
        (
            {"exit_code": 7, "rank": 2, "host": "node3", "message": "rank 2 on node3 hangs"},
            {0: 7, 1: 7},
            7,
            "node3",
        ),
    ],
)
def test_the_guardians_verdict_gives_the_code_and_names_the_host(
    tmp_path: Path, verdict: Mapping[str, Any], codes: Mapping[int, int], code: int, said: str
) -> None:
    (tmp_path / "verdict.json").write_text(json.dumps({"kind": "lost", "step": 3, **verdict}))
    for rank, rank_code in codes.items():
        (tmp_path / f"rank-{rank}.exit").write_text(f"{rank_code}\n")
    with pytest.raises(HangError if code == 7 else HostLostError, match=said) as caught:
        read_outcome(tmp_path, 1, {"node1": 143}).exit_code()
    assert caught.value.exit_code == code
    assert str(caught.value).endswith(verdict["message"])
    (tmp_path / "rank-1.exit").write_text("4\n")  # a reason of its own comes before what follows from it
    assert read_outcome(tmp_path, 1, {"node1": 143}).exit_code() == 4


def test_a_verdict_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"exit_code": "x", "message": ""}'):
        (tmp_path / "verdict.json").write_text(text)
        assert read_outcome(tmp_path, 4, {}).verdict is None


def try_to_hold(folder: Path) -> None:
    try:
        with hold_run(folder):
            os._exit(0)
    except PreflightError as error:
        os._exit(error.exit_code if f"process {os.getppid()} on" in str(error) else 1)


def test_a_run_folder_is_held_by_one_launch_and_free_after_a_kill(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")

    def code_of_another() -> int | None:
        process = fork.Process(target=try_to_hold, args=(tmp_path,))
        process.start()
        process.join()
        return process.exitcode

    with hold_run(tmp_path):
        assert code_of_another() == PreflightError.exit_code
    assert code_of_another() == 0
    assert (tmp_path / LOCK_FILE).read_text()  # that one ended without clearing up, and holds nothing
    assert code_of_another() == 0
