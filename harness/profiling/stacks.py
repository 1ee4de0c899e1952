"""`harness stacks`: where every rank of a live run is, right now, on all of its hosts. No torch is needed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

import harness
from harness.cluster.hostfile import Hostfile, parse_hostfile
from harness.cluster.hosts import check_names, is_local
from harness.cluster.remote import set_ssh_options, ssh_options
from harness.profiling.stacks_here import RankStacks
from preprocess.errors import ConfigError, HostLostError
from preprocess.outside_text import visible
from preprocess.terminal import exit_on_user_error, print_json

ANSWER_TIMEOUT_S = 60.0
_ROOT = Path(harness.__file__).resolve().parent.parent


@exit_on_user_error
def stacks(
    run: Annotated[Path, typer.Argument(help="The run's folder (output_dir).")],
    hostfile: Annotated[
        Path | None,
        typer.Option(help="The hosts; by default those of the run's newest launch, else this one."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print where every rank of a live run is in its Python code, thread by thread. The run goes on.

    By py-spy where it is installed on the host, else by the rank's own faulthandler.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: no such folder; expected a run's output_dir")
    hosts = find_hosts(run, hostfile)
    found, failures = ask_hosts(run.absolute(), hosts)
    if json_:
        print_json({"stacks": [to_json(one) for one in found], "silent_hosts": failures})
    else:
        print(format_stacks(found, failures), end="")
    if not found:
        where = ", ".join(hosts) or "this host"
        told = "".join(f"; {host}: {said}" for host, said in failures.items())
        raise HostLostError(f"{run}: no rank of this run is alive on {where}{told}")


def find_hosts(run: Path, hostfile: Path | None) -> tuple[str, ...]:
    """The hosts to ask, in order: of a hostfile, or of the run's newest launch; none for this host alone.

    Raises:
        PreflightError: The hostfile is missing or malformed.
    """
    if hostfile is None:
        launches = sorted(run.glob("launch/*/hostfile"))
        if not launches:
            return ()
        hostfile = launches[-1]
    parsed: Hostfile = parse_hostfile(hostfile)
    check_names(parsed)
    return parsed.names


def ask_hosts(run: Path, hosts: Sequence[str]) -> tuple[list[RankStacks], dict[str, str]]:
    """The stacks of all ranks in order of rank, and for each host that did not answer, why."""
    asked = list(hosts) or [""]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda host: _ask(run, host), asked))
    failures = {host: answer for host, answer in zip(asked, answers, strict=True) if isinstance(answer, str)}
    # Two names may be one machine, and hosts in containers may see each other's processes.
    found = {(one.boot, one.pid): one for answer in answers if not isinstance(answer, str) for one in answer}
    return sorted(found.values(), key=lambda one: one.rank), failures


def _ask(run: Path, host: str) -> list[RankStacks] | str:
    """One host's ranks, or why it does not tell; the empty name is this host."""
    command = ["env", f"PYTHONPATH={_ROOT}", sys.executable, "-m", "harness.profiling.stacks_here", str(run)]
    if host and not is_local(host):
        options = ssh_options(set_ssh_options(os.environ))
        command = ["ssh", "-T", "-oConnectTimeout=10", *options, "--", host, "exec " + shlex.join(command)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return _read_answer(done)


def _read_answer(done: subprocess.CompletedProcess[str]) -> list[RankStacks] | str:
    """What a host printed last; a login script may have printed before."""
    for line in reversed(done.stdout.splitlines()):
        try:
            values: dict[str, Any] = json.loads(line)
            return [RankStacks(**one) for one in values["stacks"]]
        except (ValueError, KeyError, TypeError):
            continue
    return (done.stderr.strip().splitlines() or [f"no answer (exit code {done.returncode})"])[-1]


def to_json(one: RankStacks) -> dict[str, Any]:
    """A rank's stacks as plain values."""
    return {name: getattr(one, name) for name in RankStacks.__slots__}


def format_stacks(found: Sequence[RankStacks], failures: dict[str, str]) -> str:
    """The stacks as text, rank by rank."""
    blocks = []
    for one in found:
        head = f"== rank {one.rank} on {one.host}, process {one.pid}, state {one.state}, by {one.how or 'nothing'} =="
        note = [f"({one.note})"] if one.note else []
        blocks.append("\n".join([head, *note, one.text.rstrip()]))
    blocks += [f"== no answer from {host or 'this host'}: {said} ==" for host, said in failures.items()]
    return "".join(f"{visible_lines(block)}\n\n" for block in blocks)


def visible_lines(text: str) -> str:
    """Text of another process without control characters, its lines kept."""
    return "\n".join(visible(line) for line in text.splitlines())
