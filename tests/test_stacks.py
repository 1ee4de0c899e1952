"""Stacks of a live run on demand: ranks are found by their logs, told apart, asked gently, and left running."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.profiling.stacks import find_hosts
from harness.profiling.stacks_here import find_ranks, take_stacks

RANK_PROGRAM = """
import faulthandler, os, signal, sys, threading
log = open(sys.argv[1], "w")
if sys.argv[2] == "guarded":
    file = os.memfd_create("guard-stacks")
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
def where_it_waits():
    print("ready", flush=True)
    threading.Event().wait()
where_it_waits()
"""


@contextmanager
def rank_of(run: Path, rank: int, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a rank's log open; "guarded" ones have faulthandler set up as the guard does."""
    log = run / "logs" / f"rank-{rank}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", RANK_PROGRAM, str(log), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def without_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.profiling.stacks_here.shutil.which", lambda *_, **__: None)


def test_the_ranks_of_one_run_are_found_and_no_other_process(tmp_path: Path) -> None:
    with (
        rank_of(tmp_path / "run", 0, "bare") as first,
        rank_of(tmp_path / "run", 11, "bare") as other,
        rank_of(tmp_path / "another", 0, "bare"),
    ):
        assert find_ranks(tmp_path / "run") == {0: first.pid, 11: other.pid}
    assert find_ranks(tmp_path / "run") == {}


@pytest.mark.usefixtures("without_py_spy")
def test_without_py_spy_a_guarded_rank_tells_its_own_stacks_again_and_again(tmp_path: Path) -> None:
    with rank_of(tmp_path, 2, "guarded") as process:
        for _ in range(2):
            found = take_stacks(2, process.pid)
            assert found.how == "faulthandler"
            assert found.text.count("in where_it_waits") == 1
            assert "py-spy is not installed" in found.note
        assert process.poll() is None


@pytest.mark.usefixtures("without_py_spy")
def test_a_rank_without_a_handler_is_not_killed_by_the_question(tmp_path: Path) -> None:
    with rank_of(tmp_path, 0, "bare") as process:
        found = take_stacks(0, process.pid)
        assert (found.how, found.text) == (None, "")
        assert "no guardian" in found.note
        time.sleep(0.1)
        assert process.poll() is None


@pytest.mark.usefixtures("without_py_spy")
def test_a_stopped_rank_is_not_set_going_by_the_question(tmp_path: Path) -> None:
    with rank_of(tmp_path, 0, "guarded") as process:
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while take_stacks(0, process.pid).state != "T":
            assert time.monotonic() < deadline
        assert "stopped" in take_stacks(0, process.pid).note
        assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(
    not (shutil.which("py-spy") or (Path(sys.executable).parent / "py-spy").exists()), reason="no py-spy here"
)
def test_py_spy_tells_the_stacks_of_any_rank(tmp_path: Path) -> None:
    with rank_of(tmp_path, 0, "bare") as process:
        found = take_stacks(0, process.pid)
        assert (found.how, found.note) == ("py-spy", "")
        assert "where_it_waits" in found.text
        assert process.poll() is None


def test_the_command_prints_every_rank_and_ends_with_6_where_none_lives(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ExitStack() as stack:
        for rank in (0, 1):
            stack.enter_context(rank_of(run, rank, "guarded"))
        done = CliRunner().invoke(app, ["stacks", str(run)])
        assert done.exit_code == 0, done.output
        assert done.output.count("Event.wait") == 2 or done.output.count("in where_it_waits") == 2
        assert done.output.index("== rank 0 on") < done.output.index("== rank 1 on")
        told = json.loads(CliRunner().invoke(app, ["stacks", str(run), "--json"]).stdout)
        assert [one["rank"] for one in told["stacks"]] == [0, 1]
        assert told["silent_hosts"] == {}
    gone = CliRunner().invoke(app, ["stacks", str(run)])
    assert gone.exit_code == 6
    assert "no rank of this run is alive" in gone.stderr
    assert CliRunner().invoke(app, ["stacks", str(tmp_path / "nothing")]).exit_code == 2


def test_hosts_are_those_of_the_newest_launch(tmp_path: Path) -> None:
    assert find_hosts(tmp_path, None) == ()
    for name, host in (("20260101-000000-aa", "old"), ("20260102-000000-aa", "new")):
        folder = tmp_path / "launch" / name
        folder.mkdir(parents=True)
        (folder / "hostfile").write_text(f"{host} slots=2\n")
    assert find_hosts(tmp_path, None) == ("new",)
    own = tmp_path / "hosts"
    own.write_text("other slots=1\n")
    assert find_hosts(tmp_path, own) == ("other",)
