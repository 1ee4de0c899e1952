"""Whether rank 0's host answers at all, asked from the start on until its guardian is known.

Until then a rank waits for rank 0 at the rendezvous, half an hour if it must, and nobody else would tell that the host
is gone. A port that refuses a connection is a sign of life too. Only the standard library is imported.
"""

from __future__ import annotations

import errno
import select
import socket
from contextlib import suppress

PROBE_S = 3.0
"""Seconds that one attempt gets."""

NEVER_HEARD_FACTOR = 3
"""A host that has not answered yet may have a firewall that opens late: it gets so many times the limit."""


class FirstHost:
    """Asks rank 0's host for a sign of life, without ever waiting for it.

    Args:
        address: Of the rendezvous.
        port: Its port, which rank 0 opens some time after it has started.
        pause_s: Seconds between an attempt and the next one; far below what counts as lost.

    Attributes:
        silent_s: Seconds without an answer.
        heard: Whether there was one at all.
    """

    def __init__(self, address: str, port: int, pause_s: float) -> None:
        self.address, self.port, self.pause_s = address, port, pause_s
        self.silent_s, self.heard = 0.0, False
        self._probe: socket.socket | None = None
        self._probe_s = 0.0
        self._rest_s = 0.0

    def look(self, passed_s: float) -> None:
        """Go on asking.

        Args:
            passed_s: Seconds since the last look, without those in which this process stood still.
        """
        self.silent_s += passed_s
        self._rest_s -= passed_s
        if self._probe is None and self._rest_s <= 0:
            self._begin()
        elif self._probe is not None:
            self._probe_s += passed_s
            if select.select([], [self._probe], [], 0)[1]:
                self._end(self._probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            elif self._probe_s >= PROBE_S:
                self._end(errno.ETIMEDOUT)

    def is_lost(self, limit_s: float) -> bool:
        """Whether it has been silent for too long."""
        return self.silent_s >= limit_s * (1 if self.heard else NEVER_HEARD_FACTOR)

    def close(self) -> None:
        """Ask no more."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _begin(self) -> None:
        self._probe_s = 0.0
        with suppress(OSError):  # a name that cannot be resolved is no sign of life
            family, kind, protocol, _, place = socket.getaddrinfo(
                self.address, self.port, type=socket.SOCK_STREAM
            )[0]
            self._probe = socket.socket(family, kind, protocol)
            self._probe.setblocking(False)
            code = self._probe.connect_ex(place)
            if code != errno.EINPROGRESS:
                self._end(code)

    def _end(self, code: int) -> None:
        self.close()
        self._rest_s = self.pause_s
        if code in (0, errno.ECONNREFUSED):
            self.silent_s, self.heard = 0.0, True
