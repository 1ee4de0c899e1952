"""Tables in Markdown: those that README shows, and one for each program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.recorded import Record
from bench.report.chosen import History
from bench.report.page import list_cells

OTHERS = ("trl", "trl_patched", "trainer_deepspeed")
TASKS = {"one_task": "one", "five_tasks": "five", "eight_tasks": "eight"}
SHOWN = {"artist": "artist", "genre": "genre", "context": "context (decade)"}


def write_markdown(histories: Sequence[History]) -> Iterator[str]:
    """README's tables first, then every program's; the lines of a document."""
    newest = {history.newest.name: history.newest for history in histories}
    yield from list_readme_lines(newest)
    for history in histories:
        record = history.newest
        ratios = {f"{way} / {record.baseline}": ratio for way, ratio in record.ratios.items()}
        rows = [list_cells(name, figure) for name, figure in {**record.figures, **ratios}.items()]
        yield f"## {record.name}: {record.question}"
        yield ""
        yield from write_table(["quantity", "median", "p20 to p80", "n", "unit"], rows)
        yield ""


def list_readme_lines(newest: Mapping[str, Record]) -> Iterator[str]:
    """The rows of the tables that README shows, as they must stand there.

    Args:
        newest: Records by program; a table whose records are missing is left out.
    """
    if "quickstart" in newest:
        yield from write_table(
            ["task", "names", "guessing", "TF-IDF", "before", "after"], list_accuracy(newest["quickstart"])
        )
        yield ""
    if {"trl", "trl_smollm2"} <= set(newest):
        columns = [
            "questions a song",
            "TRL at its best: SmolLM2-135M, small Llama",
            "TRL with its head patched to supervised positions",
            "transformers' Trainer with ZeRO-1",
        ]
        yield from write_table(columns, list_speeds(newest["trl_smollm2"], newest["trl"]))
        yield ""


def list_accuracy(record: Record) -> list[list[str]]:
    """Rows of accuracy on held-out songs: by guessing, by TF-IDF (where it was measured), before and after."""
    facts = {key: float(value) for key, value in record.facts.items() if isinstance(value, int | float)}
    rows = []
    for task, shown in SHOWN.items():
        spans = [
            f"{facts[f'{task}_{version}_accuracy']:.0%} "
            f"[{100 * facts[f'{task}_{version}_low']:.0f}, {100 * facts[f'{task}_{version}_high']:.0f}]"
            for version in ("before", "after")
        ]
        words = facts.get(f"{task}_tfidf")
        cells = [shown, f"{1 / facts[f'{task}_chance']:.0f}", percent(facts[f"{task}_chance"])]
        cells.append("-" if words is None else percent(words))
        rows.append([*cells, *(span.replace("%", " %", 1) for span in spans)])
    return rows


def percent(share: float) -> str:
    """A share as whole percent; a half goes up, as people round."""
    return f"{int(100 * share + 0.5)} %"


def list_speeds(small: Record, toy: Record) -> list[list[str]]:
    """Rows of examples/s against others, by questions a song."""
    return [
        [
            shown,
            *(
                ", ".join(
                    f"{record.ratios[f'{tasks} against {other}'].median:.1f}" for record in (small, toy)
                )
                for other in OTHERS
            ),
        ]
        for tasks, shown in TASKS.items()
    ]


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table's lines; a bar within a cell is escaped."""
    yield to_row(columns)
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield to_row(row)


def to_row(cells: Sequence[str]) -> str:
    """A row's line."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
