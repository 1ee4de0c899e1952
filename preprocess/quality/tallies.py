"""Counts by name that stay small whatever comes, and can be made in parts: in any number of them, the same sums.

A tally tells the first `MAX_NAMES` names of its input apart and counts the rest together. A part with at most so
many names never reaches the limit, so parts merged in the order of the input give what one pass gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preprocess.schema import Song

MAX_NAMES = 4096
"""Names that a tally tells apart; more than a chunk of the input has rows."""

MAX_NAME_CHARS = 80
"""Longer names are cut: a free-text genre may be a whole paragraph."""

SAMPLES_PER_REASON = 5
"""Songs or rows that are kept to show a reason, the first ones of the input."""

OTHER = "(other)"
"""What names beyond the limit are shown as."""

_SEPARATOR = "\x00"


def shorten(text: str) -> str:
    """One line of at most `MAX_NAME_CHARS` characters that can be written as UTF-8."""
    line = " ".join(text[: 4 * MAX_NAME_CHARS].split()) if text else ""
    line = line if len(line) <= MAX_NAME_CHARS else line[: MAX_NAME_CHARS - 1] + "…"
    # File names that are no UTF-8 come with lone surrogates.
    return line.encode("utf-8", "replace").decode()


def first_line(lyrics: str) -> str:
    """The first line that is sung, shortened: headings are passed over; the first line of all where all are."""
    start = lyrics[:2000].strip()
    lines = [line for line in start.split("\n") if line.strip()]
    sung = (line for line in lines if not (line.startswith("[") and line.rstrip().endswith("]")))
    return shorten(next(sung, lines[0] if lines else ""))


@dataclass(slots=True)
class Tally:
    """Name → how often it came.

    Attributes:
        counts: Of the names told apart, in the order in which they first came. "" stands for none.
        num_other: Of all other names together.
    """

    counts: dict[str, int] = field(default_factory=dict)
    num_other: int = 0

    def add(self, name: str, count: int = 1) -> None:
        """Count a name."""
        if name in self.counts:
            self.counts[name] += count
        else:
            self._add_unseen(name, count)

    def _add_unseen(self, name: str, count: int) -> None:
        name = shorten(name)
        if name in self.counts or len(self.counts) < MAX_NAMES:
            self.counts[name] = self.counts.get(name, 0) + count
        else:
            self.num_other += count

    def merge(self, later: Tally) -> None:
        """Add the counts of a part of the input that comes after this one's."""
        for name, count in later.counts.items():
            self.add(name, count)
        self.num_other += later.num_other

    @property
    def total(self) -> int:
        """Sum of all counts."""
        return sum(self.counts.values()) + self.num_other

    def ranked(self, most: int | None = None) -> list[tuple[str, int]]:
        """Names and counts, largest first, equals by name; beyond `most`, all others as `OTHER`."""
        named = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown, rest = (named, []) if most is None else (named[:most], named[most:])
        num_other = self.num_other + sum(count for _, count in rest)
        return shown + ([(OTHER, num_other)] if num_other else [])

    def to_state(self) -> list[Any]:
        """JSON values for `from_state`; a list, for it keeps the order of the names."""
        return [list(self.counts), list(self.counts.values()), self.num_other]

    @classmethod
    def from_state(cls, state: list[Any]) -> Tally:
        """The tally that gave this state."""
        names, counts, num_other = state
        return cls(dict(zip(names, counts, strict=True)), num_other)


@dataclass(slots=True)
class PairTally:
    """Pair of names → how often it came, as a source's tag and the genre made of it; bounded as `Tally` is."""

    tally: Tally = field(default_factory=Tally)

    def add(self, first: str, second: str) -> None:
        """Count a pair."""
        key = first + _SEPARATOR + second
        counts = self.tally.counts
        if key in counts:
            counts[key] += 1
        elif len(key) <= MAX_NAME_CHARS:
            self.tally.add(key)
        else:
            half = MAX_NAME_CHARS // 2 - 1
            self.tally.add(f"{shorten(first)[:half]}{_SEPARATOR}{shorten(second)[:half]}")

    def ranked(self) -> list[tuple[str, str, int]]:
        """Both names and the count, largest first, equals by names."""
        ranked = sorted(self.tally.counts.items(), key=lambda item: (-item[1], item[0]))
        return [(*_parts(key), count) for key, count in ranked]


def _parts(key: str) -> tuple[str, str]:
    first, _, second = key.rpartition(_SEPARATOR)
    return first, second


@dataclass(frozen=True, slots=True)
class Sample:
    """A song or a row, short enough to be shown.

    Attributes:
        title: Title, or None.
        artist: Artist, or None.
        line: Beginning of the first line that is sung.
        note: What there is to say of it: where it stands, or what contradicts what.
    """

    title: str | None
    artist: str | None
    line: str
    note: str = ""

    @classmethod
    def of(cls, song: Song, note: str = "") -> Sample:
        """The sample of a song."""
        return cls(
            shorten(song.title) if song.title else None,
            shorten(song.artist) if song.artist else None,
            first_line(song.lyrics),
            note,
        )

    def to_json(self) -> dict[str, str]:
        """What there is of it, by name."""
        values = {"title": self.title, "artist": self.artist, "line": self.line, "note": self.note}
        return {name: value for name, value in values.items() if value}


@dataclass(slots=True)
class Reasons:
    """A tally of reasons, with the first songs or rows of each.

    Attributes:
        tally: Reason → how often it came.
        samples: Reason → at most `SAMPLES_PER_REASON`; reasons that are not told apart have none.
    """

    tally: Tally = field(default_factory=Tally)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, reason: str, make_sample: Callable[[], Sample]) -> None:
        """Count a reason; the sample is made only if it is to be kept."""
        self.tally.add(reason)
        kept = self.samples.get(reason)
        if kept is None:
            reason = shorten(reason)
            if reason not in self.tally.counts:
                return
            kept = self.samples.setdefault(reason, [])
        if len(kept) < SAMPLES_PER_REASON:
            kept.append(make_sample())

    def merge(self, later: Reasons) -> None:
        """Add a part of the input that comes after this one's."""
        self.tally.merge(later.tally)
        for reason, samples in later.samples.items():
            if reason in self.tally.counts:
                kept = self.samples.setdefault(reason, [])
                kept += samples[: SAMPLES_PER_REASON - len(kept)]

    def to_state(self) -> list[Any]:
        """JSON values for `from_state`."""
        samples = [
            [reason, [[sample.title, sample.artist, sample.line, sample.note] for sample in kept]]
            for reason, kept in self.samples.items()
        ]
        return [self.tally.to_state(), samples]

    @classmethod
    def from_state(cls, state: list[Any]) -> Reasons:
        """The reasons that gave this state."""
        tally, samples = state
        return cls(
            Tally.from_state(tally),
            {reason: [Sample(*values) for values in kept] for reason, kept in samples},
        )
