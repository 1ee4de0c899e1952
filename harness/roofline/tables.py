"""A study as tables and lines on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from harness.numbers import format_float
from harness.planning.tables import describe_answer
from harness.roofline.ceiling_table import tabulate_ceilings
from harness.roofline.moves import Moved
from harness.roofline.scaling import Scaled
from harness.roofline.study import Study, describe_next


def print_study(study: Study, console: Console) -> None:
    """Print everything."""
    for line in [*describe_basis(study), *describe_standing(study)]:
        console.print(line, highlight=False)
    shares = None if study.standing is None else study.standing.shares
    console.print(tabulate_ceilings(study.roof, shares))
    for line in describe_next(study):
        console.print(line, highlight=False)
    for title, head, moved in (
        ("Tasks a song", "tasks", study.tasks),
        ("Row length", "slots", study.row_length),
        ("Recomputed layers", "layers", study.recompute),
    ):
        if moved:
            console.print(tabulate_moved(title, head, moved))
    console.print(tabulate_hosts(study))
    for answer in study.wishes:
        console.print()
        for line in describe_answer(answer):
            console.print(line, highlight=False)
    for line in study.missing:
        console.print(f"missing: {line}", highlight=False)


def describe_basis(study: Study) -> list[str]:
    """What the figures rest on."""
    setting, link = study.setting, study.link
    card = "a card" if setting.card is None else setting.card.name
    peak = "dense peak" if setting.memory_bytes else "measured matmul ceiling"
    return [
        f"{study.name}: {setting.nodes} x {setting.gpus_per_node} {card}, ZeRO-{setting.case.zero.stage}",
        f"rows    {setting.workload.source}",
        f"link    {format_float(link.gbps)} Gb/s, {format_float(1e6 * link.latency_s)} us a round ({link.source})",
        f"speed   {setting.efficiency.bf16:.1%} of the {peak} ({setting.efficiency.source})",
    ]


def describe_standing(study: Study) -> list[str]:
    """Where the run stands."""
    if study.standing is None:
        return ["no run was given: the ceilings alone are told"]
    one = study.standing
    line = (
        f"measured {format_float(one.examples_per_s)} examples/s, {format_float(one.tokens_per_s)} tokens/s"
    )
    if one.communication_share is not None:
        line += f"; {one.communication_share:.1%} of a step is exposed communication"
    return [line]


def tabulate_moved(title: str, head: str, moved: Sequence[Moved]) -> Table:
    """examples/s over one thing that changes."""
    table = Table(head, title=f"{title}: predicted with steps as they are, and with even ones")
    for column in ("examples/s", "even steps", "tokens an example", "fits"):
        table.add_column(column, justify="right")
    for one in moved:
        fits = "yes" if one.fits else "no"
        rates = [format_float(rate) for rate in (one.examples_per_s, one.even_examples_per_s)]
        table.add_row(str(one.value), *rates, f"{one.tokens_per_example:,.1f}", fits)
    return table


def tabulate_hosts(study: Study) -> Table:
    """Simulated steps over hosts: rows of a step as now, and rows of a rank as now."""
    table = Table("ranks", title=f"Simulated from {study.parts.source}: a step as now | a step that grows")
    for _ in range(2):
        for head in ("rows, slowest", "compute s", "link s", "examples/s", "efficiency"):
            table.add_column(head, justify="right")
    for fixed, growing in zip(study.fixed, study.growing, strict=True):
        cells = [*_cells(fixed, study.fixed[0]), *_cells(growing, study.growing[0])]
        table.add_row(str(fixed.ranks), *cells)
    return table


def _cells(one: Scaled, first: Scaled) -> list[str]:
    efficiency = one.examples_per_s / one.ranks / (first.examples_per_s / first.ranks)
    return [
        format_float(one.slowest_rows),
        f"{one.compute_s:,.3g}",
        f"{one.communication_s:,.3g}",
        format_float(one.examples_per_s),
        f"{efficiency:.0%}",
    ]
