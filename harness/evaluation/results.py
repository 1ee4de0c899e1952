"""One question's result by one system, as ranks hand it over and as the tables are made from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from harness.evaluation.settings import Method

System: TypeAlias = Literal["before", "after", "few_shot"]
SYSTEMS: tuple[System, ...] = ("before", "after", "few_shot")
Key: TypeAlias = tuple[System, Method, str, str]
"""Whose answer, how asked, task and song."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one system answered one question.

    Attributes:
        system: "before" is the base model, "after" the base with the adapter, "few_shot" the base with examples.
        method: Whether names were ranked or an answer was written.
        task: What was asked.
        song_id: About which song.
        truth: The name that was asked for, of a closed set; None for other tasks.
        is_seen: Whether training has seen that name; other results count in no score.
        values: Metric → 0 … 1.
        answer: What was read as the answer, or the likeliest name; None where nothing could be read.
        confidence: Probability of the likeliest name among all; of a written answer the mean probability of its tokens.
        margin: How far the true name is ahead of the likeliest other one, in nats; None of a written answer.
        scores: Log-likelihood of each name in nats, in the order of the task's names; empty for a written answer.
        text: The written answer; None where names were ranked.
        num_tokens: Tokens that were written.
        is_finished: Whether the answer ended by itself.
        claims: Supported, contradicted and not checkable claims of a written answer.
        overlap_words: Words of its longest verbatim run in common with the training lyrics.
        overlap_text: That run.
        overlap_song: A song that sings it.
    """

    system: System
    method: Method
    task: str
    song_id: str
    truth: str | None
    is_seen: bool
    values: Mapping[str, float]
    answer: str | None
    confidence: float | None = None
    margin: float | None = None
    scores: tuple[float, ...] = ()
    text: str | None = None
    num_tokens: int = 0
    is_finished: bool = True
    claims: tuple[int, int, int] = (0, 0, 0)
    overlap_words: int = 0
    overlap_text: str = ""
    overlap_song: str | None = None

    @property
    def key(self) -> Key:
        """What it is the only result of."""
        return self.system, self.method, self.task, self.song_id

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def to_sample(self) -> dict[str, Any]:
        """As a line of the samples file: what this method gives, without the scores of each name."""
        hidden = {"scores"} | ({"margin"} if self.method == "generate" else WRITTEN)
        return {name: value for name, value in asdict(self).items() if name not in hidden}


WRITTEN = {"text", "num_tokens", "is_finished", "claims", "overlap_words", "overlap_text", "overlap_song"}


def result_from_json(value: Mapping[str, Any]) -> Result:
    """What `Result.to_json` gave."""
    known = {field.name: value[field.name] for field in fields(Result)}
    return Result(**known | {"scores": tuple(known["scores"]), "claims": tuple(known["claims"])})


def in_order(results: Iterable[Result], song_ids: Iterable[str]) -> list[Result]:
    """Results by system, method, task and song, whatever ranks they come from.

    Raises:
        ValueError: A question was answered twice by the same system and method, which would count it twice.
    """
    place = {song_id: i for i, song_id in enumerate(song_ids)}
    found = list(results)
    keyed = {(SYSTEMS.index(r.system), r.method, r.task, place[r.song_id]): r for r in found}
    if len(keyed) != len(found):
        raise ValueError(f"{len(found)} results, of which {len(keyed)} are different questions")
    return [keyed[key] for key in sorted(keyed)]


def check_complete(results: Iterable[Result], expected: Collection[Key]) -> None:
    """See that everything that was to be asked has its result, and nothing else has one.

    Raises:
        ValueError: A song was no rank's, or one was asked that was not chosen.
    """
    found = {result.key for result in results}
    if found != set(expected):
        example = min(found ^ set(expected))
        raise ValueError(f"{len(found)} results of {len(expected)} questions; one that differs: {example}")
