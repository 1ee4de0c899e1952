"""The score of one answer, by its task.

| task | metrics |
|---|---|
| artist, genre | acc: the text gives the true name, and it alone, as its answer |
| context | acc: it gives the true decade alone; within_decade: an era at most one decade off; supported |
| themes | precision, recall, f1 of the sets; evidence: the share of quotations that are sung |
| similar | real, near, not_same: shares of the suggestions; precision_at_k; supported |
| analysis | complete: all headings are there; supported |
| structure, style, any other | supported |
| every task | refused: it declines and answers nothing; empty: neither a letter nor a digit |

"supported" is the share of the checkable claims that are so. A task without an answer that can be read (analysis,
structure, style, any other) is answered by a checkable claim or by all of its headings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harness.evaluation.scoring.eras import is_within_a_decade, read_decades
from harness.evaluation.scoring.headings import is_complete
from harness.evaluation.scoring.refusal import declines, says_nothing
from harness.evaluation.scoring.similar import Suggestion, find_suggestions, score_suggestions
from harness.evaluation.scoring.stated_name import read_name
from harness.evaluation.scoring.themes import read_themes, score_themes, sung_share
from harness.evaluation.scoring.words import normalise
from harness.evaluation.truth.claims import Claim, count_claims
from preprocess.knowledge import Knowledge, normal_name
from preprocess.schema import Song
from preprocess.tasks.instruct import answer_stem


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a song that a question is about.

    Attributes:
        song: The song with its facts and cleaned lyrics.
        themes: Its main themes, as `preprocess.tasks.main_themes` names them.
        expected: The whole text of the answer that training would teach.
        names: The closed set of names that are asked among (artist, genre, context); empty for other tasks.
    """

    song: Song
    themes: tuple[str, ...]
    expected: str
    names: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth.

    Attributes:
        values: Name of a metric → 0 … 1. A metric for which the answer holds nothing to measure is missing and does
            not count: "supported" without a checkable claim, "evidence" without a quotation.
        answer: What was read as the answer: a name as the closed set spells it, decades, themes or songs in a list;
            None where none could be read.
    """

    values: dict[str, float]
    answer: str | None


def score_answer(
    task: str, text: str, truth: Truth, knowledge: Knowledge | None, claims: Sequence[Claim]
) -> Score:
    """Score one answer. The same text gets the same score whoever wrote it.

    Args:
        task: What was asked.
        text: The answer, without special tokens.
        truth: What is true of the song.
        knowledge: The training songs, in which suggested songs are looked for; None where there is none.
        claims: What the truth check found in the answer.
    """
    normalised = normalise(text)
    score_task = _BY_TASK.get(task)
    values, answer = score_task(normalised, truth, knowledge) if score_task else ({}, None)
    if task not in ("artist", "genre", "themes"):
        values |= _supported(claims)
    is_answered = answer is not None or (
        task not in _READ and ("supported" in values or values.get("complete") == 1)
    )
    is_refusal = not is_answered and declines(normalised)
    values |= {"refused": float(is_refusal), "empty": float(says_nothing(normalised))}
    return Score(values, answer)


_Scored = tuple[dict[str, float], str | None]


def _supported(claims: Sequence[Claim]) -> dict[str, float]:
    rate = count_claims(claims).hallucination_rate
    return {} if rate is None else {"supported": 1 - rate}


def _score_name(task: str, name: str | None, text: str, truth: Truth) -> _Scored:
    if name is None:
        return {}, None
    names = frozenset({*truth.names, name})
    answer = read_name(text, answer_stem(task), names, is_genre=task == "genre")
    return {"acc": float(answer is not None and normal_name(answer) == normal_name(name))}, answer


def _score_artist(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    return _score_name("artist", truth.song.artist, text, truth)


def _score_genre(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    return _score_name("genre", truth.song.genre, text, truth)


def _score_context(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    stated = read_decades(text)
    answer = " or ".join(f"{decade}s" for decade in stated) or None
    if truth.song.year is None:
        return {}, answer
    true = truth.song.year // 10 * 10
    return {
        "acc": float(stated == (true,)),
        "within_decade": float(is_within_a_decade(stated, true)),
    }, answer


def _score_themes(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    named = read_themes(text, (*truth.names, *truth.themes))
    values = score_themes(named, truth.themes) if truth.themes else {}
    evidence = sung_share(text, truth.song)
    if evidence is not None:
        values["evidence"] = evidence
    return values, ", ".join(named) or None


def _score_similar(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    num_wanted = max(1, len(find_suggestions(truth.expected, knowledge)))
    values = score_suggestions(text, truth.song, truth.themes, num_wanted, knowledge)
    return values, "; ".join(map(_spell, find_suggestions(text, knowledge))) or None


def _spell(suggestion: Suggestion) -> str:
    title = f'"{suggestion.title}"' if suggestion.title else "a song"
    return f"{title} by {suggestion.artist}" if suggestion.artist else title


def _score_analysis(text: str, truth: Truth, knowledge: Knowledge | None) -> _Scored:
    return {"complete": float(is_complete(text, truth.expected))}, None


_BY_TASK: dict[str, Callable[[str, Truth, Knowledge | None], _Scored]] = {
    "artist": _score_artist,
    "genre": _score_genre,
    "context": _score_context,
    "themes": _score_themes,
    "similar": _score_similar,
    "analysis": _score_analysis,
}
_READ = _BY_TASK.keys() - {"analysis"}
"""Tasks whose answers are read."""
