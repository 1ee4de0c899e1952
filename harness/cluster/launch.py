"""Start a run on the hosts of a hostfile through DeepSpeed's launcher, and return its true exit code.

hostfile ── strict check ──┐
environment ── filter ─────┤── python -m deepspeed.launcher.runner ──┬─ one local host: no ssh
config ── safe path ───────┘        (watched)                        └─ otherwise: pdsh over ssh
                                                                          │
exit code ◄── verdict.json, rank-<r>.exit, finished.json, pdsh's reports ◄┘
    └── a restart from the newest checkpoint, where that can help and is allowed

harness launch ── ssh ── keeper on every host: ends the ranks when the launch says so or is gone
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.cluster.hostfile import Hostfile, parse_hostfile
from harness.cluster.hosts import check_hosts, check_names, check_port, needs_ssh
from harness.cluster.outcome import launch_dir_from_environment, record_exit
from harness.cluster.restart import (
    ATTEMPTS_FILE,
    MAX_STANDSTILLS,
    Attempts,
    RestartPolicy,
    announce_restart,
    can_help,
    choose_hosts,
    say,
)
from harness.cluster.run_lock import hold_run
from harness.cluster.runners import check_runner
from harness.cluster.start import Ending, Order, start_once
from preprocess.errors import ConfigError, HostLostError, PreflightError

__all__ = ["RestartPolicy", "launch", "launch_dir_from_environment", "record_exit"]

_SIGINT_CODE = 130
_NO_RESTARTS = RestartPolicy()


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
    launcher: str = "pdsh",
    launcher_args: Sequence[str] = (),
    restarts: RestartPolicy = _NO_RESTARTS,
) -> int:
    """Run `module` on every slot of the hostfile and wait for its end.

    The ranks get LYRICS_WORLD_SIZE (the number of ranks that was asked for), LYRICS_LAUNCH_ID and LYRICS_LAUNCH_DIR;
    which other variables reach them is told in `harness.cluster.environment`. A stop by signal reaches a rank as
    SIGTERM. When this returns, no process of the launch is left on any host that answers.

    Args:
        config_path: The run's config; every host gets a copy in the launch folder.
        hostfile_path: The hosts.
        launches_dir: Folder of launches, `<run dir>/launch`; each attempt gets a new folder in it.
        num_ranks: Number of ranks that the hostfile must add up to, or None.
        master_addr: Address of the first host for the others, or None to ask that host.
        master_port: Port of the rendezvous on the first host, or None for a free one.
        extra: Further arguments of the module.
        module: The Python module to run; it gets `--config PATH` and `extra`.
        host_timeout_s: Seconds of silence after which a host counts as lost.
        launcher: DeepSpeed's runner, one of `harness.cluster.runners.TOOLS`.
        launcher_args: Further arguments of the runner.
        restarts: Whether and how the run goes on after a failure.

    Returns:
        0 when rank 0 finished; a rank's own code (2 to 10); 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP; else
        what the launcher returned.

    Raises:
        PreflightError: The hostfile, the hosts, the port or the devices do not allow a start; or the run folder is
            in use.
        ConfigError: The config is missing, or a path or argument cannot pass through a shell.
        HangError: The ranks' guardians found a hang.
        HostLostError: A host or a rank went away.
    """
    hostfile = parse_hostfile(hostfile_path)
    check_runner(launcher, hostfile)
    check_names(hostfile)
    _check_world_size(hostfile, num_ranks)
    check_port(master_port)
    restarts.check(hostfile)
    if not config_path.is_file():
        raise ConfigError(f"{config_path}: no such config file")
    order = Order(
        config_path,
        launches_dir.absolute(),
        module,
        tuple(extra),
        master_addr,
        master_port,
        launcher,
        tuple(launcher_args),
        host_timeout_s,
    )
    with hold_run(order.run_dir):
        if launcher == "pdsh" and needs_ssh(hostfile):
            check_hosts(hostfile)
        try:
            ending = _start_until_it_ends(order, hostfile, restarts)
        except KeyboardInterrupt:
            return _SIGINT_CODE
    if ending.error is not None:
        raise ending.error
    return ending.code


def _check_world_size(hostfile: Hostfile, num_ranks: int | None) -> None:
    if num_ranks is not None and num_ranks != hostfile.world_size:
        raise PreflightError(
            f"{hostfile.path} adds up to {hostfile.world_size} ranks, {num_ranks} were asked for; "
            "change the slots or the number"
        )


def _start_until_it_ends(order: Order, hostfile: Hostfile, policy: RestartPolicy) -> Ending:
    """Start, and start again while that can help."""
    first = ending = start_once(order, hostfile)
    # Another launch may write its config to the same place meanwhile.
    order = replace(order, config_path=order.launches_dir / first.launch_id / "config.yaml")
    attempts = Attempts(order.launches_dir / ATTEMPTS_FILE)
    attempts.record(ending, hostfile.names, hostfile.world_size)
    for restart in range(1, policy.max_restarts + 1):
        if ending.signalled or not can_help(ending.code):
            return ending
        if attempts.standstills >= MAX_STANDSTILLS:
            say(
                f"no restart: {MAX_STANDSTILLS} in a row brought no new checkpoint; the cause is not a passing one"
            )
            return ending
        if ending.checkpoint is None and not first.was_empty:
            say("no restart: the run has no checkpoint, and its folder was not empty when it began")
            return ending
        announce_restart(ending, restart, policy)
        time.sleep(policy.wait_s(restart))
        ending = _restart(order, hostfile, policy, attempts) or ending
    return ending


def _restart(order: Order, hostfile: Hostfile, policy: RestartPolicy, attempts: Attempts) -> Ending | None:
    """One more attempt on the hosts that answer; None when too few do."""
    last = attempts.endings[-1]
    hosts, failures = choose_hosts(hostfile, policy) if order.launcher == "pdsh" else (hostfile, {})
    for host, said in failures.items():
        say(f"{host} does not take part: {said}")
    if hosts is None:
        attempts.record_absence(failures)
        return None
    say(f"starting {hosts.world_size} ranks on {', '.join(hosts.names)}")
    extra = [] if last.checkpoint is None else ["--resume"]
    if hosts.world_size != hostfile.world_size:
        extra += ["--set", f"world_size={hosts.world_size}"]
    try:
        ending = start_once(order.with_extra(extra), hosts, afresh=last.checkpoint is None)
    except PreflightError as error:  # a host went away after it had answered
        ending = replace(last, launch_id="", code=HostLostError.exit_code, error=HostLostError(str(error)))
    attempts.record(ending, hosts.names, hosts.world_size)
    return ending
