"""The songs that a text recommends: whether they exist, are near to the song, and are not the song itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress

from harness.evaluation.scoring.clauses import share
from harness.evaluation.scoring.words import normalise
from preprocess.knowledge import Knowledge, KnownSong, normal_name
from preprocess.schema import Song
from preprocess.tasks.main_themes import theme_name

_TITLE = r"[\"\u201c\u00ab](?P<title>[^\"\u201c\u201d\u00ab\u00bb\n]{1,200})[\"\u201d\u00bb]"
_BY = r"[,*_]*\s*(?:\(?\bby\b|[-\u2013\u2014])\s*[*_]*"
_REST = r"(?P<rest>[^\n;:\"\u201c\u00ab]{1,120})"
_QUOTED = re.compile(rf"{_TITLE}{_BY}\s*{_REST}", re.IGNORECASE)
_LISTED = re.compile(
    rf"^\s*(?:\d+[.)]|[-*\u2022])\s*[*_]*(?P<title>[^\"\n]{{1,100}}?)[*_]*(?:\s+by\s+|\s+[-\u2013\u2014]\s+){_REST}",
    re.IGNORECASE | re.MULTILINE,
)
_NEAREST = re.compile(rf"\bnearest to {_TITLE}(?!\s*by\b)", re.IGNORECASE)
_UNTITLED = re.compile(rf"\ba song by\s+{_REST}", re.IGNORECASE)
_NAME_END = re.compile(
    # A full stop, but not that of an initial or of "Dr.".
    r"(?<!\b[^\W\d_])(?<!\b[DMSJ][rt])[.!?](?=\s|$)"
    r"|\s[(\[]|\)|,\s|\s[-\u2013\u2014]\s|\band\s+[\"\u201c]|\s+sings\b"
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A song that a text recommends.

    Attributes:
        title: Its title; None for "a song by A".
        artist: Its artist; None where the text gives none.
    """

    title: str | None
    artist: str | None


def find_suggestions(text: str, knowledge: Knowledge | None = None) -> list[Suggestion]:
    """The songs that a text recommends, each once, in order: "T" by A, "T" - A, lines of a list, "a song by A".

    Args:
        text: Of any model.
        knowledge: Tells where an artist's name ends that holds a comma, a full stop or "and".
    """
    text = normalise(text)
    found: list[tuple[int, Suggestion]] = []
    for pattern in (_QUOTED, _LISTED, _NEAREST, _UNTITLED):
        for match in pattern.finditer(text):
            values = match.groupdict()
            title, rest = values.get("title"), values.get("rest")
            artist = None if rest is None else _cut_artist(rest, title, knowledge)
            found.append((match.start(), Suggestion(title and title.strip(), artist)))
    unique: dict[tuple[str, str], Suggestion] = {}
    for _, suggestion in sorted(found, key=lambda item: item[0]):
        unique.setdefault(
            (normal_name(suggestion.title or ""), normal_name(suggestion.artist or "")), suggestion
        )
    return list(unique.values())


def _cut_artist(rest: str, title: str | None, knowledge: Knowledge | None) -> str:
    """The artist at the start of what follows "by": the longest one that the catalogue has, else up to a mark."""
    name = knowledge.find_artist_at_start(rest) if knowledge else None
    if knowledge and name is not None:
        return min(song.artist for song in knowledge.by_artist(name) if song.artist)
    return _NAME_END.split(rest, maxsplit=1)[0].strip(" .,*_'")


def score_suggestions(
    text: str, song: Song, themes: Collection[str], num_wanted: int, knowledge: Knowledge | None
) -> dict[str, float]:
    """Of the suggestions, the shares that are real, near, and another song; and precision at k.

    A suggestion is real when the training songs hold its title by its artist. Where the catalogue was cut for want of
    room, one by an artist whom it lacks is not counted. It is near when it is real, another song, and shares two of
    three traits with the song (`shares_traits`). An answer without a suggestion has 0 of everything.

    Args:
        text: The answer.
        song: What was asked about.
        themes: Its main themes.
        num_wanted: The k of precision at k, at least 1.
        knowledge: The training songs; without them only "not_same" can be told.
    """
    suggestions = find_suggestions(text, knowledge)
    others = [not _is_same(suggestion, song) for suggestion in suggestions]
    values = {"not_same": share(others) if others else 0.0}
    if knowledge is None:
        return values
    matches = [find_known(suggestion, knowledge) for suggestion in suggestions]
    told = [
        bool(match)
        or not knowledge.is_cut
        or bool(suggestion.artist and knowledge.by_artist(suggestion.artist))
        for suggestion, match in zip(suggestions, matches, strict=True)
    ]
    is_near = [
        other and any(known.id != song.id and shares_traits(known, song, themes) for known in match)
        for other, match in zip(others, matches, strict=True)
    ]
    if any(told) or not suggestions:
        values["real"] = _share_of([bool(match) for match in matches], told)
        values["near"] = _share_of(is_near, told)
        values["precision_at_k"] = sum(list(compress(is_near, told))[:num_wanted]) / num_wanted
    return values


def _share_of(flags: Sequence[bool], told: Sequence[bool]) -> float:
    counted = list(compress(flags, told))
    return share(counted) if counted else 0.0


def _is_same(suggestion: Suggestion, song: Song) -> bool:
    if suggestion.title is None or song.title is None:
        return False
    is_title = normal_name(suggestion.title) == normal_name(song.title)
    if suggestion.artist is None or song.artist is None:
        return is_title
    return is_title and normal_name(suggestion.artist) == normal_name(song.artist)


def find_known(suggestion: Suggestion, knowledge: Knowledge) -> tuple[KnownSong, ...]:
    """The training songs that a suggestion names; a title alone or an artist alone names all of theirs."""
    if suggestion.title is None:
        return knowledge.by_artist(suggestion.artist or "")
    songs = knowledge.by_title(suggestion.title)
    if suggestion.artist is None:
        return songs
    artist = normal_name(suggestion.artist)
    return tuple(song for song in songs if song.artist and normal_name(song.artist) == artist)


def shares_traits(known: KnownSong, song: Song, themes: Collection[str]) -> bool:
    """Whether two songs share two of: a main theme, the genre, a decade at most one apart."""
    return _are_near(_traits_of_known(known), _traits_of(song, themes))


_Traits = tuple[frozenset[str], str | None, int | None]
"""Main themes as names are compared, genre, the decade's number; None for what is not known."""


def _traits_of(song: Song, themes: Collection[str]) -> _Traits:
    names = frozenset(normal_name(theme_name(theme)) for theme in themes)
    return names, song.genre, None if song.year is None else song.year // 10


def _traits_of_known(song: KnownSong) -> _Traits:
    names = frozenset(map(normal_name, song.themes))
    return names, song.genre, None if song.year is None else song.year // 10


def _are_near(first: _Traits, second: _Traits) -> bool:
    shares_theme = not first[0].isdisjoint(second[0])
    shares_genre = first[1] is not None and first[1] == second[1]
    shares_era = first[2] is not None and second[2] is not None and abs(first[2] - second[2]) <= 1
    return shares_theme + shares_genre + shares_era > 1


def near_by_chance(song: Song, themes: Collection[str], knowledge: Knowledge) -> float | None:
    """The share of the other training songs that are near to a song: what a random real suggestion reaches."""
    traits = _traits_of(song, themes)
    counts = _count_traits(knowledge)
    own = knowledge.songs.get(song.id)
    num_others = len(knowledge.songs) - (own is not None)
    num_near = sum(count for other, count in counts.items() if _are_near(other, traits))
    num_near -= own is not None and _are_near(_traits_of_known(own), traits)
    return num_near / num_others if num_others else None


@lru_cache(maxsize=1)
def _count_traits(knowledge: Knowledge) -> Counter[_Traits]:
    """How many training songs are alike in their traits: far fewer kinds than songs."""
    return Counter(map(_traits_of_known, knowledge.songs.values()))
