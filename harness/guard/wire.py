"""JSON objects, one a line, over a stream socket that is never waited for."""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_LINE_BYTES = 65536
"""A longer line is none of ours."""

Message = dict[str, Any]


class Channel:
    """One connection.

    Attributes:
        closed: Whether the other side is gone, or sends what is no message.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = b""
        self.closed = False

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message. One that finds no room breaks the connection: the other side has not read for long."""
        if self.closed:
            return
        data = json.dumps(message).encode() + b"\n"
        try:
            self.closed = self._socket.send(data) != len(data)
        except OSError:
            self.closed = True

    def receive(self) -> list[Message]:
        """The messages that have come since the last call, also those before the end."""
        while not self.closed:
            try:
                data = self._socket.recv(MAX_LINE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._received += data
            self.closed = not data
        *lines, self._received = self._received.split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            messages = [None]
        if len(self._received) > MAX_LINE_BYTES or not all(isinstance(one, dict) for one in messages):
            self.closed = True
            return []
        return messages

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._socket.close()
