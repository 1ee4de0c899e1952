"""Is every fault noticed, named, and resumed from exactly? From outside: command lines, signals, cables and files.

::

    setting.py   the toy run, its unbroken reference, and what makes a later run equal to it
    forks.py     a process that has imported the harness and forks ranks; ranks.py starts them
    hosts.py     three hosts (tests/cluster.py), what runs on them, their death
    trial.py     a fault and what became of the run; the table
    kills.py     kill -9 of a rank, a launcher, ssh, a host … under `harness launch`
    disk.py      a disk that fails at the N-th operation (tests/faults/faulty_disk.c)
    flips.py     flipped bytes and cut files
    stops.py     stops at chosen steps, resumed bit for bit
    freezes.py   SIGSTOP and cut links on each rank in each phase
    controls.py  broken builds (tests/faults/broken.py), which these checks must find

`LYRICS_FAULTS_SCALE` multiplies the numbers of faults, as in 0.1. The folder of a run that did not survive is kept.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.trial import Trial, count_up, print_trials
from bench.record import Figure, Outcome, summarize
from preprocess.errors import ConfigError
from preprocess.terminal import make_console
from tests.cluster import missing_means

PARTS = ("kills", "disk", "flips", "stops", "freezes", "controls")
ON_HOSTS = ("kills", "freezes")

FULL = {"kills": 42, "disk": 150, "flips": 1000, "stops": 20, "freezes": 30, "controls": 100}
QUICK = {"kills": 2, "disk": 8, "flips": 60, "stops": 3, "freezes": 2, "controls": 1}
FLIPS_A_CUT = 10


@dataclass(frozen=True, slots=True)
class FaultsOutcome(Outcome):
    """The outcome with the table and with every fault that was not survived.

    Attributes:
        table: One row a kind; see `bench.faults.trial.Row`.
        failures: Fault and problems.
    """

    table: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)


def measure(*, quick: bool, only: str | None = None) -> FaultsOutcome:
    """Inject faults, print the table on stderr.

    Args:
        quick: A few of each kind.
        only: One of PARTS, or None for all.

    Raises:
        ConfigError: LYRICS_FAULTS_SCALE or LYRICS_FAULTS_SEED is no number, or there can be no cluster here.
    """
    # Or a cluster would be left behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    numbers = scale_numbers(QUICK if quick else FULL)
    seed = read_seed()
    root = Path(tempfile.mkdtemp(prefix="lyrics-faults-"))
    console = make_console(error=True)
    trials, seconds = list[Trial](), dict[str, float]()
    for part in PARTS if only is None else (only,):
        if part in ON_HOSTS and (why := missing_means()):
            raise ConfigError(f"bench faults --only {part}: a cluster {why}")
        started_s = time.monotonic()
        for trial in find_campaign(part)(root / part, numbers[part], seed):
            trials.append(trial)
            verdict = "survived" if trial.survived else "; ".join(trial.problems)
            line = f"{time.monotonic() - started_s:6.0f} s  {trial.kind}: {trial.what}: {verdict}"
            if trial.kind != "flip" or not trial.survived:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        seconds[part] = time.monotonic() - started_s
    print_trials(trials, console)
    console.print(f"what is left of runs that did not survive: {root}", highlight=False, soft_wrap=True)
    return summarize_trials(trials, seconds, seed)


def find_campaign(part: str) -> Callable[[Path, int, int], Iterator[Trial]]:
    """What runs a part, with its folder, its number of faults and the seed; torch is imported only here."""
    from bench.faults import controls, disk, flips, freezes, kills, stops
    from bench.faults.setting import make_setting

    campaigns: dict[str, Callable[[Path, int, int], Iterator[Trial]]] = {
        # Long enough for a kill at a random moment to hit it.
        "kills": lambda root, number, seed: kills.run_kills(
            make_setting(root, num_steps=60, save_every=4), number, seed
        ),
        "disk": lambda root, number, seed: disk.run_disk_faults(
            make_setting(root, num_steps=6), number, seed
        ),
        "flips": lambda root, number, seed: flips.run_flips(
            make_setting(root, num_steps=4), number, max(1, number // FLIPS_A_CUT), seed
        ),
        "stops": lambda root, number, _: stops.run_stops(make_setting(root, num_steps=16), number),
        "freezes": lambda root, number, _: freezes.run_freezes(make_setting(root, num_steps=8), number),
        "controls": lambda root, number, _: controls.run_controls(make_setting(root, num_steps=6), number),
    }
    return campaigns[part]


def scale_numbers(numbers: dict[str, int]) -> dict[str, int]:
    """The numbers of faults times LYRICS_FAULTS_SCALE, at least one each.

    Raises:
        ConfigError: It is no positive number.
    """
    text = os.environ.get("LYRICS_FAULTS_SCALE", "1")
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not scale > 0:
        raise ConfigError(f"LYRICS_FAULTS_SCALE: got {text!r}, expected a positive number, as in 0.1")
    return {part: max(1, round(number * scale)) for part, number in numbers.items()}


def read_seed() -> int:
    """LYRICS_FAULTS_SEED, or one drawn anew and recorded.

    Raises:
        ConfigError: It is no whole number.
    """
    text = os.environ.get("LYRICS_FAULTS_SEED") or str(secrets.randbelow(2**31))
    if not text.isdecimal():
        raise ConfigError(f"LYRICS_FAULTS_SEED: got {text!r}, expected a whole number")
    return int(text)


def summarize_trials(trials: list[Trial], seconds: dict[str, float], seed: int) -> FaultsOutcome:
    """The table as facts, times to detect as figures."""
    figures: dict[str, Figure] = {}
    facts: dict[str, float | int | str] = {"seed": seed}
    for row in count_up(trials):
        facts |= {
            f"{row.kind}: tried": row.tried,
            f"{row.kind}: survived": row.survived,
            f"{row.kind}: lost steps, max": row.max_lost_steps,
            f"{row.kind}: wrong resumes": row.wrong_resumes,
        }
        times = [one.detect_s for one in trials if one.kind == row.kind and one.detect_s is not None]
        if times:
            figures[f"{row.kind}: time to detect and end"] = summarize(times, "s")
            facts[f"{row.kind}: time to detect and end, max, s"] = max(times)
    facts |= {f"{part}: seconds": round(value, 1) for part, value in seconds.items()}
    return FaultsOutcome(
        baseline="the unbroken run",
        figures=figures,
        ratios={},
        facts=facts,
        table=[asdict(row) for row in count_up(trials)],
        failures=[
            {"kind": t.kind, "what": t.what, "problems": list(t.problems)} for t in trials if not t.survived
        ],
    )
