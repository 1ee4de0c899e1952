"""Run the deepspeed launcher, pass signals on, notice a host that failed, and leave nothing running.

DeepSpeed waits for every host: when one fails, the ranks on the others may hang in a collective for half an hour.
Here the first failure starts a clock, after which the keepers stop the ranks of this launch everywhere:

    SIGTERM or SIGINT for us          SIGTERM for the ranks, GRACE_S for a checkpoint, SIGKILL
    a host, a rank, a launcher, ssh   SETTLE_S for the others to end by themselves, SIGTERM, END_S, SIGKILL
    the guardians' verdict            the same
    SIGKILL for us                    the keepers see their input end (`harness.cluster.keeper`)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from harness.cluster.lifelines import Lifelines
from harness.cluster.remote import run_everywhere, set_ssh_options

__all__ = ["LaunchWatch", "run_everywhere", "set_ssh_options"]

LAUNCH_ID_VARIABLE = "LYRICS_LAUNCH_ID"
SSH_FAILED = 255
"""Exit code of ssh when the connection, and not the command, failed."""

SETTLE_S = 4.0
"""Seconds that the other hosts get to end by themselves after the first one failed."""

END_S = 4.0
"""Seconds between SIGTERM and SIGKILL after a failure."""

GRACE_S = 30.0
"""Seconds between a user's SIGTERM and SIGKILL: time for a checkpoint."""

_LINGER_S = 3.0  # DeepSpeed's launchers look once a second whether their ranks have ended
_POLL_S = 0.1
_READER_TIMEOUT_S = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HOST_FAILED = re.compile(
    r"pdsh@\S+: (\S+): ssh (?:exited with exit code ([0-9]+)|killed by signal [0-9]+)\s*"
)


@dataclass(slots=True)
class LaunchWatch:
    """One run of the launcher and what was seen of it.

    Attributes:
        lifelines: The keepers of the launch.
        reads_reports: Whether the launcher starts ranks through pdsh, whose reports are read.
        signal_number: The first signal that this process got and passed on, or None.
        num_signals: How many it got; the second one ends the time for a checkpoint.
        host_codes: Non-zero exit codes by host as pdsh reported them, in order of arrival, until the ranks were
            stopped by us; SSH_FAILED for a host whose keeper's connection broke.
        stopping: Whether what ends from now on was ended by us.
    """

    lifelines: Lifelines
    reads_reports: bool = False
    signal_number: int | None = None
    num_signals: int = 0
    host_codes: dict[str, int] = field(default_factory=dict)
    stopping: bool = False

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the launcher to its end; afterwards no process of this launch is left on any host that answers.

        Args:
            command: The launcher's command line.
            environment: Its whole environment, LYRICS_LAUNCH_ID among it.

        Returns:
            The launcher's exit code; negative for a signal.
        """
        # One local host keeps the terminal for its progress bars; pdsh's reports must be read.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if self.reads_reports else None,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read_reports, args=(process.stderr,), daemon=True)
        reader.start()
        try:
            code = self._wait(process)
            # A connection that ssh keeps open for later commands may hold the pipe: do not wait for its end.
            reader.join(timeout=_READER_TIMEOUT_S)
            return code
        finally:
            self.stopping = True
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait(self, process: subprocess.Popen[str]) -> int:
        """Wait for the launcher; have the ranks stopped when one failed or a signal came; then end the launcher."""
        failed_at_s: float | None = None
        end_at_s = float("inf")
        heeded = 0
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_POLL_S)
            now_s = time.monotonic()
            if self.num_signals > heeded:
                heeded = self.num_signals
                end_at_s = min(end_at_s, now_s + self._stop(GRACE_S if heeded == 1 else END_S))
            if failed_at_s is None and self._has_failed():
                failed_at_s = now_s
            if failed_at_s is not None and now_s > failed_at_s + SETTLE_S and end_at_s == float("inf"):
                end_at_s = now_s + self._stop(END_S)
            if now_s > end_at_s:
                os.killpg(process.pid, signal.SIGKILL)

    def _has_failed(self) -> bool:
        """Whether a host failed, its connection broke, or the guardians gave a verdict."""
        if not self.stopping:
            for host in self.lifelines.broken():
                self.host_codes.setdefault(host, SSH_FAILED)
        # A rank that a signal stopped ends its host with 143, while others may still write a checkpoint.
        return self.signal_number is None and (bool(self.host_codes) or self.lifelines.verdict() is not None)

    def _stop(self, grace_s: float) -> float:
        """Have the ranks stopped. Returns the seconds after which the launcher must be gone as well."""
        self.stopping = True
        self.lifelines.stop(grace_s)
        return grace_s + _LINGER_S

    @contextmanager
    def heed_signals(self) -> Iterator[None]:
        """Meanwhile a signal to this process is noted, to be passed on to the ranks as SIGTERM."""

        def note(number: int, _frame: FrameType | None) -> None:
            self.signal_number = self.signal_number or number
            self.num_signals += 1

        # Under nohup the hang-up stays ignored.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, note) for number in heeded}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _read_reports(self, stream: IO[str] | None) -> None:
        """Copy the launcher's stderr to ours line by line and note which hosts pdsh reports as failed."""
        for line in stream or ():
            with suppress(OSError):  # a closed terminal must not block the launcher
                sys.stderr.write(line)
                sys.stderr.flush()
            report = _HOST_FAILED.fullmatch(line)
            if report and not self.stopping:
                self.host_codes.setdefault(report.group(1), int(report.group(2) or SSH_FAILED))
