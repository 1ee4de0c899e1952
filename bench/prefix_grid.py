"""What sharing the prefix saves over tasks a song and length of the lyrics, each point against separate examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.material import FIVE_TASKS, make_rows
from bench.record import Figure, compare, time_in_turns
from preprocess.forest import PackedRow
from preprocess.tokenizer import TextTokenizer

SHARED, SEPARATE = "shared", "separate"


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured.

    Attributes:
        task_counts: Tasks a song.
        line_counts: Lines of the lyrics.
        num_songs: At each point.
        seq_len: Slots in a row.
        num_turns: Timed.
    """

    task_counts: tuple[int, ...]
    line_counts: tuple[int, ...]
    num_songs: int
    seq_len: int
    num_turns: int


FULL = Grid((1, 2, 3, 5), (8, 24, 72), 2, 2048, 3)
QUICK = Grid((1, 5), (2, 8), 1, 1024, 2)


def measure_grid(
    grid: Grid,
    tokenizer: TextTokenizer,
    prepare: Callable[[Sequence[PackedRow]], Callable[[], float]],
    check: Callable[[float, float], None],
) -> tuple[dict[str, Figure], dict[str, float | int | str]]:
    """Time both ways at each point of the grid.

    Args:
        grid: The points.
        tokenizer: To encode with.
        prepare: From rows to what computes them and returns their mean token loss.
        check: Raises where the two losses differ.

    Returns:
        How many times as fast as separate examples, and both ways' tokens an example, by point.
    """
    figures: dict[str, Figure] = {}
    facts: dict[str, float | int | str] = {}
    for lines in grid.line_counts:
        for count in grid.task_counts:
            name = f"{count} tasks, {lines} lines"
            rows = {
                way: make_rows(
                    tokenizer,
                    grid.num_songs,
                    grid.seq_len,
                    share_prefix=way == SHARED,
                    tasks=FIVE_TASKS[:count],
                    num_lines=lines,
                )
                for way in (SEPARATE, SHARED)
            }
            turns = time_in_turns({way: prepare(part) for way, part in rows.items()}, grid.num_turns)
            check(turns.results[SHARED], turns.results[SEPARATE])
            figures[f"{name}: {SHARED} / {SEPARATE}"] = compare(
                turns.seconds[SEPARATE], turns.seconds[SHARED]
            )
            for way, part in rows.items():
                tokens = sum(len(row.input_ids) for row in part)
                facts[f"{name}: {way}_tokens_per_example"] = tokens / sum(row.num_examples for row in part)
    return figures, facts
