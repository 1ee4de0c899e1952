"""Ids laid out as segments: a prefix with its branches, or an example whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.build.questions import Branch
from preprocess.forest import PackedRow
from preprocess.schema import ROOT


def make_group(song_id: str, prefix: list[int], branches: Sequence[Branch]) -> PackedRow:
    """A song's prefix and some of its examples as its branches. Exactly the answers are supervised."""
    mask = [False] * len(prefix)
    ids = list(prefix)
    for branch in branches:
        ids += branch.question
        ids += branch.answer
        mask += [False] * len(branch.question) + [True] * len(branch.answer)
    return PackedRow(
        input_ids=np.array(ids, dtype=np.int32),
        label_mask=np.array(mask, dtype=np.bool_),
        seq_lens=np.array([len(prefix), *(branch.length for branch in branches)], dtype=np.int32),
        parents=np.array([ROOT, *(0 for _ in branches)], dtype=np.int32),
        tasks=np.array([-1, *(branch.task for branch in branches)], dtype=np.int32),
        song_ids=(song_id,) * (1 + len(branches)),
    )


def make_whole(song_id: str, prompt: list[int], branch: Branch) -> PackedRow:
    """An example as a root of its own. Its first token opens the prompt, so it is never supervised."""
    length = len(prompt) + len(branch.answer)
    return PackedRow(
        input_ids=np.array(prompt + branch.answer, dtype=np.int32),
        label_mask=np.arange(length) >= len(prompt),
        seq_lens=np.array([length], dtype=np.int32),
        parents=np.array([ROOT], dtype=np.int32),
        tasks=np.array([branch.task], dtype=np.int32),
        song_ids=(song_id,),
    )
