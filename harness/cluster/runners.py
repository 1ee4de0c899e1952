"""DeepSpeed's ways to start ranks on other hosts: pdsh over ssh, or the runner of an MPI or of SLURM.

What DeepSpeed 0.19.8 does with each (`deepspeed.launcher.multinode_runner`), and what is done about it here:

    pdsh      the command passes through a shell on each host; only safe text is let through
    openmpi   `mpirun -x NAME=VALUE`, no shell; a value with an unusual character gets literal quotes: refused
    slurm     `srun -n N`, on any hosts of the allocation: the hosts are named; `--module` is ignored
    mpich     `python -m …/launcher_helper.py`, which cannot work with `--module`; the same slots on every host
    impi      RANK is given to each rank; the same slots on every host

So with all but pdsh the ranks start through the file `harness/cluster/rank.py`. These runners use no ssh of ours: the
hosts are not looked at beforehand, the run folder must be on a disk that all share, and ending ranks on other
hosts when the launch is killed is the runner's own work.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.cluster import rank
from harness.cluster.hostfile import Hostfile
from preprocess.errors import ConfigError, PreflightError

TOOLS = {
    "pdsh": ("pdsh", "ssh"),
    "openmpi": ("ompi_info", "mpirun"),
    "slurm": ("sinfo", "srun"),
    "mpich": ("mpirun",),
    "impi": ("mpirun",),
}
"""What must be on PATH for each of the launchers."""

_EQUAL_SLOTS = ("slurm", "mpich", "impi")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")  # what DeepSpeed does not wrap in double quotes


def check_runner(launcher: str, hostfile: Hostfile) -> None:
    """Refuse a launcher that is not known or not installed, or slots that it cannot start.

    Raises:
        ConfigError: There is no such launcher.
        PreflightError: Its tools are missing here, or hosts differ in their slots where they must not.
    """
    if launcher not in TOOLS:
        raise ConfigError(f"--launcher {launcher}: expected one of {', '.join(TOOLS)}")
    missing = [tool for tool in TOOLS[launcher] if shutil.which(tool) is None]
    if missing and launcher != "pdsh":  # `check_hosts` says where to get pdsh
        raise PreflightError(
            f"--launcher {launcher}: {' and '.join(missing)} cannot be found on PATH. Load or install it here, or "
            "leave --launcher out to start over ssh"
        )
    slots = {host.slots for host in hostfile.hosts}
    if launcher in _EQUAL_SLOTS and len(slots) > 1:
        raise PreflightError(
            f"{hostfile.path}: {launcher} starts the same number of ranks on every host, but the slots are "
            f"{', '.join(str(host.slots) for host in hostfile.hosts)}"
        )


def runner_options(launcher: str, hostfile: Hostfile, arguments: Sequence[str] = ()) -> list[str]:
    """The options of DeepSpeed's launcher that choose the runner; none for pdsh without arguments of the user.

    Args:
        launcher: One of TOOLS.
        hostfile: The hosts.
        arguments: Further arguments for the runner itself, each passed on as one.
    """
    own = list(arguments)
    if launcher == "slurm":
        own = [
            f"--nodelist={','.join(hostfile.names)}",
            f"--nodes={len(hostfile.hosts)}",
            f"--ntasks-per-node={hostfile.hosts[0].slots}",
            *own,
        ]
    options = [] if launcher == "pdsh" else ["--launcher", launcher]
    # The "=" keeps argparse from taking a value with a leading dash for an option.
    return [*options, *([f"--launcher_args={shlex.join(own)}"] if own else [])]


def rank_target(launcher: str, module: str) -> list[str]:
    """What DeepSpeed's launcher is told to run: the module, or the file that runs it."""
    return ["--module", module] if launcher == "pdsh" else [str(Path(rank.__file__).resolve()), module]


def check_plain(lines: Iterable[str], launcher: str) -> None:
    """Refuse variables that the runner would hand over changed.

    Args:
        lines: `NAME=VALUE`.
        launcher: The runner.

    Raises:
        ConfigError: Names the variable, without its value.
    """
    for line in lines:
        name, _, value = line.partition("=")
        if not _PLAIN_VALUE.fullmatch(value) or (launcher == "slurm" and "," in value):
            raise ConfigError(
                f"the value of {name} has a character that --launcher {launcher} would not hand over unchanged; set it "
                "on each host instead, and unset it here"
            )
