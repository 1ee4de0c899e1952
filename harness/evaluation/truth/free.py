"""What free text says of a song."""

from __future__ import annotations

from harness.evaluation.truth.found import Found
from harness.evaluation.truth.subject import Subject


class FreeText:
    """Reads free text about one song.

    Args:
        subject: The song.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def read(self, text: str, start: int, end: int) -> list[Found]:
        """The claims of the sentence from `start` to `end`."""
        return []
