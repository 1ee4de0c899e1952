"""A rank that waits for rank 0 at the rendezvous: it ends where rank 0's host is gone, and only then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from harness.guard.rank import find_first_host
from harness.guard.reach import NEVER_HEARD_FACTOR, FirstHost

WAITS = """
import sys, time
from pathlib import Path
from harness.guard.rank import RankGuard
from harness.guard.verdict import Limits
RankGuard(Limits(min_timeout_s=1.0), Path(sys.argv[1]), None).start()
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which nobody listens, held so that nobody else gets it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that does not answer, as all ports of a host that is gone: its queue is full, so nothing more gets in."""
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.2)
        yield int(server.getsockname()[1])


def look_for(host: FirstHost, seconds: float) -> None:
    """Look as a guardian does, ten times a second, as if each time had been a second."""
    for _ in range(round(seconds)):
        time.sleep(0.02)
        host.look(1.0)


def test_a_port_that_refuses_and_one_that_listens_are_signs_of_life(port: int) -> None:
    refusing = FirstHost("127.0.0.1", port, 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = FirstHost("127.0.0.1", server.getsockname()[1], 2.0)
        for host in (refusing, listening):
            with closing(host):
                look_for(host, 40)
            assert host.heard
            assert host.silent_s <= 5.0
            assert not host.is_lost(10.0)


def test_a_host_that_never_answered_gets_longer_than_one_that_fell_silent(dead_port: int) -> None:
    with closing(FirstHost("127.0.0.1", dead_port, 2.0)) as host:
        look_for(host, 25)
        assert host.silent_s == 25.0
        assert not host.heard
        assert not host.is_lost(10.0)
        look_for(host, 10 * NEVER_HEARD_FACTOR - 25)
        assert host.is_lost(10.0)
    host.heard, host.silent_s = True, 10.0
    assert host.is_lost(10.0)


def test_a_name_that_cannot_be_resolved_is_silence_and_no_error() -> None:
    with closing(FirstHost("no.such.host.invalid", 29500, 2.0)) as host:
        look_for(host, 3)
    assert (host.silent_s, host.heard) == (3.0, False)


def test_only_ranks_that_wait_for_rank_0_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert find_first_host(2) == ("node1", 29500)
    assert find_first_host(0) is None
    monkeypatch.setenv("MASTER_PORT", "")
    assert find_first_host(2) is None


def wait_as_rank_1(folder: Path, address: str, port: int, seconds: float) -> subprocess.CompletedProcess[str]:
    """A rank that waits for so long, and whose guardian hears of nobody."""
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": address, "MASTER_PORT": str(port)}
    return subprocess.run(
        [sys.executable, "-c", WAITS, str(folder), str(seconds)],
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_rank_ends_where_the_first_host_is_gone_before_they_have_met(
    tmp_path: Path, dead_port: int
) -> None:
    done = wait_as_rank_1(tmp_path, "127.0.0.1", dead_port, 60)
    assert done.returncode == 6, done.stderr
    assert '"host": "127.0.0.1"' in (tmp_path / "logs" / "verdict.json").read_text()


def test_a_rank_waits_on_where_the_first_host_is_there_and_not_ready(tmp_path: Path, port: int) -> None:
    done = wait_as_rank_1(tmp_path, "127.0.0.1", port, 6)
    assert done.returncode == 0, done.stderr
