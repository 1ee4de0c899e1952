"""The benchmark report: one HTML file in the form of a run's report, which asks nothing of a network."""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Figure
from bench.recorded import Record
from bench.report.chosen import History, list_doubts, name_machine
from bench.report.drawings import chart_history, label_record
from harness.numbers import format_float
from harness.report.findings import Finding
from harness.report.headlines import Card
from harness.report.page import Page, Section
from harness.report.page import render_page as render
from harness.report.tables import MAX_ROWS, Table, format_value, tabulate_nested

TITLE = "lyrics-harness"


def render_page(histories: Sequence[History]) -> str:
    """Render the page; every text of a record is escaped.

    Args:
        histories: At least one; a section each.
    """
    page = Page(
        title=TITLE,
        kind="Benchmark report",
        cards=list_cards(histories),
        warnings=[Finding(doubt) for doubt in list_doubts(histories)],
        sections=[make_section(history, index) for index, history in enumerate(histories)],
        setup=tabulate_surroundings(histories),
    )
    return render(page)


def list_cards(histories: Sequence[History]) -> list[Card]:
    """How much is shown."""
    newest = [history.newest for history in histories]
    machines = list(dict.fromkeys(name_machine(record) for record in newest))
    return [
        Card("programs", f"{len({record.name for record in newest})}", "one question each"),
        Card(
            "records", f"{sum(len(history.records) for history in histories)}", f"{len(newest)} newest shown"
        ),
        Card("machines", f"{len(machines)}", "; ".join(machines)),
    ]


def make_section(history: History, index: int) -> Section:
    """A program's section: charts, figures, facts, earlier records."""
    newest = history.newest
    name = f"p{index}-{''.join(c for c in newest.name if c.isalnum())}"
    part = newest.command.partition("--only ")[2]
    return Section(
        name,
        f"{newest.name}: {part}" if part else newest.name,
        chart_history(history, name),
        [tabulate_figures(newest), tabulate_facts(newest), *tabulate_course(history)],
    )


def tabulate_figures(record: Record) -> Table:
    """All figures and ratios of a record, under its question."""
    ratios = {f"{way} / {record.baseline}": ratio for way, ratio in record.ratios.items()}
    rows = [list_cells(name, figure) for name, figure in {**record.figures, **ratios}.items()]
    rest = len(rows) - 2 * MAX_ROWS
    commit = (record.commit or "no commit")[:9] + ("+" if (record.commit or "").endswith("+") else "")
    note = f"{record.command}, at {commit} {record.recorded_at}".strip()
    note += f"; and {rest} more rows" if rest > 0 else ""
    columns = ["quantity", "median", "p20 to p80", "n", "unit"]
    return Table(record.question, columns, rows[: 2 * MAX_ROWS], note=note)


def tabulate_facts(record: Record) -> Table:
    """Counts and settings, `MAX_ROWS` of them at most."""
    rows = [[name.replace("_", " "), format_value(value)] for name, value in record.facts.items()]
    rest = len(rows) - MAX_ROWS
    note = f"and {rest} more" if rest > 0 else ""
    return Table("What the figures belong to", [], rows[:MAX_ROWS], note=note)


def list_cells(name: str, figure: Figure) -> list[str]:
    """A figure's row."""
    spread = f"{format_float(figure.p20)} to {format_float(figure.p80)}" if figure.n > 1 else ""
    unit = "times as fast" if figure.unit == "x" else figure.unit
    return [name, format_float(figure.median), spread, f"{figure.n:,}", unit]


def tabulate_course(history: History) -> list[Table]:
    """Earlier records: when, at which commit, under which load."""
    if len(history.records) < 2:
        return []
    rows = [
        [label_record(history, i), record.recorded_at or "-", format_value(list(record.load_average))]
        for i, record in enumerate(history.records)
    ]
    return [Table("Records", ["commit", "time", "load before"], rows)]


def tabulate_surroundings(histories: Sequence[History]) -> list[Table]:
    """Machines, and the versions of the newest record."""
    newest = max((history.newest for history in histories), key=lambda record: record.recorded_at)
    machines: dict[str, list[str]] = {}
    for history in histories:
        names = machines.setdefault(name_machine(history.newest), [])
        names += [] if history.newest.name in names else [history.newest.name]
    rows = [[machine, ", ".join(names)] for machine, names in machines.items()]
    return [Table("Machines", [], rows), *tabulate_nested(f"Versions ({newest.name})", dict(newest.versions))]
