"""The hosts of a run: a strict reader of DeepSpeed's hostfile.

DeepSpeed's own reader takes `slots=2x` as 2, accepts `slots=0`, keeps a byte order mark in the name, hands a
name that begins with "-" to ssh as an option, and runs on one machine when the file is missing. This one
refuses all of that with the number of the line, and writes a plain file that DeepSpeed reads as it is meant.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import PreflightError
from preprocess.outside_text import read_limited

MAX_SLOTS = 1024
"""More ranks than any host has devices: a larger number is a slip of the keyboard."""

_MAX_BYTES = 1 << 20
"""More than the hosts of any cluster take; a larger file is some other one."""

_MAX_SHOWN_CHARS = 80
_MAX_NAME_LENGTH = 253  # RFC 1035, section 2.3.4, written without the last dot
_MAX_LABEL_LENGTH = 63
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBERS = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]*))*")
"""What resolvers take for an address: four decimal numbers, but also one, two or three, octal and hexadecimal ones."""

_SLOTS = re.compile(r"slots=([0-9]+)")
_ODD = re.compile(r"[^\x20-\x7e\t]")
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
        entry = re.sub(r"(^|[ \t])#.*", "", text.removesuffix("\r")).strip(" \t")
        if not entry:
            continue
        try:
            host = _parse_entry(entry, number)
            earlier = hosts.setdefault(_identify(host.name), host)
            if earlier is not host:
                raise ValueError(
                    f'host "{_show(host.name)}" stands on line {earlier.line} already'
                    + (f' as "{earlier.name}"' if earlier.name != host.name else "")
                    + "; write each host once with all its slots"
                )
        except ValueError as error:
            raise PreflightError(f"{path}:{number}: {error}") from None
    if not hosts:
        raise PreflightError(f"{path}: the hostfile names no host; {_EXAMPLE}, one line a host")
    return Hostfile(tuple(hosts.values()), path)


def _identify(name: str) -> str:
    """One text for all spellings of a host that can be told without asking anybody: case, and this machine's own."""
    lower = name.lower()
    if lower in ("localhost", "localhost.localdomain") or re.fullmatch(r"127(\.[0-9]+){3}", lower):
        return "localhost"
    return lower


def _show(text: str) -> str:
    """A piece of the file for a message: what is neither a letter nor a sign as an escape, cut where it is long."""
    shown = text[:_MAX_SHOWN_CHARS].encode("unicode_escape").decode("ascii").replace("\\\\", "\\")
    readable = text[:_MAX_SHOWN_CHARS] if text[:_MAX_SHOWN_CHARS].isprintable() else shown
    return readable + ("…" if len(text) > _MAX_SHOWN_CHARS else "")


def format_hostfile(hostfile: Hostfile) -> str:
    """The hostfile as DeepSpeed reads it: one `NAME slots=N` line a host, no comments, a last newline."""
    return "".join(f"{host.name} slots={host.slots}\n" for host in hostfile.hosts)


def _read_text(path: Path) -> str:
    try:
        return read_limited(path, _MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        message = "no such hostfile; nothing was started (one machine alone is hostfiles/local)"
    except IsADirectoryError:
        message = "this is a folder, not a hostfile; name the file in it"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PreflightError(
            f"{path}:{line}: the hostfile is not UTF-8 text; save it as UTF-8 or plain ASCII"
        ) from None
    except OSError as error:
        message = f"cannot read the hostfile: {error.strerror}; check the path and its permissions"
    except ValueError as error:
        message = f"no hostfile, but {error}; {_EXAMPLE}, one line a host"
    raise PreflightError(f"{path}: {message}")


def _parse_entry(entry: str, line: int) -> Host:
    if odd := _ODD.search(entry):
        sign = odd.group()
        what = unicodedata.name(
            sign, "a control character" if ord(sign) < 0xA0 else "an unassigned character"
        )
        raise ValueError(
            f'got U+{ord(sign):04X} ({what}) in "{_show(entry)}"; write names, blanks and numbers in plain ASCII'
        )
    name, *settings = entry.split()
    check_host_name(name)
    if not settings:
        raise ValueError(f'host "{_show(name)}" has no slots; {_EXAMPLE}')
    match = _SLOTS.fullmatch(settings[0]) if len(settings) == 1 else None
    if match is None:
        raise ValueError(
            f'got "{_show(" ".join(settings))}" after host "{name}"; {_EXAMPLE}, without blanks around "="'
        )
    digits = match.group(1)
    if len(digits) > len(str(MAX_SLOTS)) or not 1 <= int(digits) <= MAX_SLOTS:
        raise ValueError(
            f'got slots={_show(digits)} for host "{name}", expected 1 to {MAX_SLOTS}; '
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
    shown = _show(name)
    if "@" in name:
        raise ValueError(
            f'"{shown}" names a user; put the user into ~/.ssh/config and leave the host name here'
        )
    if ":" in name:
        raise ValueError(
            f'"{shown}" is no host name; an IPv6 address or a port needs a name in ~/.ssh/config'
        )
    if any(sign in name for sign in "[],*?{}^/"):
        raise ValueError(
            f'"{shown}" is no host name; no lists, ranges or patterns here: write one line a host'
        )
    if len(name) > 1 and name.endswith(".") and _NAME.fullmatch(name[:-1]):
        raise ValueError(f'"{shown}" is no host name here; leave the last dot out: "{_show(name[:-1])}"')
    if len(name) > _MAX_NAME_LENGTH or any(len(label) > _MAX_LABEL_LENGTH for label in name.split(".")):
        raise ValueError(
            f'"{shown}" is no host name; expected at most {_MAX_NAME_LENGTH} characters, and {_MAX_LABEL_LENGTH} '
            "between two dots"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'"{shown}" is no host name; expected letters, digits, "-", "_" and ".", a letter or digit first'
        )
    if _NUMBERS.fullmatch(name):
        _check_address(name)


def _check_address(name: str) -> None:
    try:
        address = ipaddress.IPv4Address(name)
    except ValueError:
        raise ValueError(
            f'"{_show(name)}" is neither a host name nor an IPv4 address; write its name, or four decimal numbers '
            "from 0 to 255 without leading zeros"
        ) from None
    if address.is_unspecified or address.is_multicast or address.is_reserved or name.startswith("0."):
        raise ValueError(f'"{name}" is an address that no single host has; write the address of one host')
