"""Reach other hosts: a script on all of them through pdsh, and how ssh is to be called."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

CONNECT_TIMEOUT_S = 10


def run_everywhere(script: str, hosts: Sequence[str], timeout_s: float) -> dict[str, str]:
    """Run a shell script on several hosts at once through pdsh.

    Args:
        script: Text for `sh -c`, without a percent sign (pdsh replaces those).
        hosts: Checked host names.
        timeout_s: Seconds after which a host's script is given up.

    Returns:
        For each host where it failed, what pdsh and ssh said, "; " between the lines.
    """
    command = [
        "pdsh",
        "-S",
        "-t",
        str(CONNECT_TIMEOUT_S),
        "-u",
        str(round(timeout_s)),
        "-w",
        ",".join(hosts),
    ]
    result = subprocess.run(
        [*command, f"sh -c {shlex.quote(script)}"],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=set_ssh_options(os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C at the terminal must not end the clean-up
    )
    failures: dict[str, list[str]] = {}
    for line in (result.stdout + result.stderr).splitlines():
        match = re.match(r"(?:pdsh@\S+: )?(\S+): (.*)", line)
        if match and match.group(1) in hosts:
            failures.setdefault(match.group(1), []).append(match.group(2))
    return {host: "; ".join(lines) for host, lines in failures.items()} if result.returncode else {}


def set_ssh_options(environment: Mapping[str, str], host_timeout_s: float = 30.0) -> dict[str, str]:
    """The environment with ssh chosen for pdsh, no questions asked, and a silent host noticed.

    The user's own PDSH_SSH_ARGS_APPEND stays in front: ssh takes the first value of an option.

    Args:
        environment: The environment to start from.
        host_timeout_s: Seconds of silence after which ssh gives a host up.
    """
    interval_s = max(1, round(host_timeout_s / 3))
    options = f"-oBatchMode=yes -oServerAliveInterval={interval_s} -oServerAliveCountMax=3"
    own = environment.get("PDSH_SSH_ARGS_APPEND", "")
    return {
        **environment,
        "PDSH_RCMD_TYPE": "ssh",
        "PDSH_SSH_ARGS_APPEND": f"{own} {options}".strip(),
    }


def ssh_options(environment: Mapping[str, str]) -> list[str]:
    """The options for ssh that pdsh would use, the user's own among them."""
    return shlex.split(environment.get("PDSH_SSH_ARGS_APPEND", ""))
