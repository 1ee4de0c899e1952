"""The checks of a start by hand, `deepspeed --hostfile … --module harness.train`, made inside the ranks.

DeepSpeed's launcher trains on one machine when the hostfile's path is misspelt, reads `slots=2x` as 2, and runs
a single remote host's ranks here. So the ranks on the launching host look at the command line of the runner that
started them, read its hostfile strictly, and compare what was asked for with what runs.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cluster.hostfile import Hostfile, parse_hostfile
from harness.cluster.hosts import check_names, is_local
from harness.cluster.outcome import LAUNCH_DIR_VARIABLE
from harness.cluster.tether import NODE_LAUNCHER, find_runner, find_world_info, is_runner, read_command
from preprocess.errors import PreflightError

DEFAULT_HOSTFILE = "/job/hostfile"
_WITH_VALUE = (
    "--master_port", "--master_addr", "--node_rank", "--launcher", "--launcher_args", "--enable_each_rank_log",
    "--autotuning", "--bind_core_list", "--ssh_port", "--venv_script", "--log_level",
)  # fmt: skip
_FLAGS = (
    "--module", "--no_python", "--no_local_rank", "--no_ssh", "--no_ssh_check", "--force_multi", "--save_pid",
    "--bind_cores_to_rank", "--quiet",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """How DeepSpeed was started by hand.

    Attributes:
        arguments: The runner's arguments.
        folder: Its working folder, which relative paths start from.
        world: Devices by host, as the runner handed them out.
        over_ssh: Whether it started the ranks over ssh.
    """

    arguments: Sequence[str]
    folder: Path
    world: Mapping[str, Sequence[int]]
    over_ssh: bool


def find_start() -> Start | None:
    """The start by hand of which this process is a rank, where the launching host is this one; else None."""
    if LAUNCH_DIR_VARIABLE in os.environ:
        return None
    parent = os.getppid()
    command = read_command(parent)
    runner = find_runner(parent) if NODE_LAUNCHER in command else None
    if runner is None:
        return None
    try:
        folder = Path(os.readlink(f"/proc/{runner[0]}/cwd"))
    except OSError:
        return None
    words = read_command(runner[0])
    world = json.loads(base64.urlsafe_b64decode(find_world_info(command) or "e30="))
    return Start(_arguments_of(words), folder, world, over_ssh=runner[1] != parent)


def _arguments_of(command: Sequence[str]) -> list[str]:
    """What follows the runner's own name on its command line."""
    end = next(number for number in range(len(command)) if is_runner(command[: number + 1]))
    return list(command[end + 1 :])


def check_start(start: Start | None) -> None:
    """Refuse a start whose hostfile says something else than what runs.

    Raises:
        PreflightError: The hostfile is missing or malformed, names other hosts or slots, or the ranks of another host
            run here.
    """
    if start is None:
        return
    options = _parse(start.arguments)
    is_given = options.hostfile is not None
    path = start.folder / (options.hostfile or DEFAULT_HOSTFILE)
    if not is_given and not path.exists():
        return
    try:
        hostfile = parse_hostfile(path)
    except PreflightError as error:
        raise PreflightError(
            f"--hostfile: {error}; DeepSpeed would have trained on this machine alone"
        ) from None
    check_names(hostfile)
    _check_world(start, hostfile, options)
    only = next(iter(start.world))
    if not start.over_ssh and not is_local(only):
        raise PreflightError(
            f"{path}: the ranks are meant for {only}, but DeepSpeed started them on this machine, as it does for a "
            "single host; pass --force_multi, or use `python -m harness launch`"
        )


def _check_world(start: Start, hostfile: Hostfile, options: argparse.Namespace) -> None:
    """Compare the hosts that run with the file; a filter of the user's may leave some out."""
    slots = {host.name: host.slots for host in hostfile.hosts}
    filtered = any((options.include, options.exclude, options.num_nodes, options.num_gpus))
    for name, devices in start.world.items():
        if name not in slots or len(devices) > slots[name] or (not filtered and len(devices) != slots[name]):
            raise PreflightError(
                f"{hostfile.path}: {len(devices)} ranks run on {name}, but the file says "
                f"{slots.get(name, 'nothing about that host')}"
            )
    missing = [name for name in hostfile.names if name not in start.world]
    if missing and not filtered:
        raise PreflightError(f"{hostfile.path}: no rank runs on {', '.join(missing)}, which the file names")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the runner's arguments as DeepSpeed does, abbreviations included, up to the name of the program."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-H", "--hostfile")
    parser.add_argument("-i", "--include")
    parser.add_argument("-e", "--exclude")
    parser.add_argument("--num_nodes")
    parser.add_argument("--num_gpus", "--num_accelerators")
    for name in _WITH_VALUE:
        parser.add_argument(name)
    for name in _FLAGS:
        parser.add_argument(name, action="store_true")
    parser.add_argument("-q", action="store_true")
    parser.add_argument("program")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser.parse_known_args(arguments)[0]
