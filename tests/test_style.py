from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from preprocess.tasks.comparison import Comparison
from preprocess.tasks.statistics import Group, Share
from preprocess.tasks.style import marks, traits

NONE: Mapping[str, int] = MappingProxyType({})


def group(
    num_songs: int,
    *,
    num_with_chorus: int = 0,
    persons: Mapping[str, int] = NONE,
    themes: Mapping[str, Share] = MappingProxyType({}),
) -> Group:
    return Group(
        num_songs=num_songs,
        num_english=num_songs,
        num_lines=30 * num_songs,
        num_words=180 * num_songs,
        num_distinct=90 * num_songs,
        num_with_chorus=num_with_chorus,
        persons=persons,
        schemes={},
        words={},
        themes=themes,
    )


def told(own: Group, genre: Group) -> list[str]:
    return list(traits(Comparison(own, genre, "the artist's songs", "the Folk songs counted")))


def test_a_trait_of_many_songs_is_told_with_its_figures() -> None:
    own = group(12, num_with_chorus=11, persons={"she": 5}, themes={"war": Share(4, 9, 0)})
    assert told(own, group(100, num_with_chorus=50, persons={"she": 3})) == [
        "11 of 12 (genre: 50%) have a chorus",
        '5 of 12 (genre: 3%) have "she" as the leading pronoun',
        "4 of 12 (genre: 9%) have war as a main theme",
    ]


def test_what_few_of_the_songs_have_is_no_trait() -> None:
    genre = group(100, persons={"she": 3})
    # Three songs are too few of eleven, and two are too few of any number.
    assert told(group(11, persons={"she": 3}, themes={"war": Share(3, 4, 0)}), genre) == []
    assert told(group(5, persons={"she": 2}), genre) == []
    assert told(group(9, persons={"she": 3}), genre) != []


def test_what_the_artist_has_less_often_than_the_genre_is_left_out() -> None:
    own = group(12, num_with_chorus=6, persons={"I": 5})
    assert told(own, group(100, num_with_chorus=90, persons={"I": 80})) == []


@pytest.mark.parametrize(("inside", "outside", "does"), [(40, 24, True), (40, 26, False), (0, 0, False)])
def test_a_trait_needs_a_difference(inside: int, outside: int, does: bool) -> None:
    assert marks(inside, 100, outside, 100) is does


def test_an_artist_without_english_songs_has_no_trait() -> None:
    assert not marks(0, 0, 0, 0)
