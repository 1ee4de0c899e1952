"""Whether a launch that failed is started again, where, and what is said about it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster.hostfile import Hostfile
from harness.cluster.hosts import find_failing_hosts, needs_ssh
from harness.cluster.start import Ending
from preprocess.errors import ConfigError

ATTEMPTS_FILE = "attempts.jsonl"
MAX_WAIT_S = 60.0
MAX_STANDSTILLS = 2
"""Restarts in a row without a newer checkpoint, after which the cause is taken to be the step itself."""

_FINAL = {0, 2, 3, 4, 5, 8, 9, 10, 129, 130, 143}
"""Codes that a restart does not mend: done, a mistake, bad data, no memory or space, divergence, a user's stop."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often and on what hosts a launch starts again.

    Attributes:
        max_restarts: Starts after the first one, at most.
        elastic: Whether it goes on without hosts that do not answer.
        min_hosts: With `elastic`, how many must.
        first_wait_s: Seconds before the first restart; doubles with each, up to MAX_WAIT_S.
    """

    max_restarts: int = 0
    elastic: bool = False
    min_hosts: int = 1
    first_wait_s: float = 5.0

    def check(self, hostfile: Hostfile) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: Elastic without restarts, or more hosts than there are.
        """
        if self.elastic and not self.max_restarts:
            raise ConfigError("--elastic says how a restart may go on; pass --max-restarts N with it")
        if self.min_hosts != 1 and not self.elastic:
            raise ConfigError("--min-hosts goes with --elastic")
        if self.min_hosts > len(hostfile.hosts):
            raise ConfigError(
                f"--min-hosts {self.min_hosts}, but {hostfile.path} names {len(hostfile.hosts)} hosts"
            )

    def wait_s(self, restart: int) -> float:
        """Seconds before a restart, counted from 1."""
        return float(min(self.first_wait_s * 2 ** (restart - 1), MAX_WAIT_S))


def can_help(code: int) -> bool:
    """Whether a restart may mend what ended with this code: a loss (6), a hang (7), a crash of no known cause."""
    return code not in _FINAL


def choose_hosts(hostfile: Hostfile, policy: RestartPolicy) -> tuple[Hostfile | None, dict[str, str]]:
    """The hosts for a restart, and why the others are left out; None when too few answer.

    All hosts of the file are asked each time, so one that is back takes part again.
    """
    failures = find_failing_hosts(hostfile.names) if needs_ssh(hostfile) else {}
    hosts = tuple(host for host in hostfile.hosts if host.name not in failures)
    if not failures:
        return hostfile, {}
    if policy.elastic and len(hosts) >= policy.min_hosts:
        return Hostfile(hosts, hostfile.path), failures
    return None, failures


@dataclass(slots=True)
class Attempts:
    """The attempts of one launch, kept in `<launches>/attempts.jsonl`.

    Attributes:
        path: The file; a line an attempt.
        begun: When the present attempt began, seconds since 1970.
        standstills: Restarts in a row that brought no newer checkpoint.
        endings: The attempts so far.
    """

    path: Path
    begun: float = field(default_factory=time.time)
    standstills: int = 0
    endings: list[Ending] = field(default_factory=list)

    def record(self, ending: Ending, hosts: Sequence[str], world_size: int) -> None:
        """Write an attempt down and count whether it came further than the one before."""
        if self.endings:
            stands = (ending.checkpoint or 0) <= (self.endings[-1].checkpoint or 0)
            self.standstills = self.standstills + 1 if stands else 0
        self.endings.append(ending)
        self._write(
            launch_id=ending.launch_id,
            exit_code=ending.code,
            why=describe_cause(ending),
            checkpoint=ending.checkpoint,
            step=ending.step,
            steps_lost=steps_lost(ending),
            hosts=list(hosts),
            world_size=world_size,
        )

    def record_absence(self, failures: dict[str, str]) -> None:
        """Write down a restart for which too few hosts answered."""
        self._write(launch_id=None, exit_code=None, why=f"hosts do not answer: {', '.join(failures)}")

    def _write(self, **values: object) -> None:
        line = {"began": round(self.begun, 3), "ended": round(time.time(), 3), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.begun = time.time()


def steps_lost(ending: Ending) -> int:
    """Steps taken since the newest checkpoint, which a restart takes again."""
    return max(0, (ending.step or 0) - (ending.checkpoint or 0))


def describe_cause(ending: Ending) -> str:
    """Why an attempt ended."""
    return str(ending.error) if ending.error else f"exit code {ending.code}"


def announce_restart(ending: Ending, restart: int, policy: RestartPolicy) -> None:
    """Say why, what is lost, which attempt follows and when."""
    place = "the beginning" if ending.checkpoint is None else f"checkpoint {ending.checkpoint}"
    say(
        f"the run ended with exit code {ending.code}: {describe_cause(ending)}\n"
        f"restart {restart} of {policy.max_restarts} in {policy.wait_s(restart):g} s from {place}; "
        f"{steps_lost(ending)} steps since then are taken again"
    )


def say(text: str) -> None:
    """Speak to the user, who watches the terminal or its log."""
    print(text, file=sys.stderr, flush=True)
