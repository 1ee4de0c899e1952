"""The task "style": what sets an artist's songs apart from others of the genre."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from preprocess.tasks.comparison import Comparison, compare_artist
from preprocess.tasks.evidence import join, percent, quote, times
from preprocess.tasks.statistics import Group, Share
from preprocess.tasks.task import Answer, Draw, Facts, Task

_MOST_TELLING = 6
_MIN_RATIO = 0.1
_MIN_VARIETY = 0.05
_MIN_SHARE = 0.15


def answer_style(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'Among Folk songs, those of X stand out: …', with figures; None where nothing stands out."""
    comparison = compare_artist(facts)
    if comparison is None:
        return None
    song = facts.song
    words = told_words(comparison, facts, draw)
    shown = [f"{quote(word)} is in {figures(comparison, word)}" for word in words]
    shown += draw.some_of(list(traits(comparison)), 3 - len(shown))
    if not shown:
        return None
    text = f"Among {song.genre} songs, those of {song.artist} stand out: {'; '.join(shown)}."
    sung = [
        f"{quote(word)} {times(facts.measures.words[word])}" for word in words if word in facts.measures.words
    ]
    return Answer(text + (f" This one sings {join(sung)}." if sung else ""))


def told_words(comparison: Comparison, facts: Facts, draw: Draw) -> list[str]:
    """Two words that the artist sings more often than the genre: those that stand in this song first."""
    here = draw.some_of(comparison.words_of(facts), 2)
    others = [word for word in list(comparison.group.words)[:_MOST_TELLING] if word not in here]
    return here + draw.some_of(others, 2 - len(here))


def figures(comparison: Comparison, word: str) -> str:
    """How many of the artist's and of the genre's songs sing a word: '5 of 12, against 9%'."""
    share = comparison.group.words[word]
    inside = percent(share.inside, comparison.group.num_english)
    return f"{inside}, against {percent(share.outside, comparison.whole.num_english)}"


def traits(comparison: Comparison) -> Iterator[str]:
    """What else differs from the genre: lines, variety of words, chorus, pronoun, rhyme, theme."""
    own, genre = comparison.group, comparison.whole
    if abs(own.words_per_line / max(0.1, genre.words_per_line) - 1) >= _MIN_RATIO:
        longer = "longer" if own.words_per_line > genre.words_per_line else "shorter"
        yield f"the lines are {longer}, {own.words_per_line:.1f} words against {genre.words_per_line:.1f}"
    if abs(own.distinct_share - genre.distinct_share) >= _MIN_VARIETY:
        more = "more" if own.distinct_share > genre.distinct_share else "less"
        shares = f"{100 * own.distinct_share:.0f}% different against {100 * genre.distinct_share:.0f}%"
        yield f"the words are {more} varied, {shares}"
    for name, share, num_own, num_genre in _shares(own, genre):
        if abs(share.inside / max(1, num_own) - share.outside / max(1, num_genre)) >= _MIN_SHARE:
            yield f"{name} in {percent(share.inside, num_own)}, against {percent(share.outside, num_genre)}"


def _shares(own: Group, genre: Group) -> Iterator[tuple[str, Share, int, int]]:
    """What some songs have and others lack: its name, how many have it, and of how many."""
    yield (
        "there is a chorus",
        Share(own.num_with_chorus, genre.num_with_chorus, 0),
        own.num_songs,
        genre.num_songs,
    )
    english = own.num_english, genre.num_english
    for person, count in _leading(own.persons):
        yield f"{quote(person)} is the leading pronoun", Share(count, genre.persons[person], 0), *english
    for scheme, count in _leading(own.schemes):
        yield f"{scheme} is the leading rhyme scheme", Share(count, genre.schemes[scheme], 0), *english
    for theme, share in list(own.themes.items())[:1]:
        yield f"{theme} is a main theme", share, *english


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
