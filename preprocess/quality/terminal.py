"""The data-quality report on a terminal: the figures, the largest groups, and what to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from preprocess.quality.advice import Advice, advise
from preprocess.quality.overview import QualityReport
from preprocess.quality.sections import Bar, bars_of, list_bars, list_decades, list_figures, list_languages
from preprocess.quality.tallies import Reasons

_NUM_BARS = 8
_NUM_REASONS = 6
_NUM_ADVICES = 8
_STYLES = {"act": "bold red", "look": "yellow", "note": "dim"}
_MARKS = {"act": "!!", "look": "! ", "note": "  "}


def print_quality(report: QualityReport, console: Console) -> None:
    """Print the report; texts of songs are printed as they are, without markup."""
    console.print(_figures(report))
    counts = report.counts
    if counts.num_songs:
        columns = Table.grid(padding=(0, 3))
        columns.add_row(
            _bars("genre", list_bars(counts.genres, counts.num_songs, _NUM_BARS)),
            _bars("language", list_languages(counts, _NUM_BARS)),
            _bars("decade", list_decades(counts, _NUM_BARS)),
        )
        console.print(Padding(columns, (1, 0, 0, 0)))
    tables = [
        _bars(title, _reasons(reasons, whole))
        for title, reasons, whole in (
            ("rejected rows", counts.rejected, counts.num_rows),
            ("dropped songs", counts.dropped, counts.num_rows),
            ("suspect songs", counts.suspicions, counts.num_songs),
            ("against the metadata file", counts.disagreements, counts.num_songs),
        )
        if reasons.tally.total
    ]
    for start in range(0, len(tables), 2):
        row = Table.grid(padding=(0, 3))
        row.add_row(*tables[start : start + 2])
        console.print(Padding(row, (1, 0, 0, 0)))
    _print_advices(advise(report), console)


def _figures(report: QualityReport) -> Table:
    table = Table.grid(padding=(0, 2))
    figures = list_figures(report)
    half = -(-len(figures) // 2)
    for left, right in zip(figures[:half], figures[half:], strict=True):
        cells: list[Text] = []
        for figure in (left, right):
            cells += [
                Text(figure.label),
                Text(figure.value, "bold", justify="right"),
                Text(figure.note, "dim"),
            ]
        table.add_row(*cells)
    return table


def _reasons(reasons: Reasons, whole: int) -> list[Bar]:
    return bars_of([(name or "(none)", count) for name, count in reasons.tally.ranked(_NUM_REASONS)], whole)


def _bars(name: str, bars: Iterable[Bar]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(Text(name), header_style="bold", overflow="fold", max_width=44)
    table.add_column("count", justify="right", header_style="dim")
    table.add_column("share", justify="right", header_style="dim", style="dim")
    for bar in bars:
        table.add_row(Text(bar.name), bar.count, bar.share)
    return table


def _print_advices(advices: Sequence[Advice], console: Console) -> None:
    console.print()
    console.print(Text("What to look at", "bold") if advices else Text("Nothing stands out."))
    for advice in advices[:_NUM_ADVICES]:
        line = Text.assemble((_MARKS[advice.level], _STYLES[advice.level]), " ", advice.what)
        console.print(line, soft_wrap=False)
        console.print(Padding(Text(advice.remedy, "dim"), (0, 0, 0, 5)))
    if len(advices) > _NUM_ADVICES:
        console.print(Text(f"   and {len(advices) - _NUM_ADVICES} more, in the HTML page", "dim"))
