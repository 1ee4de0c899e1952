"""The guard's decisions, on a clock of their own: what is an alarm, who is the cause, and what is none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from harness.guard.board import PHASES, Board, BoardFile, Phase
from harness.guard.hub import FAILURE_GRACE_S, Hub
from harness.guard.observe import Watched, read_main_thread
from harness.guard.slow import Pace, find_slow
from harness.guard.verdict import Limits, Report, Verdict, find_culprit, judge, judge_failures
from harness.guard.wire import Message

LIMITS = Limits()


def reports(**of_rank_1: object) -> list[Report]:
    """Three ranks in step 41, of which rank 1 has something special."""
    all_ = [Report(rank, f"node{rank + 1}", "step", 40, 200, waiting=rank != 1) for rank in range(3)]
    return [replace(one, **of_rank_1) if one.rank == 1 else one for one in all_]  # type: ignore[arg-type]


def verdict_on(ranks: list[Report], median_s: float | None = 1.0, limits: Limits = LIMITS) -> Verdict:
    found = judge(ranks, limits, median_s)
    assert found is not None
    return found


def test_a_rank_that_died_is_lost_at_once_and_its_signal_is_told() -> None:
    found = verdict_on(reports(died="was killed by SIGKILL"))
    assert (found.kind, found.rank, found.host, found.exit_code) == ("lost", 1, "node2", 6)
    assert found.message == "rank 1 on node2 was killed by SIGKILL (in step 41)"


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_is_seen_in_every_phase_at_the_same_speed(phase: Phase) -> None:
    assert judge(reports(stopped_s=26.9, phase=phase), LIMITS, 1.0) is None
    found = verdict_on(reports(stopped_s=27.0, phase=phase))
    assert (found.kind, found.rank, found.phase, found.exit_code) == ("hang", 1, phase, 7)


def test_limits_grow_with_the_median_step() -> None:
    assert judge(reports(stopped_s=89.0, idle_s=89.0), LIMITS, 20.0) is None
    assert verdict_on(reports(stopped_s=90.0), 20.0).kind == "hang"
    assert verdict_on(reports(idle_s=90.0, beats=198), 20.0).kind == "hang"


def test_silence_does_not_wait_for_long_steps() -> None:
    found = verdict_on(reports(silent_s=27.0), 1000.0)
    assert (found.kind, found.rank, found.host) == ("lost", 1, "node2")


def test_a_host_that_hears_nobody_is_the_one_that_is_cut_off() -> None:
    ranks = [replace(one, silent_s=28.0 if one.rank else 0.0) for one in reports()]
    found = verdict_on(ranks)
    assert (found.rank, found.host) == (0, "node1")
    two_hosts = ranks[:2]
    assert verdict_on(two_hosts).host == "node2"


def test_who_has_not_arrived_is_the_cause_of_a_hang_and_who_waits_is_not() -> None:
    ranks = [replace(one, idle_s=28.0) for one in reports(beats=198)]
    found = verdict_on(ranks)
    assert (found.kind, found.rank, found.host, found.step) == ("hang", 1, "node2", 40)
    assert "while the others wait" in found.message


def test_stacks_tell_who_hangs_where_marks_do_not() -> None:
    even = [replace(one, idle_s=28.0, waiting=False) for one in reports()]
    assert verdict_on(even).rank is None
    stacks = [replace(one, in_collective=one.rank != 2, where="loader.py, line 3 in load") for one in even]
    found = verdict_on(stacks)
    assert found.rank == 2
    assert "at loader.py, line 3" in found.message


def test_ranks_that_all_wait_are_a_hang_without_a_cause() -> None:
    found = verdict_on([replace(one, idle_s=28.0, waiting=True) for one in reports()])
    assert (found.kind, found.rank, found.exit_code) == ("hang", None, 7)
    assert find_culprit([replace(one, waiting=True) for one in reports(beats=190)]) is not None


def test_waiting_for_a_rank_that_works_on_is_no_hang() -> None:
    ranks = [replace(one, idle_s=0.0 if one.rank == 1 else 400.0) for one in reports(beats=198)]
    assert judge(ranks, LIMITS, 1.0) is None
    # Nor is it one where the collective is DeepSpeed's own, which has no mark.
    assert judge([replace(one, waiting=False) for one in ranks], LIMITS, 1.0) is None


def test_an_evaluation_in_which_one_rank_hangs_does_not_wait_for_the_others_to_end_theirs() -> None:
    ranks = [replace(one, phase="eval", waiting=False, beats=200 + 50 * (one.rank != 1)) for one in reports()]
    found = verdict_on([replace(one, idle_s=28.0 if one.rank == 1 else 0.0) for one in ranks])
    assert found.rank == 1


@pytest.mark.parametrize("phase", ["load", "engine", "search", "save", "finish"])
def test_phases_without_steps_have_the_long_limit(phase: Phase) -> None:
    ranks = [replace(one, phase=phase, idle_s=1600.0) for one in reports(beats=100)]
    assert judge(ranks, LIMITS, 1.0) is None
    assert verdict_on([replace(one, idle_s=1621.0) for one in ranks]).rank == 1


def test_the_first_steps_may_compile() -> None:
    ranks = [replace(one, idle_s=100.0) for one in reports(beats=198)]
    assert judge(ranks, LIMITS, None) is None


def test_of_errors_the_one_with_a_code_of_its_own_is_the_cause() -> None:
    ranks = [replace(one, ended=9 if one.rank == 2 else 1) for one in reports()]
    found = judge_failures(ranks)
    assert found is not None
    assert (found.kind, found.rank, found.exit_code) == ("failed", 2, 9)


def test_a_machine_that_slept_does_not_count_as_idle() -> None:
    watched = Watched(max_gap_s=2.0)
    watched.look(0.0, Board(beats=5), "S")
    watched.look(3600.0, Board(beats=5), "S")
    assert watched.idle_s == 2.0


def test_the_board_is_read_as_it_was_written() -> None:
    file = BoardFile()
    board = Board(5, 40, 12, 1234, True, 39, 12.5, 0.25)
    file.write(board)
    assert BoardFile(file.descriptor).read() == board
    assert board.phase_name == "step"


STACKS = """Thread 0x00007f1 (most recent call first):
  File "/v/lib/threading.py", line 320 in wait
  File "/v/lib/threading.py", line 1002 in _bootstrap

Current thread 0x00007f0 (most recent call first):
  File "/v/torch/distributed/distributed_c10d.py", line 2800 in all_reduce
  File "/w/harness/dist.py", line 120 in sum_over_ranks
"""


def test_the_main_threads_stack_tells_whether_it_is_in_a_collective() -> None:
    where, in_collective = read_main_thread(STACKS)
    assert in_collective
    assert where == '"/v/torch/distributed/distributed_c10d.py", line 2800 in all_reduce'
    assert read_main_thread(STACKS.replace("distributed", "nn")) == (
        '"/v/torch/nn/nn_c10d.py", line 2800 in all_reduce',
        False,
    )
    assert read_main_thread("") == ("", False)


@dataclass
class Simulation:
    """Ranks and a hub on a clock of their own; a look every interval, as guardians take it."""

    limits: Limits = LIMITS
    now_s: float = 0.0
    told: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(5)
        self.boards = [Board() for _ in range(3)]
        self.watched = [Watched(2 * self.limits.interval_s) for _ in range(3)]
        self.hub = Hub(self.limits, self.told.append)
        for rank in range(3):
            self.hub.take_in(rank, f"node{rank + 1}", None)

    def look(self) -> None:
        for rank, (board, watched) in enumerate(zip(self.boards, self.watched, strict=True)):
            watched.look(self.now_s, replace(board), "S")
            self.hub.hear(rank, message_of(board, watched, self.now_s), self.now_s)
        self.hub.decide(self.now_s)

    def work(self, seconds: float) -> None:
        """Let time pass with looks, and no mark."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + self.limits.interval_s, end_s)
            self.look()

    def enter(self, phase: Phase) -> None:
        for board in self.boards:
            board.phase = PHASES.index(phase)
            board.beats += 1

    def step(self, own_s: list[float]) -> None:
        """A step of one micro-step: each rank works for its own time and waits for the slowest."""
        self.enter("step")
        passed_s = 0.0
        for rank in sorted(range(3), key=lambda one: own_s[one]):
            self.work(own_s[rank] - passed_s)
            passed_s = own_s[rank]
            self.boards[rank].beats += 3
            self.boards[rank].waiting = True
        for board, own in zip(self.boards, own_s, strict=True):
            board.waiting, board.step, board.step_s = False, board.step + 1, max(own_s)
            board.measured_steps += 1
            board.busy_s += own
            board.beats += 2

    def verdicts(self) -> list[Message]:
        return [one for one in self.told if one["kind"] == "verdict"]


def message_of(board: Board, watched: Watched, now_s: float) -> Message:
    return {
        "kind": "report", "phase": board.phase_name, "step": board.step, "steps_here": board.step, "beats": board.beats,
        "waiting": board.waiting, "step_s": board.step_s, "measured_steps": board.measured_steps,
        "busy_s": board.busy_s, "idle_s": watched.idle_s, "stopped_s": watched.stopped_s, "died": None,
        "ended": None, "sent_s": now_s, "trip_s": None,
    }  # fmt: skip


def step_lengths(simulation: Simulation, num_steps: int, base_s: float) -> Iterator[list[float]]:
    """Steps with jitter, a straggler now and then, and a length that grows twentyfold on the way."""
    for step in range(num_steps):
        growth = 1.0 + 19.0 * step / num_steps
        jitter = [simulation.random.lognormvariate(0.0, 0.25) for _ in range(3)]
        if simulation.random.random() < 0.01:
            jitter[simulation.random.randrange(3)] *= 3.0
        yield [base_s * growth * min(one, 4.0) for one in jitter]


@pytest.mark.parametrize(
    "base_s", [0.02, *(pytest.param(base, marks=pytest.mark.slow) for base in (0.5, 4.0))]
)
def test_there_is_no_false_alarm_in_ten_thousand_steps(base_s: float) -> None:
    simulation = Simulation()
    num_steps = 10_000
    simulation.enter("load")
    simulation.work(1500.0)
    simulation.enter("search")
    simulation.work(900.0)
    simulation.step([90.0, 60.0, 75.0])  # compiles
    for step, own_s in enumerate(step_lengths(simulation, num_steps, base_s)):
        simulation.step(own_s)
        if step % 500 == 499:
            simulation.enter("eval")
            for _ in range(40):
                simulation.work(max(own_s))
                for board in simulation.boards:
                    board.beats += 1
            simulation.enter("save")
            simulation.work(simulation.random.uniform(1.0, 900.0))
    assert simulation.verdicts() == []
    assert simulation.boards[0].step == num_steps + 1


def test_the_simulation_does_see_a_rank_that_hangs() -> None:
    simulation = Simulation()
    for own_s in step_lengths(simulation, 100, 0.5):
        simulation.step(own_s)
    began_s = simulation.now_s
    simulation.enter("step")
    for rank in (0, 2):
        simulation.boards[rank].beats += 3
        simulation.boards[rank].waiting = True
    simulation.work(60.0)
    ((found),) = [one["verdict"] for one in simulation.verdicts()]
    assert (found["kind"], found["rank"], found["step"]) == ("hang", 1, 100)
    asked_s = max(5 * 10.0 * 1.5, LIMITS.min_timeout_s)  # the median step is below ten seconds
    assert simulation.now_s - began_s <= asked_s


def test_a_broken_build_that_ignores_the_median_raises_false_alarms() -> None:
    simulation = Simulation(replace(LIMITS, factor=0.0))
    for own_s in step_lengths(simulation, 200, 10.0):
        simulation.step(own_s)
    assert simulation.verdicts()


def test_an_error_on_all_ranks_lets_them_end_by_themselves() -> None:
    simulation = Simulation()
    board, watched = Board(), Watched(2.0)
    watched.look(0.0, board, "S")
    for rank in range(3):
        simulation.hub.hear(rank, {**message_of(board, watched, 0.0), "ended": 10}, 0.0)
    simulation.hub.decide(0.0)
    assert simulation.told == [{"kind": "go"}]


def test_an_error_on_one_rank_ends_the_others_after_a_moment() -> None:
    simulation = Simulation()
    simulation.look()
    failing = {**message_of(Board(), simulation.watched[0], 0.0), "ended": 9}
    simulation.hub.hear(1, failing, 0.0)
    simulation.hub.decide(FAILURE_GRACE_S - 0.1)
    assert simulation.told == []
    simulation.hub.decide(FAILURE_GRACE_S)
    assert simulation.told[0]["verdict"]["exit_code"] == 9


def paces(work: list[float], trips: list[float]) -> dict[int, Pace]:
    made = {rank: Pace(f"node{rank + 1}") for rank in range(3)}
    for step in range(40):
        for rank, pace in made.items():
            pace.add(step, step * work[rank], trips[rank] if rank else None)
    return made


def test_a_slow_rank_is_named_with_its_factor_once_in_a_while() -> None:
    made = paces([1.0, 1.1, 2.0], [0.0, 1e-4, 1e-4])
    (event,) = find_slow(made, 1.5, 0.0)
    assert (event["rank"], event["host"], event["what"]) == (2, "node3", "work")
    assert event["factor"] == pytest.approx(2.0 / 1.1)
    assert find_slow(made, 1.5, 100.0) == []
    assert len(find_slow(made, 1.5, 400.0)) == 1


def test_a_slow_link_is_named() -> None:
    (event,) = find_slow(paces([1.0, 1.0, 1.0], [0.0, 1e-3, 0.1]), 1.5, 0.0)
    assert (event["rank"], event["what"]) == (2, "link")


def test_even_ranks_and_small_differences_are_not_told() -> None:
    assert find_slow(paces([1.0, 1.3, 1.2], [0.0, 1e-3, 2e-3]), 1.5, 0.0) == []
    assert find_slow(paces([1e-3, 5e-3, 1e-3], [0.0, 1e-4, 5e-3]), 1.5, 0.0) == []
    assert find_slow({0: Pace("a"), 1: Pace("b")}, 1.5, 0.0) == []
