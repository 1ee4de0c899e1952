"""A rank's side of the guard: start the guardian, join the others, heed signals, end when told."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex
from typing import Any

from harness.cluster.hostfile import parse_hostfile
from harness.cluster.outcome import launch_dir_from_environment, record_exit
from harness.config import RunConfig
from harness.guard.board import BoardFile
from harness.guard.ending import VERDICT_FILE, print_line
from harness.guard.marks import MARKS
from harness.guard.verdict import Limits, Verdict
from harness.guard.wire import Channel, Message
from preprocess.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]
_GUARDIAN = ["-S", "-m", "harness.guard.process"]
_ANSWER_TIMEOUT_S = 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RankGuard:
    """What a rank has of its guard; a rank alone has the signals only, for nobody waits for it.

    Args:
        limits: When to raise an alarm, or None to start no guardian.
        run_dir: The run's folder.
        launch_dir: The launch's folder, or None.
    """

    def __init__(self, limits: Limits | None, run_dir: Path, launch_dir: Path | None) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.limits, self.run_dir, self.launch_dir = limits, run_dir, launch_dir
        self.channel: Channel | None = None
        self.settling = False
        self._num_interrupts = 0
        self._answers: list[Message] = []
        self._news = threading.Condition()
        self._verdict: Verdict | None = None
        self._let_go = False
        self._board: BoardFile | None = None
        self._stacks = -1
        self._guardian: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Heed signals from now on, and start the guardian where others would wait for this rank."""
        self._wakeup, sender = socket.socketpair()
        sender.setblocking(False)
        self._wakeup_sender = sender
        # The number is written to the socket at once, also while the main thread is in a collective.
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        if self.limits is not None and self.size > 1 and sys.platform == "linux":
            self._start_guardian(self.limits)
        threading.Thread(target=self._listen, name="guard", daemon=True).start()

    def _start_guardian(self, limits: Limits) -> None:
        if self.rank == 0 or os.environ.get("LOCAL_RANK") == "0":
            with suppress(OSError):
                (self.run_dir / "logs" / VERDICT_FILE).unlink()  # of the run before
        self._board, self._stacks = BoardFile(), os.memfd_create("guard-stacks")
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)
        own, theirs = socket.socketpair()
        files = (theirs.fileno(), self._board.descriptor, self._stacks)
        self._guardian = subprocess.Popen(
            [sys.executable, *_GUARDIAN, *map(str, files)],
            pass_fds=files,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.channel = Channel(own)
        self.channel.send(
            {
                "rank": self.rank,
                "size": self.size,
                "pid": os.getpid(),
                # DeepSpeed's launcher of this host, which would end the ranks if it could; others may leave them.
                "launcher": os.getppid() if "CROSS_RANK" in os.environ else None,
                "host": describe_host(),
                "host_names": name_hosts(self.launch_dir, self.size),
                "run_dir": str(self.run_dir.absolute()),
                "launch_dir": None if self.launch_dir is None else str(self.launch_dir),
                "limits": asdict(limits),
                "first_host": find_first_host(self.rank),
            }
        )
        MARKS.show_on(self._board)

    def connect(self, gather: Callable[[Any], list[Any]]) -> str | None:
        """Join the guardians of all ranks, once the process group is there; every rank calls this.

        Args:
            gather: Gives the values of all ranks in order of rank, on every rank.

        Returns:
            What to warn of, or None.
        """
        if self.limits is None or self.size == 1:
            return None
        offer: Message | None = None
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        if self.rank == 0 and self.channel is not None:
            offer = {"address": address, "token": token_hex(32)}
            place = self._ask({"kind": "listen", **offer})
            offer = None if "error" in place else {**offer, **place}
        first = gather(offer)[0]
        answer: Message = {} if self.rank == 0 else {"error": "no guardian"}
        if self.rank and first is not None and self.channel is not None:
            answer = self._ask({**first, "kind": "connect"})
        errors = [found.get("error") for found in gather(answer)]
        missing = [str(rank) for rank, error in enumerate(errors) if error]
        if not missing:
            return None
        why = next(error for error in errors if error)
        return (
            f"the guardians of rank {', '.join(missing)} do not reach rank 0's ({why}): if they or their hosts hang or "
            "vanish, it takes the collectives' own timeout to notice. Open ports between the hosts, as collectives need"
        )

    def _ask(self, message: Message) -> Message:
        assert self.channel is not None
        self.channel.send(message)
        with self._news:
            if not self._news.wait_for(lambda: self._answers, _ANSWER_TIMEOUT_S):
                return {"error": "no answer of the own guardian"}
            return self._answers.pop()

    def settle(self, code: int) -> None:
        """Before this rank ends with an error: hear whether another rank is the cause, and then end with its code.

        Returns when the error is this rank's own, or everybody's, or nobody answers.
        """
        if self.channel is None or self.limits is None:
            return
        self.settling = True
        self.channel.send({"kind": "ended", "code": code})
        with self._news:
            self._news.wait_for(
                lambda: self._verdict is not None or self._let_go,
                self.limits.min_timeout_s + _ANSWER_TIMEOUT_S,
            )
        if self._verdict is not None and self._verdict.rank != self.rank:
            self.end(self._verdict.exit_code)

    def leave(self) -> None:
        """Say that this rank ends well."""
        if self.channel is not None:
            self.channel.send({"kind": "ended", "code": 0})

    def end(self, code: int) -> None:
        """End this process now, whatever its main thread is in."""
        record_exit(self.launch_dir, self.rank, code)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _listen(self) -> None:
        """The guard's thread: signals, and what the guardian says."""
        while True:
            channel = None if self.channel is None else self.channel.fileno()
            files = [self._wakeup.fileno(), *([] if channel is None else [channel])]
            ready, _, _ = select.select(files, [], [])
            if self._wakeup.fileno() in ready:
                for number in self._wakeup.recv(64):
                    self._heed_signal(number)
            if self.channel is not None and channel in ready:
                for message in self.channel.receive():
                    self._heed(message)
                if self.channel.closed and not self.settling:
                    print_line(f"error: the guardian of rank {self.rank} is gone; the rank ends with it")
                    self.end(6)
                elif self.channel.closed:
                    self._tell(let_go=True)
                    self.channel = None

    def _heed_signal(self, number: int) -> None:
        if number not in _SIGNALS:
            return
        self._num_interrupts += number == signal.SIGINT
        if self._num_interrupts > 1:
            self.end(128 + signal.SIGINT)
        if MARKS.stop and number != signal.SIGINT:
            return
        MARKS.stop = number
        stepping = MARKS.is_stepping()
        if self.channel is not None:
            self.channel.send({"kind": "stop", "signal": number, "stepping": stepping})
        elif not stepping:
            name = signal.Signals(number).name
            print_line(f"error: stopped by {name} before the first step; there is nothing to save yet")
            self.end(128 + number)

    def _heed(self, message: Message) -> None:
        if message["kind"] == "answer":
            with self._news:
                self._answers.append(message)
                self._news.notify()
        elif message["kind"] == "stop":
            MARKS.stop = MARKS.stop or message["signal"]
        elif message["kind"] == "slow":
            MARKS.put_event(message["event"])
        elif message["kind"] == "go":
            self._tell(let_go=True)
        elif message["kind"] == "end":
            verdict = Verdict.from_json(message["verdict"])
            if not self.settling:
                self.end(verdict.exit_code)
            self._tell(verdict=verdict)

    def _tell(self, *, verdict: Verdict | None = None, let_go: bool = False) -> None:
        with self._news:
            self._verdict, self._let_go = self._verdict or verdict, self._let_go or let_go
            self._news.notify()


def start_guard(config: RunConfig) -> RankGuard:
    """Guard this rank from now on; call it in the main thread, before the process group is joined."""
    settings = config.guard
    limits = Limits(settings.min_timeout_s, settings.factor, settings.startup_timeout_s, settings.slow_factor)
    guard = RankGuard(limits if settings.enabled else None, config.output_dir, launch_dir_from_environment())
    guard.start()
    return guard


def find_first_host(rank: int) -> tuple[str, int] | None:
    """Address and port of the rendezvous, for the ranks that wait there for rank 0."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    return (address, int(port)) if rank and address and port.isdecimal() else None


def describe_host() -> str:
    """This host's name, and the address that it has towards rank 0."""
    name, master = socket.gethostname(), os.environ.get("MASTER_ADDR", "127.0.0.1")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((master, 9))  # sends nothing
            address = str(probe.getsockname()[0])
    except OSError:
        return name
    return name if address.startswith("127.") else f"{name} ({address})"


def name_hosts(launch_dir: Path | None, size: int) -> list[str]:
    """Each rank's host as the launch's hostfile names it, in order of rank; empty where that is not known."""
    try:
        hosts = parse_hostfile(launch_dir / "hostfile").hosts if launch_dir is not None else ()
    except UserError:
        return []
    names = [host.name for host in hosts for _ in range(host.slots)]
    return names if len(names) == size or len(hosts) == 1 else []
