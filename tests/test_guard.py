"""Three real ranks with their guardians: killed, stopped, hung, failed, signalled; and left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.guard.ending import stacks_path
from tests.cluster import Cluster, missing_means, three_hosts
from tests.guarded import REPOSITORY, Ranks, start_ranks, wait_for

MISSING = missing_means()
needs_cluster = pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def check_end(ranks: Ranks, culprit: int, kind: str, phase: str, *, died: bool) -> dict[str, Any]:
    """Every rank ended with the verdict's code, nothing is left, and the others' stacks are kept."""
    found = ranks.verdict()
    code = {"lost": 6, "hang": 7}[kind]
    assert (found["kind"], found["rank"], found["phase"], found["exit_code"]) == (kind, culprit, phase, code)
    recorded = [int((ranks.launch_dir / f"rank-{rank}.exit").read_text()) for rank in range(3)]
    assert recorded == [code] * 3
    assert ranks.are_gone()
    for rank in range(3):
        kept = stacks_path(ranks.run_dir, rank)
        assert kept.exists() == (not died or rank != culprit)
        assert not kept.exists() or "guard_program.py" in kept.read_text()
    (said,) = [line for line in ranks.outputs()[0].splitlines() if line.startswith(f"error: {kind}")]
    assert found["message"] in said
    assert json.loads((ranks.run_dir / "logs" / "verdict.json").read_text()) == found
    return found


ALL = [(rank, phase) for rank in (0, 1) for phase in ("load", "step", "eval", "save")]
QUICK = [(0, "load"), (1, "eval")]


def cases(quick: Sequence[tuple[int, str]]) -> list[Any]:
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in ALL]


@pytest.mark.parametrize(("rank", "phase"), cases(QUICK))
def test_a_killed_rank_ends_all_with_its_signal_told(tmp_path: Path, rank: int, phase: str) -> None:
    with start_ranks(tmp_path, hold=phase) as ranks:
        ranks.wait_until_here()
        began_s = time.monotonic()
        os.kill(ranks.pids[rank], signal.SIGKILL)
        ranks.verdict()  # a launcher that waits takes the status away; from Linux 6.15 on that does not matter
        codes = ranks.end()
        print(f"SIGKILL of rank {rank} in {phase}: all ended after {time.monotonic() - began_s:.2f} s")
        assert codes == [-signal.SIGKILL if one == rank else 6 for one in range(3)]
        assert "killed by SIGKILL" in check_end(ranks, rank, "lost", phase, died=True)["message"]


@pytest.mark.parametrize(("rank", "phase"), cases([(1, "load"), (0, "step")]))
def test_a_stopped_rank_ends_all_and_its_own_stack_is_kept(tmp_path: Path, rank: int, phase: str) -> None:
    with start_ranks(tmp_path, hold=phase) as ranks:
        ranks.wait_until_here()
        began_s = time.monotonic()
        os.kill(ranks.pids[rank], signal.SIGSTOP)
        codes = ranks.end()
        print(f"SIGSTOP of rank {rank} in {phase}: all ended after {time.monotonic() - began_s:.2f} s")
        assert codes == [7, 7, 7]
        check_end(ranks, rank, "hang", phase, died=False)


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_hangs_in_its_own_work_is_named_with_its_place(tmp_path: Path, rank: int) -> None:
    with start_ranks(tmp_path, num_steps=50, step_s=0.02, hang={"rank": rank, "step": 20}) as ranks:
        assert ranks.end() == [7, 7, 7]
        found = check_end(ranks, rank, "hang", "step", died=False)
        assert found["step"] == 20
        assert "in sleep_in_own_work" in found["message"]


@pytest.mark.slow
def test_without_guardians_the_others_wait_for_ever(tmp_path: Path) -> None:
    with start_ranks(tmp_path, hold="step", enabled=False) as ranks:
        ranks.wait_until_here()
        os.kill(ranks.pids[1], signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            ranks.end(timeout_s=6.0)
        assert not (ranks.launch_dir / "verdict.json").exists()


def test_a_guardian_that_ignores_stopped_processes_is_caught_by_these_tests(tmp_path: Path) -> None:
    broken = "harness.guard.process.read_state = lambda pid: 'S'"
    with start_ranks(tmp_path, hold="load", broken=broken) as ranks:
        ranks.wait_until_here()
        os.kill(ranks.pids[1], signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            ranks.end(timeout_s=6.0)


def test_an_error_on_one_rank_ends_all_with_its_code(tmp_path: Path) -> None:
    with start_ranks(tmp_path, num_steps=9, fail={"rank": 2, "step": 3, "code": 9}) as ranks:
        assert ranks.end() == [9, 9, 9]
        assert (ranks.verdict()["kind"], ranks.verdict()["rank"]) == ("failed", 2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rank", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_saves_on_all_after_the_same_step(
    tmp_path: Path, number: int, code: int, rank: int
) -> None:
    with start_ranks(tmp_path, hold="step", num_steps=50) as ranks:
        ranks.wait_until_here()
        os.kill(ranks.pids[rank], number)
        assert ranks.end() == [code] * 3
        assert len({(ranks.run_dir / f"saved-{one}").read_text() for one in range(3)}) == 1
        assert not (ranks.launch_dir / "verdict.json").exists()
        assert ranks.are_gone()


@pytest.mark.parametrize("phase", ["load", pytest.param("search", marks=pytest.mark.slow)])
def test_a_signal_before_the_first_step_ends_all_without_a_checkpoint(tmp_path: Path, phase: str) -> None:
    with start_ranks(tmp_path, hold=phase) as ranks:
        ranks.wait_until_here()
        os.kill(ranks.pids[1], signal.SIGTERM)
        assert ranks.end() == [143] * 3
        assert not list(ranks.run_dir.glob("saved-*"))


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with start_ranks(tmp_path, num_ranks=1, num_steps=2, step_s=120.0) as ranks:
        wait_for((ranks.run_dir / "stepping-0").exists)
        ranks.processes[0].send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert ranks.processes[0].poll() is None
        ranks.processes[0].send_signal(signal.SIGINT)
        assert ranks.end(20.0) == [130]


def test_a_guardian_that_is_killed_takes_its_run_with_it(tmp_path: Path) -> None:
    with start_ranks(tmp_path, hold="step") as ranks:
        ranks.wait_until_here()
        (guardian, *_) = [
            pid for pid in ranks.left() if pid not in ranks.pids and parent(pid) == ranks.pids[1]
        ]
        os.kill(guardian, signal.SIGKILL)
        assert ranks.end() == [6, 6, 6]
        assert ranks.verdict()["rank"] == 1


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_whose_launcher_was_killed_is_no_orphan_for_long(tmp_path: Path, rank: int) -> None:
    with start_ranks(tmp_path, hold="step", under_launchers=True) as ranks:
        ranks.wait_until_here()
        ranks.processes[rank].kill()
        assert ranks.end() == [-signal.SIGKILL if one == rank else 6 for one in range(3)]
        assert "lost its launcher" in ranks.verdict()["message"]
        assert ranks.are_gone()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_slow_rank_is_told_to_rank_0(tmp_path: Path) -> None:
    slow = {"0": 0.02, "1": 0.02, "2": 0.15}
    with start_ranks(tmp_path, num_steps=40, step_s=slow) as ranks:
        assert ranks.end() == [0, 0, 0]
        outputs = ranks.outputs()
    events = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert [(one["rank"], one["what"]) for one in events] == [(2, "work")]
    assert events[0]["factor"] > 1.5
    assert not any(line.startswith("{") for line in outputs[1].splitlines())


def test_a_rank_alone_has_no_guardian(tmp_path: Path) -> None:
    with start_ranks(tmp_path, num_ranks=1) as ranks:
        assert ranks.end() == [0]
        assert not (ranks.run_dir / "logs").exists()


def test_the_guardian_is_light_and_loads_no_torch() -> None:
    script = (
        "import sys, harness.guard.process\n"
        "assert not {'torch', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True, capture_output=True, check=True
    )
    assert int(done.stdout) < 30_000  # KiB, with what it shares with every Python


@pytest.mark.slow
def test_there_is_no_false_alarm_in_ten_thousand_real_steps(tmp_path: Path) -> None:
    with start_ranks(tmp_path, num_steps=10_000, step_s=0.002) as ranks:
        began_s = time.monotonic()
        assert ranks.end(timeout_s=300.0) == [0, 0, 0]
        print(f"10,000 steps on 3 ranks in {time.monotonic() - began_s:.1f} s")
        assert not (ranks.launch_dir / "verdict.json").exists()
        assert ranks.are_gone()


@needs_cluster
@pytest.mark.cluster
@pytest.mark.parametrize(
    ("cut", "phase"),
    [
        (2, "step"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0, "step"), (1, "load"), (1, "save"))),
    ],
)
def test_a_host_whose_link_is_cut_is_named_and_no_rank_is_left_on_any_host(
    cluster: Cluster, tmp_path: Path, cut: int, phase: str
) -> None:
    with start_ranks(tmp_path, cluster, hold=phase) as ranks:
        ranks.wait_until_here()
        began_s = time.monotonic()
        cluster.set_link(cluster.hosts[cut], up=False)
        try:
            codes = ranks.end()
            print(f"link of rank {cut} cut in {phase}: all ended after {time.monotonic() - began_s:.2f} s")
        finally:
            cluster.set_link(cluster.hosts[cut], up=True)
        found = ranks.verdict()
        assert codes == [6, 6, 6]
        assert (found["kind"], found["rank"], found["host"]) == ("lost", cut, cluster.hosts[cut].name)
        assert ranks.are_gone()


@needs_cluster
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 6), (signal.SIGSTOP, 7)])
def test_ranks_on_three_hosts_end_together(
    cluster: Cluster, tmp_path: Path, rank: int, number: int, code: int
) -> None:
    with start_ranks(tmp_path, cluster, hold="eval") as ranks:
        ranks.wait_until_here()
        os.kill(ranks.pids[rank], number)
        codes = ranks.end()
        assert [one for index, one in enumerate(codes) if index != rank] == [code, code]
        assert ranks.verdict()["host"] == cluster.hosts[rank].name
        assert ranks.are_gone()
