"""Which of its addresses and interfaces this process talks to others through; Linux, standard library."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_ESTABLISHED = "01"
_SIOCGIFADDR = 0x8915
"""ioctl of netdevice(7): the IPv4 address of an interface."""


def find_used_addresses(without_ports: Collection[int]) -> list[dict[str, str]]:
    """Own address and interface of this process's TCP connections.

    Args:
        without_ports: Connections from or to these ports do not count, as the rendezvous.

    Returns:
        {"address", "interface"} each once. Empty where nothing goes over TCP, as with InfiniBand.
    """
    interfaces = list_interfaces()
    own = _own_sockets()
    found: dict[str, str] = {}
    for local, remote, inode in _list_connections():
        if inode in own and not {local[1], remote[1]} & set(without_ports):
            found[local[0]] = interfaces.get(local[0], "unknown")
    return [{"address": address, "interface": name} for address, name in sorted(found.items())]


def list_interfaces() -> dict[str, str]:
    """Names of the interfaces by their IPv4 address."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found[socket.inet_ntoa(answer[20:24])] = name
    return found


def _own_sockets() -> set[str]:
    """Inodes of this process's sockets (proc(5), /proc/self/fd)."""
    inodes = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/self/fd/{entry}"))
            if match:
                inodes.add(match.group(1))
    return inodes


def _list_connections() -> list[tuple[tuple[str, int], tuple[str, int], str]]:
    """Local end, remote end and inode of each established IPv4 connection, of IPv6 sockets too (proc(5))."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
                cells = line.split()
                if cells[3] == _ESTABLISHED:
                    found.append((_read_end(cells[1]), _read_end(cells[2]), cells[9]))
    return found


def _read_end(text: str) -> tuple[str, int]:
    """Address and port of "0100007F:1F90"; of an IPv6 address that stands for an IPv4 one its last four bytes."""
    address, port = text.split(":")
    return socket.inet_ntoa(struct.pack("<I", int(address[-8:], 16))), int(port, 16)
