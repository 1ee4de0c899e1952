"""Are the themes that the lexicon finds in hymns those that people found in them?

The hymns (../shared/data/hymns.jsonl) carry topics given by people, each of which stands for themes of the lexicon
(`bench.hymn_topics`). A way names `NUM_THEMES` themes a hymn at most; a theme is right when a topic of the hymn stands
for it. Precision, recall and F1 are over all names of all hymns (micro).

The lexicon was tuned on one half of the hymns, by a hash of the title; the figures are of the other half.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from bench.hymn_topics import HYMNS, TOPICS
from bench.record import Figure, Outcome, summarize
from preprocess.errors import DataError
from preprocess.measure.themes import find_themes, load_lexicon

NUM_THEMES = 3
NUM_CHANCE_RUNS = 200
CHANCE = "chance"
LEXICON, KEYWORDS, FREQUENT, NEAREST = "lexicon", "four keyword lists", "most frequent", "tf-idf"
"""Ways: the lexicon; the plan's keyword lists; always the themes that the tuning half has most; and those that the
nearest hymns of the tuning half have most. The last two have learnt from people's topics, the lexicon has not."""

NUM_NEAREST = 10

KEYWORD_LISTS = {
    "love": ("love", "heart", "romance", "together"),
    "success": ("money", "success", "winner", "top"),
    "struggle": ("pain", "fight", "hard", "struggle"),
    "freedom": ("free", "escape", "liberate", "break"),
}
"""The plan's themes: each is found where one of its keywords is part of the text."""

Themes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hymn:
    """A hymn with the themes that its topics stand for."""

    title: str
    lyrics: str
    themes: frozenset[str]

    @property
    def is_for_tuning(self) -> bool:
        """Whether the lexicon was tuned on it."""
        return hashlib.sha256(self.title.encode()).digest()[0] % 2 == 0


@dataclass(frozen=True, slots=True)
class Score:
    """How many names are right.

    Attributes:
        num_right: Names that are themes of their hymn.
        num_named: Names.
        num_true: Themes of the hymns.
    """

    num_right: int
    num_named: int
    num_true: int

    @property
    def precision(self) -> float:
        """Right names among the names, 0 to 1."""
        return self.num_right / max(1, self.num_named)

    @property
    def recall(self) -> float:
        """Right names among the themes, 0 to 1."""
        return self.num_right / max(1, self.num_true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.num_right / max(1, self.num_named + self.num_true)


def measure(*, quick: bool) -> Outcome:
    """Name themes in every way, and compare with people's.

    Raises:
        DataError: The hymns are not there.
    """
    hymns = read_hymns(HYMNS)
    tuned = [hymn for hymn in hymns if hymn.is_for_tuning]
    held_out = [hymn for hymn in hymns if not hymn.is_for_tuning]
    ways = make_ways(tuned)
    named = {name: way(held_out) for name, way in ways.items()}
    scores = {name: score(held_out, names) for name, names in named.items()}
    tuning_score = score(tuned, name_by_lexicon(tuned))
    chance = chance_f1(tuned, held_out, 20 if quick else NUM_CHANCE_RUNS)
    return Outcome(
        baseline=KEYWORDS,
        figures={f"{CHANCE}_f1": chance, **_figures(scores)},
        ratios={},
        facts={
            "hymns": len(held_out),
            "themes_per_hymn": sum(len(hymn.themes) for hymn in held_out) / len(held_out),
            "themes_named": NUM_THEMES,
            "best_possible_f1": best_f1(held_out),
            "lexicon_f1_on_tuning_half": tuning_score.f1,
            "lexicon_themes": len(load_lexicon("themes").about),
            "hymns_without_a_theme_found": sum(not names for names in named[LEXICON]),
        },
    )


def _figures(scores: dict[str, Score]) -> dict[str, Figure]:
    return {
        f"{name}_{quantity}": summarize([getattr(its, quantity)], "")
        for name, its in scores.items()
        for quantity in ("precision", "recall", "f1")
    }


def read_hymns(path: Path) -> list[Hymn]:
    """The hymns that have a topic in `TOPICS`.

    Raises:
        DataError: The file is not there.
    """
    if not path.is_file():
        raise DataError(f"no hymns at {path}; they are the data that themes are compared on")
    hymns = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        topics = [topic.replace("&amp;", "&") for topic in row["topics"] or []]
        themes = frozenset(theme for topic in topics for theme in TOPICS.get(topic, ()))
        if themes:
            hymns.append(Hymn(row["title"], row["lyrics"], themes))
    return hymns


def make_ways(tuned: Sequence[Hymn]) -> dict[str, Callable[[Sequence[Hymn]], list[Themes]]]:
    """The ways of naming themes, by name; those that learn do so from the tuning half."""
    return {
        LEXICON: name_by_lexicon,
        KEYWORDS: name_by_keywords,
        FREQUENT: partial(name_frequent, tuned),
        NEAREST: partial(name_by_nearest, tuned),
    }


def name_by_lexicon(hymns: Sequence[Hymn]) -> list[Themes]:
    """The strongest themes of the lexicon."""
    return [tuple(theme.theme for theme in find_themes(hymn.lyrics, NUM_THEMES)) for hymn in hymns]


def name_by_keywords(hymns: Sequence[Hymn]) -> list[Themes]:
    """The plan's themes, in its order. Its "love" counts as right for "divine love" as well."""
    found = []
    for hymn in hymns:
        text = hymn.lyrics.lower()
        names = [theme for theme, words in KEYWORD_LISTS.items() if any(word in text for word in words)]
        sacred = "divine love" in hymn.themes and "love" not in hymn.themes
        found.append(
            tuple("divine love" if name == "love" and sacred else name for name in names[:NUM_THEMES])
        )
    return found


def name_frequent(tuned: Sequence[Hymn], hymns: Sequence[Hymn]) -> list[Themes]:
    """The themes that most hymns of the tuning half have, for every hymn."""
    counts = count_themes(tuned)
    best = tuple(sorted(counts, key=lambda theme: (-counts[theme], theme))[:NUM_THEMES])
    return [best for _ in hymns]


def name_by_nearest(tuned: Sequence[Hymn], hymns: Sequence[Hymn]) -> list[Themes]:
    """The themes that most of the `NUM_NEAREST` hymns of the tuning half have whose TF-IDF vectors are the nearest."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    vectors = vectorizer.fit_transform([hymn.lyrics for hymn in tuned])
    similar = (vectorizer.transform([hymn.lyrics for hymn in hymns]) @ vectors.T).toarray()
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :NUM_NEAREST]
    return [name_frequent([tuned[index] for index in row], hymns[:1])[0] for row in nearest.tolist()]


def count_themes(hymns: Sequence[Hymn]) -> Counter[str]:
    """Hymns with each theme."""
    return Counter(theme for hymn in hymns for theme in sorted(hymn.themes))


def score(hymns: Sequence[Hymn], named: Sequence[Themes]) -> Score:
    """Count the right names."""
    pairs = list(zip(hymns, named, strict=True))
    return Score(
        num_right=sum(len(hymn.themes.intersection(names)) for hymn, names in pairs),
        num_named=sum(len(names) for _, names in pairs),
        num_true=sum(len(hymn.themes) for hymn in hymns),
    )


def best_f1(hymns: Sequence[Hymn]) -> float:
    """What naming `NUM_THEMES` right themes a hymn, or all where it has fewer, comes to."""
    return score(hymns, [tuple(sorted(hymn.themes))[:NUM_THEMES] for hymn in hymns]).f1


def chance_f1(tuned: Sequence[Hymn], hymns: Sequence[Hymn], num_runs: int) -> Figure:
    """F1 of `NUM_THEMES` different themes a hymn drawn by how many hymns of the tuning half have them."""
    counts = count_themes(tuned)
    themes = sorted(counts)
    weights = np.array([counts[theme] for theme in themes], np.float64)
    random = np.random.default_rng(0)
    values = []
    for _ in range(num_runs):
        drawn = [
            random.choice(len(themes), NUM_THEMES, replace=False, p=weights / weights.sum()) for _ in hymns
        ]
        values.append(score(hymns, [tuple(themes[index] for index in row) for row in drawn]).f1)
    return summarize(values, "")
