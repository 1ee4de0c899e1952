"""What the hosts of a hostfile must be for a start: names, answers over ssh, addresses, ports, devices."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cluster import keeper
from harness.cluster.hostfile import Hostfile
from harness.cluster.remote import run_everywhere
from preprocess.errors import ConfigError, PreflightError

PROBE_TIMEOUT_S = 20.0
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}|localhost(\..*)?", re.IGNORECASE)
# What passes unchanged through DeepSpeed's unquoted command line, pdsh's % sequences and a shell.
_SAFE_TEXT = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def needs_ssh(hostfile: Hostfile) -> bool:
    """Whether the ranks are started over ssh: always, except on this machine alone."""
    return len(hostfile.hosts) > 1 or not is_local(hostfile.hosts[0].name)


def resolve(name: str) -> set[str]:
    """The IPv4 addresses of a host name as this machine knows it; empty for one that only ssh knows."""
    try:
        found = socket.getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(info[4][0]) for info in found}


def is_local(name: str) -> bool:
    """Whether a host name is this machine: only a local address can be bound to."""
    return any(_can_bind(address) for address in resolve(name))


def _can_bind(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def check_names(hostfile: Hostfile) -> None:
    """Refuse names that mean another machine on each host, or two names for one machine.

    Raises:
        PreflightError: Several hosts, and one is the loopback, or two have an address in common.
    """
    if len(hostfile.hosts) == 1:
        return
    seen: dict[str, str] = {}
    for host in hostfile.hosts:
        if _LOOPBACK.fullmatch(host.name):
            raise PreflightError(
                f"{hostfile.path}:{host.line}: {host.name} is each host's name for itself; in a hostfile of several "
                "hosts write the name that the others know this host by"
            )
        # Debian gives a machine's own name 127.0.1.1: it is this machine, under any of its names.
        keys = {"this machine"} if is_local(host.name) else resolve(host.name)
        for key in keys:
            if key in seen:
                raise PreflightError(
                    f"{hostfile.path}:{host.line}: {host.name} and {seen[key]} are the same machine ({key}); "
                    "its ranks would share devices. Write it once with all its slots"
                )
            seen[key] = host.name


def check_hosts(hostfile: Hostfile) -> None:
    """Check that every host answers over ssh and has this Python and this working folder under the same paths.

    DeepSpeed checks the first host alone, and then waits half an hour for the ranks of a host that is down.

    Raises:
        PreflightError: With one line for each host that failed.
    """
    failures = find_failing_hosts(hostfile.names)
    if failures:
        lines = "\n".join(f"  {host}: {said}" for host, said in failures.items())
        raise PreflightError(
            f"{len(failures)} of {len(hostfile.hosts)} hosts cannot take part; nothing was started:\n{lines}\n"
            "Each host must answer `ssh HOST true` without a question and have the same Python and project paths"
        )


def find_failing_hosts(names: Sequence[str]) -> dict[str, str]:
    """The hosts that cannot take part, each with what it or ssh said.

    Raises:
        PreflightError: There is no pdsh.
        ConfigError: The path of Python or of the working folder cannot pass through a shell.
    """
    if shutil.which("pdsh") is None:
        raise PreflightError(
            "pdsh is not installed, and other hosts are started through it; "
            "install it here (Debian: `apt install pdsh`), or use a hostfile with localhost alone"
        )
    paths = [sys.executable, os.getcwd(), str(Path(keeper.__file__).resolve())]
    check_shell_safe(paths)
    python, folder, program = map(shlex.quote, paths)
    script = (
        f"test -x {python} || {{ echo no Python at {python}; exit 3; }}; "
        f"test -d {folder} || {{ echo no folder {folder}; exit 3; }}; "
        f"test -r {program} || {{ echo no harness at {program}; exit 3; }}"
    )
    return run_everywhere(script, names, PROBE_TIMEOUT_S)


def check_shell_safe(arguments: Sequence[str]) -> None:
    """Refuse what a shell on another host would change.

    Raises:
        ConfigError: Names the argument.
    """
    for argument in arguments:
        if not _SAFE_TEXT.fullmatch(argument):
            raise ConfigError(
                f"{argument!r} would pass through a shell on other hosts, which changes blanks and special "
                'characters; use letters, digits and "_@+=:,./-" only'
            )


def check_port(port: int | None) -> None:
    """Refuse a number that is no port.

    Raises:
        PreflightError: With what was got.
    """
    if port is not None and not 1 <= port <= 65535:
        raise PreflightError(f"got port {port}, expected 1 to 65535")


def choose_address(first: str, listed: Sequence[str]) -> str:
    """The address under which the other hosts reach the first host.

    What its name resolves to here, if the host lists that address as its own; else the first address that it lists.
    Debian's 127.0.1.1 for a machine's own name is neither.

    Args:
        first: Name of the first host.
        listed: What `hostname -I` says there.

    Raises:
        PreflightError: It lists none that others could reach.
    """
    own = [address for address in listed if "." in address and not _LOOPBACK.fullmatch(address)]
    known = [address for address in own if address in resolve(first)]
    if not own:
        raise PreflightError(
            f"{first}: it has no IPv4 address that other hosts could reach (`hostname -I` there lists none but the "
            "loopback); pass --master-addr"
        )
    return (known or own)[0]


def choose_devices(hostfile: Hostfile, environment: Mapping[str, str]) -> list[int] | None:
    """The device numbers in CUDA_VISIBLE_DEVICES for a local launch, or None when it does not restrict.

    With a hostfile, DeepSpeed ignores the variable and takes the devices 0 to slots - 1.

    Raises:
        PreflightError: The variable and the slots contradict each other.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
    if not text or environment.get("DS_ACCELERATOR") == "cpu":
        return None
    shown = [entry.strip() for entry in text.split(",")]
    slots = hostfile.hosts[0].slots
    if not all(re.fullmatch("[0-9]{1,3}", entry) for entry in shown):
        raise PreflightError(f"CUDA_VISIBLE_DEVICES={text}: expected device numbers, as in 0,1")
    if len(set(shown)) != slots:
        raise PreflightError(
            f"CUDA_VISIBLE_DEVICES={text} shows {len(set(shown))} devices, {hostfile.path} asks for {slots} slots; "
            "make them agree, or unset the variable"
        )
    return sorted(int(entry) for entry in shown)
