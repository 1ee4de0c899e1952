"""kill -9 for each process of a launch on three hosts: everything ends everywhere, and the code is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.keeper import find_processes
from tests.cluster import Cluster, missing_means, run_on, start_on, three_hosts
from tests.test_cluster import (
    ENVIRONMENT,
    REPOSITORY,
    launch_command,
    read_reports,
    running,
    wait_for_reports,
)

MISSING = missing_means()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")]

SLEEP = {"0": "sleep", "1": "sleep", "2": "sleep"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def processes() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        yield int(path.parent.name), command


def find_victim(name: str, launcher: int, marker: str, host: str, reports: list[dict[str, Any]]) -> int:
    """The process to kill: of the launch whose folder or world is `marker`, on `host` where there are several."""
    if name == "launch":
        return launcher
    if name == "rank":
        return int(reports[1]["pid"])
    if name == "node launcher":
        return int(Path(f"/proc/{reports[1]['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    tests: dict[str, Callable[[list[str]], bool]] = {
        "runner": lambda words: "deepspeed.launcher.runner" in words,
        "pdsh": lambda words: Path(words[0]).name == "pdsh" and any(marker in word for word in words),
        "ssh": lambda words: (
            words[0] == "ssh" and host in words and "deepspeed.launcher.launch" in str(words)
        ),
        "keeper": lambda words: any(word.endswith("keeper.py") for word in words) and words[0] != "ssh",
        "keeper's ssh": lambda words: words[0] == "ssh" and host in words and "keeper.py" in str(words),
    }
    found = [pid for pid, words in processes() if words and tests[name](words) and marker in " ".join(words)]
    return found[-1]


def wait_until_gone(launch_id: str, reports: list[dict[str, Any]]) -> float:
    """Seconds until no rank is left and no process of the launch on this host's namespace; a minute at most."""
    begin_s = time.monotonic()
    while time.monotonic() < begin_s + 60:
        if not running(reports) and not find_everywhere(launch_id):
            return time.monotonic() - begin_s
        time.sleep(0.1)
    raise AssertionError(f"still there: {running(reports)} {find_everywhere(launch_id)}")


def find_everywhere(launch_id: str) -> list[int]:
    """The processes of a launch on all hosts, which share their process numbers here."""
    record = f"LYRICS_LAUNCH_ID={launch_id}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if record in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


VICTIMS = ["launch", "runner", "pdsh", "ssh", "node launcher", "rank", "keeper", "keeper's ssh"]


@pytest.mark.parametrize(
    "victim", [name if name == "launch" else pytest.param(name, marks=pytest.mark.slow) for name in VICTIMS]
)
def test_a_kill_of_any_process_of_a_launch_ends_all_of_it(
    cluster: Cluster, tmp_path: Path, victim: str, record_property: Callable[[str, object], None]
) -> None:
    command = launch_command(cluster, tmp_path, ends=SLEEP, tether=True)
    with start_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY) as process:
        reports = wait_for_reports(tmp_path)
        launch_id = str(reports[0]["environment"]["LYRICS_LAUNCH_ID"])
        launcher = next(
            pid for pid, words in processes() if words[:2] == command[:2] and str(tmp_path) in str(words)
        )
        marker = launch_id if victim != "pdsh" and "ssh" not in victim else cluster.hosts[1].name
        marker = cluster.hosts[1].name if victim == "ssh" else marker
        os.kill(find_victim(victim, launcher, marker, cluster.hosts[1].name, reports), signal.SIGKILL)
        begin_s = time.monotonic()
        output, _ = process.communicate(timeout=60)
        ended_s = time.monotonic() - begin_s
        gone_s = ended_s + wait_until_gone(launch_id, reports)
    print(f"\nkill -9 {victim}: launch ended after {ended_s:.1f} s, all gone after {gone_s:.1f} s")
    record_property("gone_s", round(gone_s, 1))
    if victim == "launch":
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == 6, output
    # What runs on the launching host has that host's name, which a namespace shares with this machine.
    lost = cluster.hosts if victim == "keeper" else cluster.hosts[1:2]
    names = [*(host.name for host in lost), os.uname().nodename]
    assert any(f"refused: {name}: " in output or f"on {name} " in output for name in names), output


def start_by_hand(cluster: Cluster, tmp_path: Path, *, tether: bool) -> subprocess.Popen[str]:
    (tmp_path / "config.json").write_text(
        json.dumps({"reports": str(tmp_path), "ends": SLEEP, "tether": tether})
    )
    (tmp_path / "environment").write_text(f"DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\nBY_HAND={tmp_path}\n")
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile)]
    command += ["--no_local_rank", "--module", "rank_program", "--config", str(tmp_path / "config.json")]
    environment = {**ENVIRONMENT, "DS_ENV_FILE": str(tmp_path / "environment")}
    return start_on(cluster.hosts[0], command, environment, REPOSITORY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "ends"),
    [("runner", [0]), ("pdsh", [0]), ("ssh", [1]), ("node launcher", [1])],
)
def test_a_kill_in_a_start_by_hand_ends_the_ranks_that_hung_on_it(
    cluster: Cluster, tmp_path: Path, victim: str, ends: list[int]
) -> None:
    with start_by_hand(cluster, tmp_path, tether=True) as process:
        try:
            reports = wait_for_reports(tmp_path)
            time.sleep(3)  # a tether looks for pdsh and the runner once, as it starts
            marker = str(tmp_path)
            os.kill(find_victim(victim, 0, marker, cluster.hosts[1].name, reports), signal.SIGKILL)
            begin_s = time.monotonic()
            hanging = [reports[rank] for rank in ends]
            while running(hanging):
                assert time.monotonic() < begin_s + 60
                time.sleep(0.1)
            print(f"\nby hand, kill -9 {victim}: rank {ends} gone after {time.monotonic() - begin_s:.1f} s")
        finally:
            end_all(read_reports(tmp_path), process)


@pytest.mark.slow
def test_without_the_tether_a_kill_of_the_nodes_launcher_leaves_its_rank(
    cluster: Cluster, tmp_path: Path
) -> None:
    with start_by_hand(cluster, tmp_path, tether=False) as process:
        try:
            reports = wait_for_reports(tmp_path)
            os.kill(find_victim("node launcher", 0, "", "", reports), signal.SIGKILL)
            time.sleep(20)
            assert reports[1]["pid"] in running(reports)
        finally:
            end_all(read_reports(tmp_path), process)


def end_all(reports: list[dict[str, Any]], process: subprocess.Popen[str]) -> None:
    for pid in running(reports):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    for pid, words in processes():
        if "deepspeed.launcher.launch" in words and any(report["config"] in words for report in reports):
            os.kill(pid, signal.SIGKILL)


def test_a_launch_folder_that_is_in_use_starts_nothing_a_second_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    command = launch_command(cluster, tmp_path, ends=SLEEP)
    holder = (
        "import sys, time; from pathlib import Path; from harness.cluster.run_lock import hold_run\n"
        "with hold_run(Path(sys.argv[1])): print('held', flush=True); time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            result = run_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY, check=False)
        finally:
            process.kill()
    assert result.returncode == 3
    assert f"in use by another launch, process {process.pid} on" in result.stdout
    assert not find_processes("anything")
