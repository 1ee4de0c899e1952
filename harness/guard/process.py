"""The guardian of one rank: a process beside it that lives as long as it does. Started by `harness.guard.rank`.

    rank ── marks in shared memory, pidfd, /proc ──► its guardian ── reports ──► rank 0's guardian
      ▲                                                  │  ▲                          │
      └── stop, end ─────────────────────────────────────┘  └── verdict, stop ─────────┘

It heeds no signal that ends a launch: it ends when its rank does, or ends it.
"""

from __future__ import annotations

import hmac
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from harness.guard.board import BoardFile
from harness.guard.ending import end_process, print_line, record_end, write_all
from harness.guard.hub import Hub
from harness.guard.observe import (
    Watched,
    ask_for_stacks,
    describe_death,
    read_exit_status,
    read_main_thread,
    read_parent,
    read_state,
)
from harness.guard.reach import FirstHost
from harness.guard.verdict import LOST_CODE, Limits, Report, Verdict, judge_silence
from harness.guard.wire import Channel, Message

CONNECT_TIMEOUT_S = 10.0
LAST_WAIT_S = 60.0
"""Seconds that rank 0's guardian stays for the others after its rank has ended well."""


class Guardian:
    """Watches one rank, and tells rank 0's guardian.

    Args:
        channel: To the rank.
        board: What the rank shows.
        stacks: Descriptor of the file that its stacks go to.
        about: What the rank says about itself at the start.
        heard: What else it has said since.
    """

    def __init__(
        self, channel: Channel, board: BoardFile, stacks: int, about: Message, heard: list[Message]
    ) -> None:
        self.heard = heard
        self.channel, self.board, self.stacks_file = channel, board, stacks
        self.rank, self.host, self.pid = int(about["rank"]), str(about["host"]), int(about["pid"])
        self.launcher: int | None = about["launcher"]
        self.size, self.host_names = int(about["size"]), list(about["host_names"])
        self.run_dir = Path(about["run_dir"])
        self.launch_dir = Path(about["launch_dir"]) if about["launch_dir"] else None
        self.limits = Limits(**about["limits"])
        self.process = os.pidfd_open(self.pid)
        self.watched = Watched(2 * self.limits.interval_s)
        self.hub: Hub | None = Hub(self.limits, self.obey)
        self.hub.take_in(self.rank, self.name_host(self.rank, self.host), None)
        self.to_hub: Channel | None = None
        self.first_host: FirstHost | None = None
        if about["first_host"]:
            address, port = about["first_host"]
            self.first_host = FirstHost(address, port, 2 * self.limits.interval_s)
        self.hub_silent_s = 0.0
        self.trip_s: float | None = None
        self.listening: socket.socket | None = None
        self.token = ""
        self.unknown: dict[Channel, float] = {}
        self.died: str | None = None
        self.ended: int | None = None
        self.gone_s: float | None = None
        self.stacks = ""

    def name_host(self, rank: int, host: str) -> str:
        """A rank's host as the hostfile names it, or as it calls itself."""
        return self.host_names[rank] if rank < len(self.host_names) else host

    def run(self) -> None:
        """Watch until the rank has ended."""
        last_s, sent_s = time.monotonic(), float("-inf")
        while not self.is_done():
            news = self.wait()
            now_s = time.monotonic()
            passed_s, last_s = min(now_s - last_s, 2 * self.limits.interval_s), now_s
            self.read_rank()
            if news or now_s - sent_s >= self.limits.interval_s:
                self.look(now_s)
                self.report(now_s)
                sent_s = now_s
            if self.hub is not None:
                self.serve(now_s, passed_s)
                self.ask_first_host(passed_s)
            else:
                self.heed_hub(passed_s)

    def wait(self) -> bool:
        """Wait for news for an interval. Returns whether the rank has any."""
        members = self.hub.members.values() if self.hub is not None else ()
        channels = [*self.unknown, *(one.channel for one in members if one.channel)]
        channels += [self.to_hub] if self.to_hub is not None else []
        readable: list[int] = [one.fileno() for one in channels if not one.closed]
        readable += [self.listening.fileno()] if self.listening is not None else []
        own = [] if self.channel.closed else [self.channel.fileno()]
        own += [self.process] if self.gone_s is None else []
        ready, _, _ = select.select([*readable, *own], [], [], self.limits.interval_s)
        return any(one in own for one in ready)

    def read_rank(self) -> None:
        """What the rank says."""
        self.heard, messages = [], [*self.heard, *self.channel.receive()]
        for message in messages:
            if message["kind"] == "listen":
                self.channel.send({"kind": "answer", **self.listen(message)})
            elif message["kind"] == "connect":
                self.channel.send({"kind": "answer", **self.connect(message)})
            elif message["kind"] == "stop":
                self.tell_hub(message)
            elif message["kind"] == "ended":
                self.ended = int(message["code"])

    def look(self, now_s: float) -> None:
        """Look at the rank from outside."""
        board = self.board.read()
        self.watched.look(now_s, board, read_state(self.pid))
        if self.gone_s is None and select.select([self.process], [], [], 0)[0]:
            how = describe_death(read_exit_status(self.pid, self.process))
            self.gone_s = now_s
            self.read_rank()  # its last words may have come meanwhile
            self.died = how if self.ended is None else None
        is_orphan = self.launcher is not None and read_parent(self.pid) not in (None, self.launcher)
        if self.gone_s is None and is_orphan:
            self.died = self.died or "has lost its launcher (DeepSpeed's on that host was killed)"

    def report(self, now_s: float) -> None:
        """Tell the hub."""
        board = self.watched.board
        assert board is not None
        self.tell_hub(
            {
                "kind": "report",
                "phase": board.phase_name,
                "step": board.step,
                "steps_here": board.steps_here,
                "beats": board.beats,
                "waiting": board.waiting,
                "step_s": board.step_s,
                "measured_steps": board.measured_steps,
                "busy_s": board.busy_s,
                "idle_s": self.watched.idle_s,
                "stopped_s": self.watched.stopped_s,
                "died": self.died,
                "ended": self.ended,
                "sent_s": now_s,
                "trip_s": self.trip_s,
            }
        )

    def tell_hub(self, message: Message) -> None:
        """Send a message to the hub, wherever it is."""
        if self.hub is not None:
            self.hub.hear(self.rank, message, time.monotonic())
        elif self.to_hub is not None:
            self.to_hub.send(message)

    def listen(self, message: Message) -> Message:
        """Take in other guardians from now on."""
        self.token = message["token"]
        try:
            self.listening = socket.create_server((message["address"], 0))
        except OSError:
            self.listening = socket.create_server(("", 0))  # the address is another name of this host
        self.listening.setblocking(False)
        return {"port": self.listening.getsockname()[1]}

    def connect(self, message: Message) -> Message:
        """Follow rank 0's hub from now on."""
        try:
            connection = socket.create_connection((message["address"], message["port"]), CONNECT_TIMEOUT_S)
        except OSError as error:
            return {"error": f"{message['address']}:{message['port']}: {error}"}
        self.to_hub, self.hub = Channel(connection), None
        if self.first_host is not None:
            self.first_host.close()
        self.to_hub.send({"kind": "hello", "token": message["token"], "rank": self.rank, "host": self.host})
        return {}

    def serve(self, now_s: float, passed_s: float) -> None:
        """Be the hub: hear the others, and decide."""
        assert self.hub is not None
        self.accept(now_s)
        self.hub.pass_time(passed_s)
        for rank, member in list(self.hub.members.items()):
            for message in member.channel.receive() if member.channel is not None else ():
                self.hub.hear(rank, message, now_s)
        self.hub.decide(now_s)

    def accept(self, now_s: float) -> None:
        """Let in guardians that know the token; drop who does not, or does not say."""
        if self.listening is not None:
            with suppress(BlockingIOError):
                self.unknown[Channel(self.listening.accept()[0])] = now_s
        for channel, since_s in list(self.unknown.items()):
            messages = channel.receive()
            if messages and self.admit(channel, messages[0]):
                del self.unknown[channel]
                for message in messages[1:]:
                    assert self.hub is not None
                    self.hub.hear(int(messages[0]["rank"]), message, now_s)
            elif messages or channel.closed or now_s - since_s > CONNECT_TIMEOUT_S:
                del self.unknown[channel]
                channel.close()

    def admit(self, channel: Channel, hello: Message) -> bool:
        """Whether a guardian is one of ours; then it is a member."""
        assert self.hub is not None
        rank, host, token = hello.get("rank"), hello.get("host"), hello.get("token")
        if not hmac.compare_digest(str(token).encode(), self.token.encode()) or not isinstance(rank, int):
            return False
        if not 0 < rank < self.size or rank in self.hub.members:
            return False
        self.hub.take_in(rank, self.name_host(rank, str(host)), channel)
        return True

    def ask_first_host(self, passed_s: float) -> None:
        """Until rank 0's guardian is known: end this rank where rank 0's host is gone."""
        if self.first_host is None or self.gone_s is not None or self.ended is not None:
            return
        self.first_host.look(passed_s)
        if self.first_host.is_lost(self.limits.min_timeout_s):
            host, silent_s = self.name_host(0, self.first_host.address), self.first_host.silent_s
            text = (
                f"rank 0's host {host} has not answered at {self.first_host.address}:{self.first_host.port} for "
                f"{silent_s:.0f} s, as {self.own_name} sees it"
            )
            self.finish(Verdict("lost", 0, host, "start", 0, silent_s, LOST_CODE, text))

    def heed_hub(self, passed_s: float) -> None:
        """Do what the hub says. Where it is not heard, rank 0's host is lost, or this one is cut off."""
        assert self.to_hub is not None
        self.hub_silent_s += passed_s
        for message in self.to_hub.receive():
            self.hub_silent_s = 0.0
            if message["kind"] == "echo":
                self.trip_s = time.monotonic() - message["sent_s"]
            else:
                self.obey(message)
        silence = Report(0, self.name_host(0, "its host"), silent_s=self.hub_silent_s)
        board = self.board.read()
        silence.phase, silence.step = board.phase_name, board.step
        if self.to_hub.closed and self.ended is None:
            silence.died = "is gone with its guardian"
            text = f"{silence.name} {silence.died} ({silence.doing}), as {self.own_name} sees it"
            self.finish(Verdict("lost", 0, silence.host, silence.phase, silence.step, 0.0, LOST_CODE, text))
        elif self.hub_silent_s >= self.limits.min_timeout_s:
            self.finish(judge_silence([silence], [silence]))

    @property
    def own_name(self) -> str:
        """As in "rank 1 on node2"."""
        return f"rank {self.rank} on {self.host}"

    def obey(self, message: Message) -> None:
        """Do what the hub says."""
        if message["kind"] == "dump":
            self.stacks = ask_for_stacks(self.pid, self.stacks_file)
            where, in_collective = read_main_thread(self.stacks)
            self.tell_hub({"kind": "stacks", "where": where, "in_collective": in_collective})
        elif message["kind"] == "verdict":
            self.finish(Verdict.from_json(message["verdict"]))
        else:
            self.channel.send(message)

    def finish(self, verdict: Verdict) -> None:
        """End the rank with a verdict, and this process."""
        is_hub = self.hub is not None
        if self.gone_s is None and verdict.kind != "stopped":
            self.stacks = ask_for_stacks(self.pid, self.stacks_file) or self.stacks
        if is_hub:
            print_line(
                f"error: {verdict.kind}: {verdict.message}; every rank ends with exit code {verdict.exit_code}"
            )
        self.channel.send({"kind": "end", "verdict": verdict.to_json()})
        if self.gone_s is not None or end_process(self.pid, self.process):
            code = verdict.exit_code if self.ended is None else self.ended
            record_end(self.launch_dir, self.rank, code)
        launch_dir = self.launch_dir
        if verdict.kind != "stopped":
            write_all(verdict, self.stacks, self.run_dir, launch_dir, self.rank, is_final=is_hub)
        os._exit(0)

    def is_done(self) -> bool:
        """Whether the rank has ended as it said, and nobody needs this process."""
        if self.gone_s is None or self.ended is None:
            return False
        if self.hub is None or time.monotonic() - self.gone_s > LAST_WAIT_S:
            return True
        others = [one for rank, one in self.hub.members.items() if rank != self.rank]
        return all(one.report.ended is not None for one in others)


def main() -> None:
    """Entry point: the descriptors of the channel, the board and the stacks are the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel_file, board_file, stacks_file = map(int, sys.argv[1:4])
    channel = Channel(socket.socket(fileno=channel_file))
    messages: list[Message] = []
    while not messages and not channel.closed:
        select.select([channel.fileno()], [], [], 1.0)
        messages = channel.receive()
    if messages:
        Guardian(channel, BoardFile(board_file), stacks_file, messages[0], messages[1:]).run()


if __name__ == "__main__":
    main()
