"""`harness doctor`, `harness bench-link`, and the examination that `harness launch` begins with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.config import RunConfig, load_run_config
from preprocess.errors import PreflightError
from preprocess.terminal import exit_on_user_error, make_console, print_json

if TYPE_CHECKING:
    from harness.cluster.doctor.examine import Diagnosis

HostfileOption = Annotated[Path, typer.Option(help="One `host slots=N` a line.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@exit_on_user_error
def doctor(
    hostfile: HostfileOption,
    config: Annotated[
        str | None, typer.Option(help="The run's YAML file, or the name of a shipped config.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
    ] = None,
    master_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Whether this port is free on the first host.")
    ] = None,
    fix_env: Annotated[
        bool,
        typer.Option(
            "--fix-env", help="First write a correct .deepspeed_env; the old one is kept beside it."
        ),
    ] = False,
    no_link: Annotated[
        bool, typer.Option("--no-link", help="Leave out the measurement between hosts.")
    ] = False,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Hash also files that have not changed since the last time.")
    ] = False,
    json_: Json = False,
) -> None:
    """Look at every host before a run: the same software and files, enough of everything, links that work.

    Ends with 0 when a run may start and 3 when it would fail or compute something else.
    """
    from harness.cluster.doctor.examine import Wishes, examine
    from harness.cluster.doctor.table import print_diagnosis
    from harness.cluster.hostfile import parse_hostfile

    hosts = parse_hostfile(hostfile)
    settings = load_run_config(config, set_ or ()) if config is not None else None
    if fix_env:
        _fix_env()
    diagnosis = examine(hosts, settings, Wishes(rehash=rehash, port=master_port))
    if not no_link and diagnosis.verdict != "refuse" and hosts.world_size > 1:
        _add_link(diagnosis)
    if json_:
        print_json(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis, make_console())
    if diagnosis.verdict == "refuse":
        raise typer.Exit(PreflightError.exit_code)


def _add_link(diagnosis: Diagnosis) -> None:
    """Measure the links, and judge them as one more check."""
    from harness.cluster.doctor.link import measure_links
    from harness.cluster.doctor.link_report import check_link

    try:
        measured = measure_links(diagnosis.situation.hostfile)
    except PreflightError as error:
        diagnosis.checks.append(check_link(diagnosis.situation.hostfile.names, str(error)))
        return
    diagnosis.checks.append(check_link(diagnosis.situation.hostfile.names, measured))
    diagnosis.link = measured.to_json()


def _fix_env() -> None:
    from harness.cluster.doctor.fix_env import fix_user_file

    fixed = fix_user_file(os.environ, Path.home(), Path.cwd())
    print(f"wrote {fixed.path}: {', '.join(fixed.names) or 'nothing needs to travel'}", file=sys.stderr)
    if fixed.backup:
        print(f"  the old one is {fixed.backup}", file=sys.stderr)
    if fixed.left_out:
        print(f"  left out, as they look secret: {', '.join(fixed.left_out)}", file=sys.stderr)
    if fixed.dropped:
        lines = ", ".join(map(str, fixed.dropped))
        print(f"  left out, as they are no NAME=VALUE: lines {lines} of the old file", file=sys.stderr)


@exit_on_user_error
def bench_link(hostfile: HostfileOption, json_: Json = False) -> None:
    """Measure what the hosts send each other: all-reduce by size, each pair, the slowest link.

    Ranks are started over ssh with the environment of a run: one on each host, or on one
    host alone as many as its slots.
    `harness plan --link-gbps FILE` reads the JSON.
    """
    from harness.cluster.doctor.link import measure_links
    from harness.cluster.doctor.link_report import print_links
    from harness.cluster.hostfile import parse_hostfile

    measured = measure_links(parse_hostfile(hostfile))
    print_json(measured.to_json()) if json_ else print_links(measured, make_console())


def check_before_launch(config: RunConfig, hostfile: Path, master_port: int | None = None) -> None:
    """The doctor's part of a launch: everything but the measurement of the links.

    On one local host, where nothing can differ, neither model nor data is looked at: the rank says what is wrong
    with those.

    Raises:
        PreflightError: A run would fail or compute something else. The table and what to do are on standard error.
    """
    from harness.cluster.doctor.examine import Wishes, examine
    from harness.cluster.doctor.table import describe, print_diagnosis
    from harness.cluster.hostfile import parse_hostfile
    from harness.cluster.hosts import needs_ssh

    hosts = parse_hostfile(hostfile)
    diagnosis = examine(hosts, config, Wishes(files=needs_ssh(hosts), port=master_port))
    console = make_console(error=True)
    if diagnosis.verdict == "refuse":
        print_diagnosis(diagnosis, console)
        raise PreflightError("the doctor refuses; nothing was started (--no-doctor starts all the same)")
    for finding in diagnosis.findings:
        console.print(describe(finding, hosts.names), highlight=False)
