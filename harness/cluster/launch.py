"""Start a run on the hosts of a hostfile through DeepSpeed's launcher, and return its true exit code.

    hostfile ── strict check ──┐
    environment ── filter ─────┤── python -m deepspeed.launcher.runner ──┬─ one local host: no ssh
    config ── safe path ───────┘        (watched, signals forwarded)     └─ otherwise: pdsh over ssh
                                                                              │
    exit code ◄── rank-<r>.exit, finished.json, pdsh's reports ◄──────────────┘

The launch folder holds what was handed over: `hostfile`, `environment`, and `config.yaml`, the one file that the
ranks read; it is written on every host.
"""

from __future__ import annotations

import base64
import os
import random
import re
import secrets
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cluster.environment import (
    extend_python_path,
    format_environment,
    read_user_file,
    select_travelling,
    withhold_secrets,
)
from harness.cluster.hostfile import Hostfile, check_host_name, format_hostfile, parse_hostfile
from harness.cluster.outcome import (
    LAUNCH_DIR_VARIABLE,
    launch_dir_from_environment,
    read_outcome,
    record_exit,
)
from harness.cluster.watch import LAUNCH_ID_VARIABLE, LaunchWatch, run_everywhere, set_ssh_options
from preprocess.errors import ConfigError, PreflightError
from preprocess.outside_text import visible

__all__ = ["launch", "launch_dir_from_environment", "record_exit"]

WORLD_SIZE_VARIABLE = "LYRICS_WORLD_SIZE"
_PORTS = range(20000, 30000)  # below Linux' ephemeral ports, so no outgoing connection takes one meanwhile
_PROBE_TIMEOUT_S = 20.0
# What passes unchanged through DeepSpeed's unquoted command line, pdsh's % sequences and a shell.
_SAFE_TEXT = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def launch(
    config_path: Path,
    hostfile_path: Path,
    launches_dir: Path,
    *,
    num_ranks: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
    extra: Sequence[str] = (),
    module: str = "harness.train",
    host_timeout_s: float = 30.0,
) -> int:
    """Run `module` on every slot of the hostfile and wait for its end.

    The ranks get LYRICS_WORLD_SIZE (the number of ranks that was asked for), LYRICS_LAUNCH_ID and LYRICS_LAUNCH_DIR;
    which other variables reach them is told in `harness.cluster.environment`. A stop by signal reaches a rank as
    SIGTERM, possibly more than once.

    Args:
        config_path: The run's config; every host gets a copy in the launch folder.
        hostfile_path: The hosts.
        launches_dir: Folder of launches, `<run dir>/launch`; the launch gets a new folder in it.
        num_ranks: Number of ranks that the hostfile must add up to, or None.
        master_addr: Address of the first host for the others, or None to let DeepSpeed ask that host.
        master_port: Port of the rendezvous on the first host, or None for a free one.
        extra: Further arguments of the module.
        module: The Python module to run; it gets `--config PATH` and `extra`.
        host_timeout_s: Seconds of silence after which a host counts as lost.

    Returns:
        0 when rank 0 finished; a rank's own code (2 to 10); 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP; else
        what the launcher returned.

    Raises:
        PreflightError: The hostfile, the hosts, the port or the devices do not allow a start.
        ConfigError: The config is missing, or a path or argument cannot pass through a shell.
        HostLostError: A host or a rank went away.
    """
    hostfile = parse_hostfile(hostfile_path)
    remote = needs_ssh(hostfile)
    _check_world_size(hostfile, num_ranks)
    if not config_path.is_file():
        raise ConfigError(f"{config_path}: no such config file")
    if remote:
        check_hosts(hostfile)
    port = _choose_port(hostfile, master_port)
    launch_dir = _make_launch_dir(launches_dir)
    config = _place_config(config_path.absolute(), launch_dir, hostfile.names if remote else ())
    target = ["--module", module, "--config", str(config), *extra]
    if remote:
        _check_shell_safe(target)
    variables = {
        WORLD_SIZE_VARIABLE: str(hostfile.world_size),
        LAUNCH_ID_VARIABLE: launch_dir.name,
        LAUNCH_DIR_VARIABLE: str(launch_dir),
    }
    options = ["--master_port", str(port), "--no_local_rank", "--log_level", "warning"]
    if remote:
        _check_address(master_addr)
        address = [] if master_addr is None else ["--master_addr", master_addr]
        options += ["--force_multi", *address]
        environment = set_ssh_options(_prepare_environment(launch_dir, variables), host_timeout_s)
    else:
        options += ["--master_addr", "127.0.0.1", "--no_ssh_check"]
        environment = {**os.environ, **variables}
    options += _write_hostfile(hostfile, launch_dir, remote)
    command = [sys.executable, "-m", "deepspeed.launcher.runner", *options, *target]
    watch = LaunchWatch(launch_dir.name, hostfile.names if remote else ())
    launcher_code = watch.run(command, environment)
    if watch.signal_number is not None:
        return 128 + watch.signal_number
    return read_outcome(launch_dir, launcher_code, watch.host_codes).exit_code()


def _check_address(master_addr: str | None) -> None:
    """DeepSpeed puts the address on the other hosts' command lines, where a shell reads it."""
    try:
        check_host_name("localhost" if master_addr is None else master_addr)
    except ValueError as error:
        raise ConfigError(f"master address: {error}") from error


def needs_ssh(hostfile: Hostfile) -> bool:
    """Whether the ranks are started over ssh: always, except on this machine alone."""
    return len(hostfile.hosts) > 1 or not is_local(hostfile.hosts[0].name)


def is_local(name: str) -> bool:
    """Whether a host name is this machine: only a local address can be bound to."""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)}
    except OSError:
        return False
    return any(_can_bind(str(address), 0) for address in addresses)


def check_hosts(hostfile: Hostfile) -> None:
    """Check that every host answers over ssh and has this Python and this working folder under the same paths.

    DeepSpeed checks the first host alone, and then waits half an hour for the ranks of a host that is down.

    Raises:
        PreflightError: With one line for each host that failed.
    """
    if shutil.which("pdsh") is None:
        raise PreflightError(
            "pdsh is not installed, and other hosts are started through it; "
            "install it here (Debian: `apt install pdsh`), or use a hostfile with localhost alone"
        )
    python, folder = shlex.quote(sys.executable), shlex.quote(os.getcwd())
    _check_shell_safe([sys.executable, os.getcwd()])
    script = (
        f"test -x {python} || {{ echo no Python at {python}; exit 3; }}; "
        f"test -d {folder} || {{ echo no folder {folder}; exit 3; }}"
    )
    failures = run_everywhere(script, hostfile.names, _PROBE_TIMEOUT_S)
    if failures:
        lines = "\n".join(f"  {host}: {said}" for host, said in failures.items())
        raise PreflightError(
            f"{len(failures)} of {len(hostfile.hosts)} hosts cannot take part; nothing was started:\n{lines}\n"
            "Each host must answer `ssh HOST true` without a question and have the same Python and project paths"
        )


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


def _check_world_size(hostfile: Hostfile, num_ranks: int | None) -> None:
    if num_ranks is not None and num_ranks != hostfile.world_size:
        raise PreflightError(
            f"{hostfile.path} adds up to {hostfile.world_size} ranks, {num_ranks} were asked for; "
            "change the slots or the number"
        )


def _make_launch_dir(launches_dir: Path) -> Path:
    """Make a new folder whose name is the launch's id: sortable, unique, safe in a shell."""
    launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    launch_dir = launches_dir.absolute() / launch_id
    launch_dir.mkdir(parents=True)
    return launch_dir


def _place_config(config_path: Path, launch_dir: Path, hosts: Sequence[str]) -> Path:
    """Copy the config into the launch folder, here and under the same path on every other host.

    The folder's name is this launch's alone and passes through a shell; hosts need not share a disk.

    Raises:
        PreflightError: A host cannot write it.
    """
    copy = launch_dir / "config.yaml"
    shutil.copyfile(config_path, copy)
    if hosts:
        _check_shell_safe([str(copy)])
        text = base64.b64encode(config_path.read_bytes()).decode("ascii")
        folder, target = shlex.quote(str(launch_dir)), shlex.quote(str(copy))
        script = f"mkdir -p {folder} && {{ test -e {target} || echo {text} | base64 -d > {target}; }}"
        if failures := run_everywhere(script, hosts, _PROBE_TIMEOUT_S):
            lines = "\n".join(f"  {host}: {said}" for host, said in failures.items())
            raise PreflightError(f"the config could not be written to {copy} on:\n{lines}")
    return copy


def _check_shell_safe(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not _SAFE_TEXT.fullmatch(argument):
            raise ConfigError(
                f"{argument!r} would pass through a shell on other hosts, which changes blanks and special "
                'characters; use letters, digits and "_@+=:,./-" only'
            )


def _prepare_environment(launch_dir: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Write DeepSpeed's environment file into the launch folder; return the environment of its launcher."""
    kept, secret_names = withhold_secrets(os.environ)
    user_lines, user_secrets = read_user_file(os.environ, Path.home(), Path.cwd())
    python_path = {"PYTHONPATH": extend_python_path(kept, Path.cwd())}
    travelling = {**select_travelling({**kept, **python_path}), **variables}
    path = launch_dir / "environment"
    path.touch(mode=0o600)
    path.write_text(format_environment(travelling, user_lines), encoding="utf-8")
    left_out = sorted({*secret_names, *user_secrets})
    if left_out:
        print(visible(f"not sent to other hosts, as it looks secret: {', '.join(left_out)}"), file=sys.stderr)
    return {**kept, "DS_ENV_FILE": str(path)}


def _write_hostfile(hostfile: Hostfile, launch_dir: Path, remote: bool) -> list[str]:
    """Write the hostfile that DeepSpeed reads; return the launcher's options that name it and the devices."""
    path = launch_dir / "hostfile"
    options = ["--hostfile", str(path)]
    devices = None if remote else choose_devices(hostfile, os.environ)
    if devices is None:
        path.write_text(format_hostfile(hostfile))
        return options
    # DeepSpeed can only pick device 3 from a host that has four slots.
    name = hostfile.hosts[0].name
    path.write_text(f"{name} slots={max(devices) + 1}\n")
    return [*options, "--include", f"{name}:{','.join(map(str, devices))}"]


def _choose_port(hostfile: Hostfile, master_port: int | None) -> int:
    """The given port or a free one. The first host's ports can be tried only when it is this machine."""
    here = is_local(hostfile.hosts[0].name)
    if master_port is not None:
        if not 1 <= master_port <= 65535:
            raise PreflightError(f"got port {master_port}, expected 1 to 65535")
        if here and not _can_bind("", master_port):
            raise PreflightError(
                f"port {master_port} is in use on this host; choose another, or leave it out"
            )
        return master_port
    candidates = random.sample(_PORTS, 100)
    free = next((port for port in candidates if not here or _can_bind("", port)), None)
    if free is None:
        raise PreflightError(f"no free port among 100 tried from {_PORTS.start} to {_PORTS.stop - 1}")
    return free


def _can_bind(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
