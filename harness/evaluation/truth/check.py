"""Finds the claims of a text and checks each."""

from __future__ import annotations

from harness.evaluation.truth.claims import Claim
from preprocess.knowledge import Knowledge
from preprocess.schema import Song


def check_statements(text: str, song: Song, knowledge: Knowledge, *, introduced: str = "") -> list[Claim]:
    """What a text says of a song, sentence by sentence, each claim with a verdict.

    Args:
        text: An answer of ours or of any model.
        song: The song that was asked about, with the lyrics that the model saw; a fact that is None is not known.
        knowledge: Of the data set.
        introduced: What the question stated of the song. A claim that only repeats it is not the model's own, and is
            "not checkable"; one that differs from the song's facts is contradicted all the same.

    Returns:
        Claims in the order of the text, without overlap; a sentence without any is one claim of kind "none".
    """
    raise NotImplementedError
