"""Run the deepspeed launcher, pass signals on, notice a host that failed, and leave nothing running.

DeepSpeed waits for every host: when one fails, the ranks on the others may hang in a collective for half an hour.
Here the first failure of a host starts a clock, after which the ranks of this launch are stopped everywhere. They
are found by LYRICS_LAUNCH_ID in their environment, so no process of anybody else is touched.
"""

from __future__ import annotations

import os
import re
import shlex
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

LAUNCH_ID_VARIABLE = "LYRICS_LAUNCH_ID"
SSH_FAILED = 255
"""Exit code of ssh when the connection, and not the command, failed."""

SETTLE_S = 10.0
"""Seconds that the other hosts get to end by themselves after the first one failed."""

GRACE_S = 30.0
"""Seconds between SIGTERM and SIGKILL: time for a rank to write its last words."""

_CONNECT_TIMEOUT_S = 10
_POLL_S = 0.2
_STOP_STEP_S = 0.5
_READER_TIMEOUT_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HOST_FAILED = re.compile(r"pdsh@\S+: (\S+): ssh exited with exit code ([0-9]+)\s*")

# Works without Python and without a shared file system. A zombie has no environment, so it does not count.
_STOP_SCRIPT = """
find_ranks() {{ grep -lsxzF -e {record} /proc/[0-9]*/environ | cut -d/ -f3; }}
ranks=$(find_ranks)
[ -n "$ranks" ] && kill -TERM $ranks 2>/dev/null
steps={num_steps}
while [ -n "$ranks" ] && [ $steps -gt 0 ]; do sleep {step_s}; steps=$((steps - 1)); ranks=$(find_ranks); done
[ -n "$ranks" ] && kill -KILL $ranks 2>/dev/null
exit 0
"""


@dataclass(slots=True)
class LaunchWatch:
    """One run of the launcher and what was seen of it.

    Attributes:
        launch_id: Value of LYRICS_LAUNCH_ID in the ranks' environment.
        remote_hosts: Hosts reached through pdsh; empty for a launch on this machine alone.
        signal_number: The first signal that this process got and passed on, or None.
        host_codes: Non-zero exit codes by host as pdsh reported them, in order of arrival, until we stopped the
            ranks ourselves.
        silent_hosts: Hosts that did not answer when the ranks were stopped.
        stopping: Whether what ends from now on was ended by us.
    """

    launch_id: str
    remote_hosts: Sequence[str] = ()
    signal_number: int | None = None
    host_codes: dict[str, int] = field(default_factory=dict)
    silent_hosts: set[str] = field(default_factory=set)
    stopping: bool = False

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the launcher to its end; afterwards no rank of this launch is left on any host that answers.

        Args:
            command: The launcher's command line.
            environment: Its whole environment.

        Returns:
            The launcher's exit code; negative for a signal.
        """
        # One local host keeps the terminal for its progress bars; pdsh's reports must be read.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if self.remote_hosts else None,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read_reports, args=(process.stderr,), daemon=True)
        reader.start()
        with self._forward_signals(process.pid):
            try:
                code = self._wait(process)
                # A connection that ssh keeps open for later commands may hold the pipe: do not wait for its end.
                reader.join(timeout=_READER_TIMEOUT_S)
                return code
            finally:
                self._stop(process.pid)
                process.wait()

    def _wait(self, process: subprocess.Popen[str]) -> int:
        """Wait for the launcher; stop the ranks once a host has failed, or a signal came, and time is over."""
        deadline_s: float | None = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_POLL_S)
            if deadline_s is not None and time.monotonic() > deadline_s:
                self._stop(process.pid)
            elif deadline_s is None and self.signal_number is not None:
                deadline_s = time.monotonic() + GRACE_S
            elif deadline_s is None and self.host_codes:
                deadline_s = time.monotonic() + SETTLE_S

    def _stop(self, group: int) -> None:
        """Stop the ranks on every host, then the launcher. A host that does not answer counts as lost."""
        self.stopping = True
        answering = [host for host in self.remote_hosts if host not in self.silent_hosts]
        if answering or not self.remote_hosts:
            self.silent_hosts.update(stop_ranks(self.launch_id, answering))
        for host in self.silent_hosts:
            self.host_codes.setdefault(host, SSH_FAILED)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    @contextmanager
    def _forward_signals(self, group: int) -> Iterator[None]:
        """While the launcher runs, a signal to this process ends the launcher's process group."""

        def forward(number: int, _frame: FrameType | None) -> None:
            self.signal_number = self.signal_number or number
            # Always SIGTERM: it is what the launchers send their ranks, and Python prints no traceback for it.
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)

        # Under nohup the hang-up stays ignored.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, forward) for number in heeded}
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
                self.host_codes.setdefault(report.group(1), int(report.group(2)))


def stop_ranks(launch_id: str, remote_hosts: Sequence[str], grace_s: float = GRACE_S) -> list[str]:
    """Stop every process of a launch: SIGTERM, up to `grace_s` seconds, SIGKILL. Returns at once if none is left.

    Args:
        launch_id: The launch; letters, digits and "-" only.
        remote_hosts: Where to look, through pdsh; empty for this machine.
        grace_s: Seconds between the two signals.

    Returns:
        The hosts that did not answer.
    """
    steps = round(grace_s / _STOP_STEP_S)
    script = _STOP_SCRIPT.format(
        record=f"{LAUNCH_ID_VARIABLE}={launch_id}", step_s=_STOP_STEP_S, num_steps=steps
    )
    if remote_hosts:
        return list(run_everywhere(script, remote_hosts, 2 * grace_s + _CONNECT_TIMEOUT_S))
    subprocess.run(["sh", "-c", script], check=False, stdin=subprocess.DEVNULL, start_new_session=True)
    return []


def run_everywhere(script: str, hosts: Sequence[str], timeout_s: float) -> dict[str, str]:
    """Run a shell script on several hosts at once through pdsh.

    Args:
        script: Text for `sh -c`, without a percent sign (pdsh replaces those).
        hosts: Checked host names.
        timeout_s: Seconds after which a host's script is given up.

    Returns:
        For each host where it failed, what pdsh and ssh said, "; " between the lines.
    """
    command = [
        "pdsh",
        "-S",
        "-t",
        str(_CONNECT_TIMEOUT_S),
        "-u",
        str(round(timeout_s)),
        "-w",
        ",".join(hosts),
    ]
    result = subprocess.run(
        [*command, f"sh -c {shlex.quote(script)}"],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=set_ssh_options(os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C at the terminal must not end the clean-up
    )
    failures: dict[str, list[str]] = {}
    for line in (result.stdout + result.stderr).splitlines():
        match = re.match(r"(?:pdsh@\S+: )?(\S+): (.*)", line)
        if match and match.group(1) in hosts:
            failures.setdefault(match.group(1), []).append(match.group(2))
    return {host: "; ".join(lines) for host, lines in failures.items()} if result.returncode else {}


def set_ssh_options(environment: Mapping[str, str], host_timeout_s: float = 30.0) -> dict[str, str]:
    """The environment with ssh chosen for pdsh, no questions asked, and a silent host noticed.

    The user's own PDSH_SSH_ARGS_APPEND stays in front: ssh takes the first value of an option.

    Args:
        environment: The environment to start from.
        host_timeout_s: Seconds of silence after which ssh gives a host up.
    """
    interval_s = max(1, round(host_timeout_s / 3))
    options = f"-oBatchMode=yes -oServerAliveInterval={interval_s} -oServerAliveCountMax=3"
    own = environment.get("PDSH_SSH_ARGS_APPEND", "")
    return {
        **environment,
        "PDSH_RCMD_TYPE": "ssh",
        "PDSH_SSH_ARGS_APPEND": f"{own} {options}".strip(),
    }
