"""The hosts of a run: a strict reader of DeepSpeed's hostfile.

DeepSpeed's own reader takes `slots=2x` as 2, accepts `slots=0`, keeps a byte order mark in the name, hands a
name that begins with "-" to ssh as an option, and runs on one machine when the file is missing. This one
refuses all of that with the number of the line, and writes a plain file that DeepSpeed reads as it is meant.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import PreflightError

MAX_SLOTS = 1024
"""More ranks than any host has devices: a larger number is a slip of the keyboard."""

_MAX_NAME_LENGTH = 253  # RFC 1035, section 2.3.4, written without the last dot
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SLOTS = re.compile(r"slots=([0-9]+)")
_EXAMPLE = 'expected "NAME slots=N", as in "node1 slots=2"'


@dataclass(frozen=True, slots=True)
class Host:
    """One host.

    Attributes:
        name: Host name or IPv4 address, as written.
        slots: Number of ranks to start there, at least 1.
        line: Line of the hostfile it stands on, counted from 1.
    """

    name: str
    slots: int
    line: int


@dataclass(frozen=True, slots=True)
class Hostfile:
    """The hosts in order of rank: the first host has rank 0.

    Attributes:
        hosts: At least one host; no name twice.
        path: The file it was read from.
    """

    hosts: tuple[Host, ...]
    path: Path

    @property
    def world_size(self) -> int:
        """Number of ranks on all hosts."""
        return sum(host.slots for host in self.hosts)

    @property
    def names(self) -> tuple[str, ...]:
        """The host names in order of rank."""
        return tuple(host.name for host in self.hosts)


def parse_hostfile(path: Path | str) -> Hostfile:
    """Read a hostfile strictly.

    A line is `NAME slots=N`; empty lines, tabs, a byte order mark, CRLF line ends and comments (a whole line,
    or after a blank) are accepted.

    Raises:
        PreflightError: The file is missing, unreadable or empty, or a line is malformed or repeats a host. In
            the latter cases the message begins with `path:line`.
    """
    path = Path(path)
    hosts: dict[str, Host] = {}
    for number, text in enumerate(_read_text(path).split("\n"), start=1):
        entry = re.sub(r"(^|\s)#.*", "", text).strip()
        if not entry:
            continue
        try:
            host = _parse_entry(entry, number)
            earlier = hosts.setdefault(host.name.lower(), host)
            if earlier is not host:
                raise ValueError(
                    f'host "{host.name}" stands on line {earlier.line} already; '
                    "write each host once with all its slots"
                )
        except ValueError as error:
            raise PreflightError(f"{path}:{number}: {error}") from None
    if not hosts:
        raise PreflightError(f"{path}: the hostfile names no host; {_EXAMPLE}, one line a host")
    return Hostfile(tuple(hosts.values()), path)


def format_hostfile(hostfile: Hostfile) -> str:
    """The hostfile as DeepSpeed reads it: one `NAME slots=N` line a host, no comments, a last newline."""
    return "".join(f"{host.name} slots={host.slots}\n" for host in hostfile.hosts)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        message = "no such hostfile; nothing was started (one machine alone is hostfiles/local)"
    except IsADirectoryError:
        message = "this is a folder, not a hostfile"
    except UnicodeDecodeError:
        message = "the hostfile is not UTF-8 text; save it as UTF-8 or plain ASCII"
    except OSError as error:
        message = f"cannot read the hostfile: {error.strerror}"
    raise PreflightError(f"{path}: {message}")


def _parse_entry(entry: str, line: int) -> Host:
    name, *settings = entry.split()
    check_host_name(name)
    if not settings:
        raise ValueError(f'host "{name}" has no slots; {_EXAMPLE}')
    match = _SLOTS.fullmatch(settings[0]) if len(settings) == 1 else None
    if match is None:
        raise ValueError(
            f'got "{" ".join(settings)}" after host "{name}"; {_EXAMPLE}, without blanks around "="'
        )
    digits = match.group(1)
    if len(digits) > len(str(MAX_SLOTS)) or not 1 <= int(digits) <= MAX_SLOTS:
        raise ValueError(
            f'got slots={digits} for host "{name}", expected 1 to {MAX_SLOTS}; '
            "delete the line to leave the host out"
        )
    return Host(name, int(digits), line)


def check_host_name(name: str) -> None:
    """Refuse what is neither a host name nor an IPv4 address.

    The name ends up on command lines of ssh and pdsh, so this is also what keeps an option
    ("-oProxyCommand=…"), a pdsh list ("node[1-3]") or a shell command out of them.

    Raises:
        ValueError: With the reason.
    """
    if "@" in name:
        raise ValueError(
            f'"{name}" names a user; put the user into ~/.ssh/config and leave the host name here'
        )
    if ":" in name:
        raise ValueError(f'"{name}" is no host name; an IPv6 address or a port needs a name in ~/.ssh/config')
    if len(name) > _MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" is no host name; expected letters, digits, "-", "_" and ".", a letter or digit first'
        )
    if re.fullmatch(r"[0-9.]+", name):
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise ValueError(
                f'"{name}" is neither a host name nor an IPv4 address (four numbers, 0 to 255)'
            ) from None
