"""One start of the ranks, from the launch folder to the end of the last process.

The launch folder holds what was handed over: `hostfile`, `environment`, and `config.yaml`, the one file that the
ranks read; it is written on every host.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.cluster.environment import (
    extend_python_path,
    format_environment,
    read_user_file,
    select_travelling,
    withhold_secrets,
)
from harness.cluster.hostfile import Hostfile, check_host_name, format_hostfile
from harness.cluster.hosts import (
    PROBE_TIMEOUT_S,
    check_shell_safe,
    choose_address,
    choose_devices,
    is_local,
    needs_ssh,
    resolve,
)
from harness.cluster.keeper import PORTS
from harness.cluster.lifelines import Lifelines
from harness.cluster.outcome import LAUNCH_DIR_VARIABLE, read_outcome, write_left_behind
from harness.cluster.remote import run_everywhere, set_ssh_options
from harness.cluster.runners import check_plain, rank_target, runner_options
from harness.cluster.watch import LAUNCH_ID_VARIABLE, SSH_FAILED, LaunchWatch
from preprocess.errors import ConfigError, PreflightError, UserError
from preprocess.outside_text import visible

WORLD_SIZE_VARIABLE = "LYRICS_WORLD_SIZE"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Attributes:
        config_path: The run's config; every host gets a copy in the launch folder.
        launches_dir: Folder of launches, `<run dir>/launch`.
        module: The Python module to run; it gets `--config PATH` and `extra`.
        extra: Further arguments of the module.
        master_addr: Address of the first host for the others, or None to ask it.
        master_port: Port of the rendezvous on the first host, or None for a free one.
        launcher: DeepSpeed's runner, one of `harness.cluster.runners.TOOLS`.
        launcher_args: Further arguments of the runner.
        host_timeout_s: Seconds of silence after which a host counts as lost.
    """

    config_path: Path
    launches_dir: Path
    module: str = "harness.train"
    extra: tuple[str, ...] = ()
    master_addr: str | None = None
    master_port: int | None = None
    launcher: str = "pdsh"
    launcher_args: tuple[str, ...] = ()
    host_timeout_s: float = 30.0

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.launches_dir.absolute().parent

    def with_extra(self, arguments: Sequence[str]) -> Order:
        """The same with further arguments for the module."""
        return replace(self, extra=(*self.extra, *arguments))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a start ended.

    Attributes:
        launch_id: Name of the launch folder.
        was_empty: Whether the run folder held no step and no checkpoint when it began.
        code: Exit code, 0 when the run is done.
        error: The cause, where one is known that the code alone does not tell.
        checkpoint: Step of the newest checkpoint, or None.
        step: The last step taken, or None.
        signalled: Whether the launch was stopped by a signal to itself.
    """

    launch_id: str
    was_empty: bool
    code: int
    error: UserError | None
    checkpoint: int | None
    step: int | None
    signalled: bool


def start_once(order: Order, hostfile: Hostfile, *, afresh: bool = False) -> Ending:
    """Start the ranks, wait for their end, leave nothing running.

    Args:
        order: What to start.
        hostfile: Where.
        afresh: Whether this repeats an attempt of ours that saved nothing, whose metrics are moved away.

    Raises:
        PreflightError: The hosts, the port or the devices do not allow a start.
        ConfigError: A path, an argument or a variable cannot travel.
    """
    launch_id = (
        f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"  # sortable, unique, safe in a shell
    )
    launch_dir = order.launches_dir.absolute() / launch_id
    over_ssh = order.launcher == "pdsh" and needs_ssh(hostfile)
    elsewhere = [name for name in hostfile.names if over_ssh and not is_local(name)]
    lifelines = Lifelines(launch_id, launch_dir, order.run_dir, elsewhere, order.host_timeout_s)
    try:
        if failures := lifelines.wait_until_ready():
            lines = "\n".join(f"  {host}: {said}" for host, said in failures.items())
            raise PreflightError(f"these hosts cannot be watched over ssh; nothing was started:\n{lines}")
        before = _how_far(lifelines.gather())
        command, environment = _prepare(order, hostfile, launch_dir, lifelines, over_ssh=over_ssh)
        if afresh:
            lifelines.set_aside()
        watch = LaunchWatch(lifelines, reads_reports=over_ssh)
        with watch.heed_signals():
            code = watch.run(command, environment)
            reports = lifelines.gather()
            write_left_behind(launch_dir, reports)
            silent = lifelines.sweep()
        code, error = _find_cause(launch_dir, code, watch, silent)
        checkpoint, step = _how_far(reports)
        stopped = watch.signal_number is not None
        return Ending(launch_id, before == (None, None), code, error, checkpoint, step, stopped)
    finally:
        lifelines.close()


def _how_far(reports: Sequence[dict[str, Any]]) -> tuple[int | None, int | None]:
    """The newest checkpoint's step and the last step taken, on any host's disk."""
    checkpoint, step = (
        max((report[name] for report in reports if report[name] is not None), default=None)
        for name in ("checkpoint", "step")
    )
    return checkpoint, step


def _find_cause(
    launch_dir: Path, code: int, watch: LaunchWatch, silent: Sequence[str]
) -> tuple[int, UserError | None]:
    """The true exit code and, where the code alone does not tell it, the cause."""
    for host in silent:
        watch.host_codes.setdefault(host, SSH_FAILED)
    if watch.signal_number is not None:
        return 128 + watch.signal_number, None
    try:
        return read_outcome(launch_dir, code, watch.host_codes, socket.gethostname()).exit_code(), None
    except UserError as error:
        return error.exit_code, error


def _prepare(
    order: Order, hostfile: Hostfile, launch_dir: Path, lifelines: Lifelines, *, over_ssh: bool
) -> tuple[list[str], dict[str, str]]:
    """Make the launch folder on every host; return the launcher's command line and environment."""
    port = _choose_port(order, hostfile, lifelines, over_ssh=over_ssh)
    address = _choose_address(order, hostfile, lifelines, over_ssh=over_ssh)
    launch_dir.mkdir(parents=True)
    config = _place_config(order.config_path.absolute(), launch_dir, hostfile.names if over_ssh else ())
    target = [*rank_target(order.launcher, order.module), "--config", str(config), *order.extra]
    if over_ssh:
        check_shell_safe(target)
    variables = {
        WORLD_SIZE_VARIABLE: str(hostfile.world_size),
        LAUNCH_ID_VARIABLE: launch_dir.name,
        LAUNCH_DIR_VARIABLE: str(launch_dir),
    }
    options = ["--master_port", str(port), "--no_local_rank", "--log_level", "warning"]
    options += ["--master_addr", address, *runner_options(order.launcher, hostfile, order.launcher_args)]
    options += ["--force_multi"] if over_ssh else ["--no_ssh_check"]
    if over_ssh:
        environment = set_ssh_options(_prepare_environment(launch_dir, variables), order.host_timeout_s)
    elif order.launcher != "pdsh":
        options += ["--force_multi"]
        variables |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
        environment = _prepare_environment(launch_dir, variables, order.launcher)
    else:
        environment = {**os.environ}
    options += _write_hostfile(hostfile, launch_dir, here_alone=not over_ssh and order.launcher == "pdsh")
    command = [sys.executable, "-m", "deepspeed.launcher.runner", *options, *target]
    return command, {**environment, **variables}


def _choose_port(order: Order, hostfile: Hostfile, lifelines: Lifelines, *, over_ssh: bool) -> int:
    """The given port or one that is free on the first host."""
    first = hostfile.hosts[0].name
    if not over_ssh and not is_local(first):  # no keeper there to ask
        return order.master_port or secrets.choice(PORTS)
    port = lifelines.find_port(first, order.master_port or 0)
    if not port and order.master_port:
        raise PreflightError(
            f"port {order.master_port} is in use on {first}; choose another, or leave it out"
        )
    if not port:
        raise PreflightError(f"no free port from {PORTS.start} to {PORTS.stop - 1} on {first}")
    return port


def _choose_address(order: Order, hostfile: Hostfile, lifelines: Lifelines, *, over_ssh: bool) -> str:
    first = hostfile.hosts[0].name
    if order.master_addr is not None:
        _check_address(order.master_addr)
        return order.master_addr
    if over_ssh:
        return choose_address(first, lifelines.list_addresses(first))
    if order.launcher == "pdsh":
        return "127.0.0.1"
    listed = lifelines.list_addresses(first) if is_local(first) else sorted(resolve(first))
    return choose_address(first, listed)


def _check_address(master_addr: str) -> None:
    """DeepSpeed puts the address on the other hosts' command lines, where a shell reads it."""
    try:
        check_host_name(master_addr)
    except ValueError as error:
        raise ConfigError(f"master address: {error}") from error


def _place_config(config_path: Path, launch_dir: Path, hosts: Sequence[str]) -> Path:
    """Copy the config into the launch folder, here and under the same path on every other host.

    The folder's name is this launch's alone and passes through a shell; hosts need not share a disk.

    Raises:
        PreflightError: A host cannot write it.
    """
    copy = launch_dir / "config.yaml"
    shutil.copyfile(config_path, copy)
    if hosts:
        check_shell_safe([str(copy)])
        text = base64.b64encode(config_path.read_bytes()).decode("ascii")
        folder, target = shlex.quote(str(launch_dir)), shlex.quote(str(copy))
        script = f"mkdir -p {folder} && {{ test -e {target} || echo {text} | base64 -d > {target}; }}"
        if failures := run_everywhere(script, hosts, PROBE_TIMEOUT_S):
            lines = "\n".join(f"  {host}: {said}" for host, said in failures.items())
            raise PreflightError(f"the config could not be written to {copy} on:\n{lines}")
    return copy


def _prepare_environment(
    launch_dir: Path, variables: Mapping[str, str], launcher: str = "pdsh"
) -> dict[str, str]:
    """Write DeepSpeed's environment file into the launch folder; return the environment of its launcher."""
    kept, secret_names = withhold_secrets(os.environ)
    user_lines, user_secrets = read_user_file(os.environ, Path.home(), Path.cwd())
    python_path = {"PYTHONPATH": extend_python_path(kept, Path.cwd())}
    travelling = {**select_travelling({**kept, **python_path}), **variables}
    if launcher == "pdsh":
        text = format_environment(travelling, user_lines)
    else:
        lines = [*(f"{name}={value}" for name, value in travelling.items()), *user_lines]
        check_plain(lines, launcher)
        text = "".join(f"{line}\n" for line in lines)
    path = launch_dir / "environment"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    left_out = sorted({*secret_names, *user_secrets})
    if left_out:
        print(visible(f"not sent to other hosts, as it looks secret: {', '.join(left_out)}"), file=sys.stderr)
    return {**kept, "DS_ENV_FILE": str(path)}


def _write_hostfile(hostfile: Hostfile, launch_dir: Path, *, here_alone: bool) -> list[str]:
    """Write the hostfile that DeepSpeed reads; return the launcher's options that name it and the devices."""
    path = launch_dir / "hostfile"
    options = ["--hostfile", str(path)]
    devices = choose_devices(hostfile, os.environ) if here_alone else None
    if devices is None:
        path.write_text(format_hostfile(hostfile))
        return options
    # DeepSpeed can only pick device 3 from a host that has four slots.
    name = hostfile.hosts[0].name
    path.write_text(f"{name} slots={max(devices) + 1}\n")
    return [*options, "--include", f"{name}:{','.join(map(str, devices))}"]
