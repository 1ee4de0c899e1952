"""What encoding did, as counts that add up over pieces of work in any order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SUMS = ("shared", "alone", "without_lyrics", "songs_cut", "songs_split", "seams_checked", "seams_differing")
_REASONS = ("dropped", "examples_dropped")


@dataclass(slots=True)
class EncodeCounts:
    """What encoding did, for the manifest and the messages.

    Attributes:
        shared: Examples stored as a branch of their song's prefix.
        alone: Examples stored whole, because their ids change when the prefix is split off or sharing is off.
        without_lyrics: Examples that follow no lyrics, stored whole.
        songs_cut: Songs whose lyrics were shortened at a line end to fit.
        songs_split: Songs whose examples needed more than one group, the prefix repeated.
        seams_checked: Songs of which every example was compared with its ids in one piece.
        seams_differing: Those of them that had a difference, and so were stored whole.
        dropped: Songs without an example in the shards, by reason.
        examples_dropped: Examples that do not fit the row, of songs that may have others, by reason.
        shortest_prompt: Tokens of the shortest prompt and answer seen, with no lyrics at all.
    """

    shared: int = 0
    alone: int = 0
    without_lyrics: int = 0
    songs_cut: int = 0
    songs_split: int = 0
    seams_checked: int = 0
    seams_differing: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples_dropped: Counter[str] = field(default_factory=Counter)
    shortest_prompt: int | None = None

    def note_prompt(self, num_tokens: int) -> None:
        """Remember the shortest prompt."""
        known = self.shortest_prompt
        self.shortest_prompt = num_tokens if known is None else min(known, num_tokens)

    def merge(self, other: EncodeCounts) -> None:
        """Add another's counts to these."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _REASONS:
            getattr(self, name).update(getattr(other, name))
        if other.shortest_prompt is not None:
            self.note_prompt(other.shortest_prompt)

    def to_state(self) -> dict[str, Any]:
        """The counts as JSON values, the reasons in the order of the alphabet."""
        sums = {name: getattr(self, name) for name in _SUMS}
        reasons = {name: dict(sorted(getattr(self, name).items())) for name in _REASONS}
        return {**sums, **reasons, "shortest_prompt": self.shortest_prompt}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EncodeCounts:
        """The counts that `to_state` gave."""
        return cls(**{**state, **{name: Counter(state[name]) for name in _REASONS}})
