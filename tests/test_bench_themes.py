from __future__ import annotations

import pytest

from bench.hymn_topics import HYMNS, TOPICS
from bench.themes import (
    KEYWORDS,
    LEXICON,
    NUM_THEMES,
    Hymn,
    best_f1,
    measure,
    name_by_keywords,
    name_frequent,
    score,
)
from preprocess.measure.themes import load_lexicon

HYMN = Hymn("a", "the pain of love", frozenset({"love", "loss", "time", "hope"}))
OTHER = Hymn("b", "", frozenset({"love"}))


def test_topics_stand_for_themes_of_the_lexicon() -> None:
    assert {theme for themes in TOPICS.values() for theme in themes} <= load_lexicon("themes").about.keys()


def test_right_names_are_counted_over_all_hymns() -> None:
    its = score([HYMN, OTHER], [("love", "joy"), ("war",)])
    assert (its.num_right, its.num_named, its.num_true) == (1, 3, 5)
    assert (its.precision, its.recall, its.f1) == (1 / 3, 1 / 5, 2 / 8)
    assert best_f1([HYMN, OTHER]) == 2 * 4 / (4 + 5)


def test_the_baselines_name_what_they_say() -> None:
    assert name_by_keywords([HYMN, OTHER]) == [("love", "struggle"), ()]
    named = name_frequent([HYMN, OTHER, OTHER], [OTHER])
    assert named == [("love", "hope", "loss")]
    assert len(named[0]) == NUM_THEMES


@pytest.mark.skipif(not HYMNS.exists(), reason="the hymns are not at hand")
def test_the_lexicon_beats_every_baseline_on_the_hymns_it_was_not_tuned_on() -> None:
    figures = measure(quick=True).figures
    f1 = {name.removesuffix("_f1"): figure.median for name, figure in figures.items() if name.endswith("_f1")}
    assert max(f1, key=lambda name: f1[name]) == LEXICON
    assert f1[LEXICON] > f1["chance"] + 0.1
    assert f1[KEYWORDS] < f1["chance"]
