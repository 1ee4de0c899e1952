"""The launcher's end of its connections to the keepers, one a host (see `harness.cluster.keeper`)."""

from __future__ import annotations

import json
import os
import queue
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cluster import keeper
from harness.cluster.remote import set_ssh_options, ssh_options

READY_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 5.0

# -S and -E: no site packages, no PYTHON* variables; the keeper needs neither and starts in 20 ms.
_KEEPER = [sys.executable, "-S", "-E", str(Path(keeper.__file__).resolve())]


@dataclass(slots=True)
class Lifeline:
    """The connection to the keeper of one host.

    Attributes:
        host: Name in the hostfile, or this machine's own name for the keeper that needs no ssh.
        process: The keeper, or the ssh that leads to it.
        answers: What it said and nobody has taken yet.
        verdict: The guardians' verdict on that host's disk, as text.
        ready: Whether it ever answered.
        ended: Whether the connection is gone.
        words: What ssh said on its standard error.
        readers: The threads that read both.
        speaking: Held while a line is sent, for two threads do.
    """

    host: str
    process: subprocess.Popen[str]
    answers: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    verdict: str | None = None
    ready: bool = False
    ended: bool = False
    words: list[str] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)
    speaking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Start to read what the keeper and ssh say."""
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self.listen, self.hear)]
        for reader in self.readers:
            reader.start()

    def listen(self) -> None:
        """Read what the keeper says, to its end."""
        with suppress(OSError, ValueError):
            for line in self.process.stdout or ():
                self._take(line)
        self.ended = True
        self.answers.put({})

    def _take(self, line: str) -> None:
        try:
            answer = json.loads(line)
        except ValueError:  # what a login script on that host prints
            self.words.append(line.strip())
            return
        if "ready" in answer:
            self.ready = True
        if "verdict" in answer:
            self.verdict = answer["verdict"]
        elif "beat" not in answer:
            self.answers.put(answer)

    def hear(self) -> None:
        """Keep the last words of ssh."""
        with suppress(OSError, ValueError):
            for line in self.process.stderr or ():
                self.words = [*self.words[-9:], line.strip()]

    def say(self, command: str) -> None:
        """Send a command; a connection that is gone shows by itself."""
        with suppress(OSError, ValueError), self.speaking:
            if self.process.stdin is not None:
                self.process.stdin.write(f"{command}\n")
                self.process.stdin.flush()

    def wait_for(self, key: str, timeout_s: float) -> Any:  # noqa: ANN401 - any JSON value
        """The keeper's next answer of that name, or None when it did not come in time."""
        deadline_s = time.monotonic() + timeout_s
        while not (self.ended and self.answers.empty()):
            try:
                answer = self.answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return None
            if key in answer:
                return answer[key]
        return None

    def close(self) -> None:
        """End the connection: the keeper sees the end of its input."""
        with suppress(OSError, ValueError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader, stream in zip(self.readers, (self.process.stdout, self.process.stderr), strict=True):
            reader.join(timeout=1)  # a connection that ssh keeps open for later commands may hold the pipe
            if stream is not None and not reader.is_alive():
                stream.close()


class Lifelines:
    """The keepers of one launch.

    Args:
        launch_id: The launch.
        launch_dir: Its folder, under the same path on every host.
        run_dir: The run's folder.
        remote_hosts: Hosts that are reached over ssh; this machine has a keeper of its own besides.
        host_timeout_s: Seconds of silence after which ssh gives a host up.
    """

    def __init__(
        self,
        launch_id: str,
        launch_dir: Path,
        run_dir: Path,
        remote_hosts: Sequence[str] = (),
        host_timeout_s: float = 30.0,
    ) -> None:
        self.arguments = [launch_id, str(launch_dir), str(run_dir)]
        self.host_timeout_s = host_timeout_s
        self.here = socket.gethostname()
        self.local = self._start(self.here, [*_KEEPER, *self.arguments])
        self.remote = {host: self._start(host, self._over_ssh(host)) for host in remote_hosts}
        self._closed = threading.Event()
        threading.Thread(target=self._beat, name="lifelines", daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(keeper.BEAT_S):
            for lifeline in self.all:
                lifeline.say("beat")

    @property
    def all(self) -> list[Lifeline]:
        """The connections, this machine's first."""
        return [self.local, *self.remote.values()]

    def _over_ssh(self, host: str) -> list[str]:
        options = ssh_options(set_ssh_options(os.environ, self.host_timeout_s))
        command = "exec " + shlex.join([*_KEEPER, *self.arguments])
        return ["ssh", "-T", "-oConnectTimeout=10", *options, "--", host, command]

    def _start(self, host: str, command: Sequence[str]) -> Lifeline:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )
        return Lifeline(host, process)

    def wait_until_ready(self) -> dict[str, str]:
        """Wait for every keeper; for each host without one, why."""
        for lifeline in self.all:
            lifeline.wait_for("ready", READY_TIMEOUT_S)
        return {
            line.host: "; ".join(line.words) or "no answer over ssh" for line in self.all if not line.ready
        }

    def broken(self) -> list[str]:
        """The hosts whose connection is gone."""
        return [lifeline.host for lifeline in self.all if lifeline.ended]

    def verdict(self) -> str | None:
        """The guardians' verdict from any host's disk, as text."""
        return next((line.verdict for line in self.all if line.verdict is not None), None)

    def find_port(self, host: str, port: int) -> int:
        """The port if it is free on a host, any free one for 0; 0 when there is none or no answer."""
        lifeline = self.remote.get(host, self.local)
        lifeline.say(f"port {port}")
        return int(lifeline.wait_for("port", ANSWER_TIMEOUT_S) or 0)

    def list_addresses(self, host: str) -> list[str]:
        """A host's own addresses; empty when it does not answer."""
        lifeline = self.remote.get(host, self.local)
        lifeline.say("addresses")
        return list(lifeline.wait_for("addresses", ANSWER_TIMEOUT_S) or [])

    def stop(self, grace_s: float) -> None:
        """Have the ranks stopped everywhere: SIGTERM now, SIGKILL after `grace_s`. Returns at once."""
        for lifeline in self.all:
            lifeline.say(f"stop {grace_s}")

    def gather(self) -> list[dict[str, Any]]:
        """Each keeper's report (`keeper.read_report`), of those that answer."""
        return [answer for answer in self._ask_all("report", "report").values() if answer is not None]

    def set_aside(self) -> None:
        """Have the metrics of the attempt before, if it saved nothing, moved away on every host."""
        self._ask_all("aside", "aside")

    def sweep(self) -> list[str]:
        """Kill what is left of the launch everywhere; a keeper that is gone gets a successor.

        Returns:
            The hosts that did not answer.
        """
        for host in [host for host, lifeline in self.remote.items() if lifeline.ended]:
            self.remote[host].close()
            self.remote[host] = self._start(host, self._over_ssh(host))
        if self.local.ended:
            self.local.close()
            self.local = self._start(self.here, [*_KEEPER, *self.arguments])
        return [host for host, answer in self._ask_all("sweep", "swept").items() if answer is None]

    def _ask_all(self, command: str, key: str) -> dict[str, Any]:
        asked = self.all
        for lifeline in asked:
            lifeline.say(command)
        return _in_time(asked, lambda lifeline, left_s: lifeline.wait_for(key, left_s))

    def close(self) -> None:
        """End the keepers."""
        self._closed.set()
        for lifeline in self.all:
            lifeline.close()


def _in_time(lifelines: Iterable[Lifeline], ask: Callable[[Lifeline, float], Any]) -> dict[str, Any]:
    """Ask each connection in turn; all together have ANSWER_TIMEOUT_S."""
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    return {line.host: ask(line, max(0.1, deadline_s - time.monotonic())) for line in lifelines}
