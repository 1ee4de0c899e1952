"""Lyrics cut at a line end to a number of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from preprocess.tokenizer import TextTokenizer


def cut_lyrics(
    lyrics: str, budget: int, tokenizer: TextTokenizer, measure: Callable[[str], int]
) -> str | None:
    """The longest run of whole lines from the start that takes at most `budget` tokens.

    Lines are counted one by one to guess how many fit; the guess is then set right by `measure`, for tokens may
    reach across line ends.

    Args:
        lyrics: Lines with a newline between them; longer than the budget.
        budget: Tokens.
        tokenizer: To guess with.
        measure: Tokens of lyrics in their place in the prompt.

    Returns:
        The lines without empty ones at the end, or None when not even the first line that is not empty fits.
    """
    lines = lyrics.split("\n")
    ends = list(accumulate(len(ids) for ids in tokenizer.encode_batch([f"{line}\n" for line in lines])))
    num_lines = min(bisect_right(ends, budget), len(lines) - 1)
    kept = _join(lines, num_lines)
    while kept and measure(kept) > budget:
        num_lines -= 1
        kept = _join(lines, num_lines)
    while num_lines + 1 < len(lines):
        longer = _join(lines, num_lines + 1)
        if longer != kept and longer and measure(longer) > budget:
            break
        num_lines, kept = num_lines + 1, longer
    return kept if kept.strip() else None


def _join(lines: list[str], num_lines: int) -> str:
    return "\n".join(lines[:num_lines]).rstrip("\n")
