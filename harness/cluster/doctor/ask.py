"""Ask every host at once, over ssh, with one program each: facts, round trip, clock.

No text of a user's is on a command line: the host's name was checked, the path of Python is quoted, and the program
with its request goes through standard input.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.cluster.doctor.probe import MARK
from harness.cluster.hostfile import Host

SILENCE_S = 20.0
"""Seconds without a word after which a host is given up."""

CONNECT_TIMEOUT_S = 10
NUM_PINGS = 5
SSH_FAILED = 255
BOOTSTRAP = "import sys;b=sys.stdin.buffer;exec(b.read(int(b.readline())))"
"""Reads a program of a given length from standard input and runs it; the rest of standard input is the program's."""

PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What a host said.

    Attributes:
        host: As in the hostfile.
        facts: By name, see `probe`; empty where it did not answer.
        error: Why it did not, or the empty string.
        round_trip_s: Seconds to the host and back over the open connection.
        clock_offset_s: By how much its clock is ahead of the one here, within half a round trip.
    """

    host: Host
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    round_trip_s: float = 0.0
    clock_offset_s: float = 0.0

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name


class HostSilentError(RuntimeError):
    """A host did not answer as it should; the message says what was seen."""


def ask_hosts(
    hosts: Sequence[Host], request: Mapping[str, Any], *, over_ssh: bool, silence_s: float = SILENCE_S
) -> list[HostAnswer]:
    """Ask all hosts side by side.

    Args:
        hosts: Of the hostfile.
        request: What the probe needs to know.
        over_ssh: False for this machine alone, as its ranks are started without ssh.
        silence_s: Seconds without a word after which a host is given up.

    Returns:
        The answers in the order of the hosts.
    """
    program = f"{PROBE.read_text(encoding='utf-8')}\nserve(json.loads({json.dumps(request)!r}))\n"
    with ThreadPoolExecutor(max_workers=min(64, len(hosts))) as pool:
        return list(pool.map(lambda host: _ask(host, program, over_ssh, silence_s), hosts))


def _ask(host: Host, program: str, over_ssh: bool, silence_s: float) -> HostAnswer:
    command = ssh_command(host.name) if over_ssh else [sys.executable, "-c", BOOTSTRAP]
    try:
        process = start_program(command, program)
    except OSError as error:
        return HostAnswer(host, error=f"{command[0]}: {error.strerror}")
    try:
        return _converse(host, process, silence_s)
    except HostSilentError as error:
        return HostAnswer(host, error=str(error))
    finally:
        end_program(process)


def ssh_command(name: str, code: str = BOOTSTRAP) -> list[str]:
    """The command that runs Python code on a host as pdsh would reach it: with the user's own options first."""
    own = shlex.split(os.environ.get("PDSH_SSH_ARGS_APPEND", ""))
    options = ["-oBatchMode=yes", f"-oConnectTimeout={CONNECT_TIMEOUT_S}", "-oServerAliveInterval=10"]
    return ["ssh", *own, *options, name, f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"]


def start_program(command: Sequence[str], program: str) -> subprocess.Popen[bytes]:
    """Start Python somewhere and hand it a program; its standard input stays open.

    Raises:
        OSError: The command cannot be run here.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    source = program.encode("utf-8")
    _send(process, f"{len(source)}\n".encode() + source)
    return process


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # what it said instead is told when its answer is missing
        process.stdin.write(data)
        process.stdin.flush()


def end_program(process: subprocess.Popen[bytes]) -> None:
    """Close the connection, and end the process if it has not ended."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _converse(host: Host, process: subprocess.Popen[bytes], silence_s: float) -> HostAnswer:
    answers = Answers(process, silence_s)
    trips: list[tuple[float, float]] = []
    for _ in range(NUM_PINGS):
        sent, began_s = time.time(), time.monotonic()
        _send(process, b"ping\n")
        there = float(answers.read("time")["time"])
        trip_s = time.monotonic() - began_s
        trips.append((trip_s, there - (sent + trip_s / 2)))
    _send(process, b"facts\n")
    facts = answers.read("facts")["facts"]
    round_trip_s, offset_s = min(trips)
    return HostAnswer(host, facts, "", round_trip_s, offset_s)


class Answers:
    """The answers of a program that prints lines behind a mark; other lines are skipped.

    Args:
        process: With pipes for its output.
        silence_s: Seconds without a byte after which it counts as hung.
        mark: What an answer begins with.
    """

    def __init__(self, process: subprocess.Popen[bytes], silence_s: float, mark: str = MARK) -> None:
        self.process = process
        self.silence_s = silence_s
        self.mark = mark.encode()
        self._buffer = b""
        self._errors = b""

    def read(self, key: str) -> dict[str, Any]:
        """The next answer that has `key`.

        Raises:
            HostSilentError: The program ended or fell silent before.
        """
        while True:
            line = self._read_line()
            if line.startswith(self.mark):
                value = json.loads(line[len(self.mark) :])
                if isinstance(value, dict) and key in value:
                    return value

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._wait()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _wait(self) -> None:
        """Read what comes next, on either stream."""
        output, errors = self.process.stdout, self.process.stderr
        assert output is not None
        assert errors is not None
        ready, _, _ = select.select([output, errors], [], [], self.silence_s)
        if not ready:
            raise HostSilentError(f"no answer for {self.silence_s:g} s")
        if errors in ready and (said := os.read(errors.fileno(), 1 << 16)):
            self._errors = (self._errors + said)[-4096:]
        elif output in ready:
            self._take(output, errors)

    def _take(self, output: IO[bytes], errors: IO[bytes]) -> None:
        said = os.read(output.fileno(), 1 << 16)
        if not said:
            self._errors += _drain(errors)
            raise HostSilentError(explain_end(self.process.wait(), self._errors.decode(errors="replace")))
        self._buffer += said


def _drain(errors: IO[bytes]) -> bytes:
    """What is left on a stream, without waiting longer than a moment for it."""
    found = b""
    while select.select([errors], [], [], 1.0)[0] and (said := os.read(errors.fileno(), 1 << 16)):
        found += said
    return found[-4096:]


def explain_end(code: int, errors: str) -> str:
    """Why a program ended without an answer: the last thing that ssh, the shell or Python said, and the code."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = lines[-1][:200] if lines else "nothing was said"
    if code == SSH_FAILED:
        return said if said.startswith("ssh:") else f"ssh: {said}"
    if code in (126, 127):
        return f"no Python at {sys.executable}: {said}"
    return f"{said} (exit code {code})"
