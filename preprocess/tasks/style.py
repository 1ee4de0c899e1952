"""The task "style": what sets an artist's songs apart from others of the genre."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from preprocess.tasks.comparison import Comparison, compare_artist
from preprocess.tasks.evidence import FEW_SONGS, join, percent, quote
from preprocess.tasks.statistics import Group, Share
from preprocess.tasks.task import Answer, Draw, Facts, Task

_MOST_TELLING = 6
_MIN_RATIO = 0.1
_MIN_VARIETY = 0.05
_MIN_SHARE = 0.15
"""By how much the shares of the artist's and of the genre's songs differ, where they do."""

_MIN_SONGS = 3
_MIN_PART = 3
"""A trait is in `_MIN_SONGS` of the artist's songs at least, and in one of `_MIN_PART`."""


def answer_style(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'Among Folk songs, those of X stand out: …', with figures; None where nothing stands out."""
    comparison = compare_artist(facts)
    if comparison is None:
        return None
    song = facts.song
    words = told_words(comparison, facts, draw)
    shown = [f"{figures(comparison, comparison.group.words[word])} sing {quote(word)}" for word in words]
    shown += draw.some_of(list(traits(comparison)), 2 - len(shown))
    if not shown:
        return None
    text = f"Among {song.genre} songs, those of {song.artist} stand out: {'; '.join(shown)}."
    sung = [quote(word) for word in words if word in facts.measures.words]
    return Answer(text + (f" This one sings {join(sung)}." if sung else ""))


def told_words(comparison: Comparison, facts: Facts, draw: Draw) -> list[str]:
    """A word or two that the artist sings more often than the genre: those that stand in this song first."""
    most = 1 + draw.below(2)
    here = draw.some_of(comparison.words_of(facts), most)
    others = [word for word in list(comparison.group.words)[:_MOST_TELLING] if word not in here]
    return here + draw.some_of(others, most - len(here))


def figures(comparison: Comparison, share: Share) -> str:
    """How many of the artist's and of the genre's songs have something: '5 of 12 (genre: 9%)'."""
    own, genre = comparison.group, comparison.whole
    is_english = (own.num_english, genre.num_english) == (own.num_songs, genre.num_songs)
    inside = share_of(share.inside, own.num_english) + ("" if is_english else " of the English ones")
    return f"{inside} (genre: {share_of(share.outside, genre.num_english)})"


def share_of(count: int, total: int) -> str:
    """A share that stands alone: "9%", or "5 of 12" where the songs are few."""
    return f"{count} of {total}" if total < FEW_SONGS else percent(count, total)


def traits(comparison: Comparison) -> Iterator[str]:
    """What else differs from the genre: lines, variety of words, chorus, pronoun, rhyme, theme."""
    own, genre = comparison.group, comparison.whole
    if abs(own.words_per_line / max(0.1, genre.words_per_line) - 1) >= _MIN_RATIO:
        longer = "longer" if own.words_per_line > genre.words_per_line else "shorter"
        yield f"their lines are {longer}, {own.words_per_line:.1f} words (genre: {genre.words_per_line:.1f})"
    if marks(own.num_with_chorus, own.num_songs, genre.num_with_chorus, genre.num_songs):
        inside = share_of(own.num_with_chorus, own.num_songs)
        yield f"{inside} (genre: {share_of(genre.num_with_chorus, genre.num_songs)}) have a chorus"
    if abs(own.distinct_share - genre.distinct_share) >= _MIN_VARIETY:
        more = "more" if own.distinct_share > genre.distinct_share else "less"
        shares = f"{100 * own.distinct_share:.0f}% different (genre: {100 * genre.distinct_share:.0f}%)"
        yield f"their words are {more} varied, {shares}"
    for name, share in _shares(own, genre):
        if marks(share.inside, own.num_english, share.outside, genre.num_english):
            yield f"{figures(comparison, share)} have {name}"


def marks(inside: int, num_own: int, outside: int, num_genre: int) -> bool:
    """Whether a trait marks an artist: in songs enough, and in a larger share of them than of the genre's."""
    is_frequent = inside >= max(_MIN_SONGS, num_own / _MIN_PART)
    return is_frequent and inside / num_own - outside / max(1, num_genre) >= _MIN_SHARE


def _shares(own: Group, genre: Group) -> Iterator[tuple[str, Share]]:
    """What some English songs have and others lack: how it is said, and how many have it."""
    for person, count in _leading(own.persons):
        yield f"{quote(person)} as the leading pronoun", Share(count, genre.persons[person], 0)
    for scheme, count in _leading(own.schemes):
        yield f"{scheme} as the leading rhyme scheme", Share(count, genre.schemes[scheme], 0)
    for theme, share in list(own.themes.items())[:1]:
        yield f"{theme} as a main theme", share


def _leading(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent of some, the first of equals."""
    return [max(counts.items(), key=lambda item: item[1])] if any(counts.values()) else []


def introduce_artist(facts: Facts) -> str:
    """The artist and genre, which the answer speaks of."""
    song = facts.song
    genre = f" ({song.genre})" if song.genre else ""
    return f"These lyrics are by {song.artist}{genre}. " if song.artist else ""


TASK = Task(
    name="style",
    questions=(
        "What sets the artist's songs apart from the genre?",
        "Describe the artist's style against other songs of the genre.",
        "What is characteristic of this artist?",
        "How does this artist differ from the rest of the genre?",
        "Which words and traits mark the artist's songs?",
        "By what would you know a song of this artist?",
    ),
    answer_stem="Among ",
    answer=answer_style,
    introduce=introduce_artist,
)
