"""A diagnosis on a terminal: hosts beside each other, what differs marked, the verdict, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cluster.doctor.examine import Diagnosis
from harness.cluster.doctor.findings import Check, Finding, Severity

CELL_WIDTH, NAME_WIDTH, PADDING = 13, 13, 2
MARKS: dict[Severity, tuple[str, str]] = {"refuse": ("x ", "bold red"), "warn": ("! ", "yellow")}
VERDICTS = {
    "fine": ("fine: the hosts agree, and a run may start", "bold green"),
    "warn": ("a run may start; see the warnings", "bold yellow"),
    "refuse": ("refused: a run would fail or compute something else", "bold red"),
}


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print the table, what was found, and the verdict."""
    for hosts in divide(diagnosis.situation.hostfile.names, console.width):
        console.print(tabulate(diagnosis.checks, hosts))
    for finding in diagnosis.findings:
        console.print(describe(finding, diagnosis.situation.hostfile.names), highlight=False)
    text, style = VERDICTS[diagnosis.verdict]
    num_hosts, num_ranks = len(diagnosis.answers), diagnosis.situation.hostfile.world_size
    counts = f"{num_hosts} host{'s' * (num_hosts > 1)}, {num_ranks} rank{'s' * (num_ranks > 1)}"
    console.print(Text(f"{counts}: {text}", style=style))


def divide(hosts: Sequence[str], width: int) -> list[Sequence[str]]:
    """Hosts in tables that fit a terminal of `width` columns, as equally many in each as can be."""
    fit = max(1, (width - NAME_WIDTH - 2 * PADDING) // (CELL_WIDTH + PADDING))
    num_tables = -(-len(hosts) // fit)
    each = -(-len(hosts) // num_tables)
    return [hosts[start : start + each] for start in range(0, len(hosts), each)]


def tabulate(checks: Sequence[Check], hosts: Sequence[str]) -> Table:
    """One row a check, one column a host; a mark stands before what a finding is about."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, PADDING, 0, 0), show_edge=False)
    table.add_column("", width=NAME_WIDTH, overflow="fold")
    for host in hosts:
        table.add_column(host, width=CELL_WIDTH, overflow="fold")
    for check in checks:
        cells = [_cell(check, host) for host in hosts]
        if any(cell.plain.strip() for cell in cells):
            table.add_row(check.name, *cells)
    return table


def _cell(check: Check, host: str) -> Text:
    severity = check.marked.get(host)
    mark, style = ("", "") if severity is None else MARKS[severity]
    return Text(f"{mark}{check.cells.get(host, '')}", style=style)


def describe(finding: Finding, all_hosts: Sequence[str]) -> Text:
    """One finding as lines: what, where, what to do."""
    mark, style = MARKS[finding.severity]
    everywhere = len(finding.hosts) == len(all_hosts) > 1
    where = "all hosts" if everywhere else ", ".join(finding.hosts)
    place = f"{finding.check}, {where}" if where else finding.check
    return Text.assemble((f"{mark}{place}: ", style), finding.message, f"\n  {finding.advice}")
