"""What a demo shows: questions, the answers of both models, and what is known of each answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from harness.evaluation.truth.claims import Claim, Verdict
from preprocess.durable import make_folder, write_text_durably

DEMO_FILE = "demo.json"

EXCERPT_LINES = 6

EXCERPT_CHARS = 480
"""More than six lines of a song take; a text without line ends is cut at it."""

ELLIPSIS = "…"

MAX_TOKENS_PER_S = 1e9
"""No model is faster."""

Version = Literal["before", "after"]
"""As `harness.tuned` names them; this module starts without torch."""

VERSIONS: tuple[Version, ...] = get_args(Version)


@dataclass(frozen=True, slots=True)
class Mark:
    """One claim of an answer and what the truth check says of it.

    Attributes:
        start: Where it begins in the answer, in characters.
        end: Where it ends.
        verdict: Whether it is so.
        why: What the verdict rests on.
        kind: What it is about; "none" for a sentence in which nothing can be checked.
    """

    start: int
    end: int
    verdict: Verdict
    why: str
    kind: str = ""

    @staticmethod
    def of(claim: Claim) -> Mark:
        """The mark of a claim."""
        return Mark(claim.start, claim.end, claim.verdict, claim.why, claim.kind)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an answer that is one claim, or lies between claims.

    Attributes:
        text: Its text.
        mark: The claim's mark, or None.
    """

    text: str
    mark: Mark | None


def split_marked(text: str, marks: Iterable[Mark]) -> Iterator[Stretch]:
    """An answer cut at its claims, complete and in order; a claim that begins inside of another yields its rest."""
    done = 0
    for mark in sorted(marks, key=lambda mark: (mark.start, mark.end)):
        start, end = max(mark.start, done), min(mark.end, len(text))
        if start >= end:
            continue
        if start > done:
            yield Stretch(text[done:start], None)
        yield Stretch(text[start:end], mark)
        done = end
    if done < len(text):
        yield Stretch(text[done:], None)


@dataclass(frozen=True, slots=True)
class Reply:
    """One model's answer.

    Attributes:
        text: The answer; it ends in `ELLIPSIS` where it was cut.
        confidence: Probability of the likeliest name where the question has a closed set of names, else the mean
            probability of the answer's tokens; 0 to 1, None where it is not known.
        likeliest: That name, or None.
        marks: The truth check's, in the order of the text.
        tokens_per_s: Generated tokens a second, or None.
    """

    text: str
    confidence: float | None = None
    likeliest: str | None = None
    marks: tuple[Mark, ...] = ()
    tokens_per_s: float | None = None

    @property
    def stretches(self) -> list[Stretch]:
        """The text, cut at its claims."""
        return list(split_marked(self.text, self.marks))

    @property
    def checked(self) -> list[Mark]:
        """The marks of claims; sentences without one are left out."""
        return [mark for mark in self.marks if mark.kind != "none"]

    def count(self, verdict: Verdict) -> int:
        """Claims with a verdict."""
        return sum(mark.verdict == verdict for mark in self.checked)


@dataclass(frozen=True, slots=True)
class DemoItem:
    """One question with the answers of both models. What is not known, or was not asked, is None.

    Attributes:
        title: Of the song.
        artist: The true one.
        lyrics_excerpt: Its first lines.
        question: As the model got it.
        expected: The right answer.
        before: The base model's answer.
        after: The answer with the adapter; None without one.
        song_id: Of the song.
        task: The task that the question belongs to.
        confidence_before: See `Reply`; as the other fields of that kind.
        confidence_after: See there.
        likeliest_before: See there.
        likeliest_after: See there.
        claims_before: See there.
        claims_after: See there.
        tokens_per_s_before: See there.
        tokens_per_s_after: See there.
        is_stored: Whether the answers come from a file instead of a model that is there.
        date: Day on which they were generated, as in 2026-11-28; "" where it is not known.
    """

    title: str | None
    artist: str | None
    lyrics_excerpt: str
    question: str
    expected: str | None
    before: str
    after: str | None
    song_id: str | None = None
    task: str | None = None
    confidence_before: float | None = None
    confidence_after: float | None = None
    likeliest_before: str | None = None
    likeliest_after: str | None = None
    claims_before: tuple[Mark, ...] = ()
    claims_after: tuple[Mark, ...] = ()
    tokens_per_s_before: float | None = None
    tokens_per_s_after: float | None = None
    is_stored: bool = False
    date: str = ""

    @property
    def before_reply(self) -> Reply:
        """The base model's answer with all that is known of it."""
        return Reply(
            self.before,
            self.confidence_before,
            self.likeliest_before,
            self.claims_before,
            self.tokens_per_s_before,
        )

    @property
    def after_reply(self) -> Reply | None:
        """The tuned model's answer with all that is known of it, or None without one."""
        if self.after is None:
            return None
        return Reply(
            self.after,
            self.confidence_after,
            self.likeliest_after,
            self.claims_after,
            self.tokens_per_s_after,
        )

    @property
    def is_answered(self) -> bool:
        """Whether a model was asked, now or when its answers were stored; an answer may be empty."""
        return self.is_stored or bool(self.date or self.before or self.after)

    @property
    def replies(self) -> dict[Version, Reply]:
        """The answers that there are."""
        replies: dict[Version, Reply] = {"before": self.before_reply}
        if self.after_reply is not None:
            replies["after"] = self.after_reply
        return replies


def parse_item(value: dict[str, Any]) -> DemoItem:
    """An item out of what `asdict` made of it.

    Raises:
        ValueError: A field is missing or of another kind.
        TypeError: The same.
    """
    known = {one.name for one in fields(DemoItem)}
    claims = {
        name: tuple(_parse_mark(mark) for mark in value.get(name, ()))
        for name in ("claims_before", "claims_after")
    }
    item = DemoItem(**{key: found for key, found in value.items() if key in known} | claims)
    _check_texts(item.lyrics_excerpt, item.question, item.before, item.date)
    optional = (item.title, item.artist, item.expected, item.after, item.song_id, item.task)
    likeliest = (item.likeliest_before, item.likeliest_after)
    _check_texts(*(text for text in (*optional, *likeliest) if text is not None))
    _check_figures(1.0, item.confidence_before, item.confidence_after)
    _check_figures(MAX_TOKENS_PER_S, item.tokens_per_s_before, item.tokens_per_s_after)
    return item


def _parse_mark(value: dict[str, Any]) -> Mark:
    mark = Mark(**value)
    _check_texts(mark.why, mark.kind)
    places = (mark.start, mark.end)
    is_placed = all(type(place) is int for place in places) and 0 <= mark.start <= mark.end
    if mark.verdict not in get_args(Verdict) or not is_placed:
        raise ValueError(f"a claim with the verdict {mark.verdict!r} at {mark.start!r}..{mark.end!r}")
    return mark


def _check_texts(*texts: object) -> None:
    """Refuse what is no text, or none that UTF-8 can hold (half of a surrogate pair)."""
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} where a text is expected")
        text.encode()


def _check_figures(most: float, *figures: object) -> None:
    """Refuse what is neither None nor a number from 0 to `most`."""
    for figure in figures:
        if figure is None:
            continue
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not 0 <= figure <= most:
            raise ValueError(f"{figure!r} where a number from 0 to {most:,.0f} or null is expected")


@dataclass(frozen=True, slots=True)
class Demo:
    """Some questions and answers.

    Attributes:
        items: The questions, in the order they were asked.
        seconds: What generating took; loading, ranking and the truth check left out.
        num_tokens: Generated tokens, by all models together.
        note: What the reader must know (lyrics that were cut), or None.
        failure: What stopped the generation, or None; the items after it are stored ones.
        num_unanswered: Questions that have no answer for it, not even a stored one.
    """

    items: list[DemoItem]
    seconds: float
    num_tokens: int
    note: str | None = None
    failure: str | None = None
    num_unanswered: int = field(default=0)

    def to_json(self) -> list[dict[str, Any]]:
        """The items, in the form of `demo.json`."""
        return [to_json(item) for item in self.items]


def to_json(item: DemoItem) -> dict[str, Any]:
    """An item as JSON holds it."""
    value = asdict(item)
    return value | {name: list(value[name]) for name in ("claims_before", "claims_after")}


def write_demo(folder: Path, demo: Demo) -> None:
    """Write `demo.json` into a folder, made if it is missing.

    Raises:
        DataError: The folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    make_folder(folder)
    text = json.dumps(demo.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(folder / DEMO_FILE, text + "\n")


def shorten(lyrics: str) -> str:
    """The first few lines, with a mark where something was left out."""
    lines = lyrics.split("\n")
    first = "\n".join(lines[:EXCERPT_LINES]).rstrip("\n")
    if len(first) > EXCERPT_CHARS:
        return f"{first[:EXCERPT_CHARS].rstrip()} {ELLIPSIS}"
    return f"{first}\n{ELLIPSIS}" if len(lines) > EXCERPT_LINES else first


def count_lines(lyrics: str) -> int:
    """Lines, empty ones included."""
    return lyrics.count("\n") + 1


def join_notes(notes: Sequence[str | None]) -> str | None:
    """What the reader must know, in one text; None where there is nothing."""
    told = [note for note in notes if note]
    return " ".join(told) if told else None
