"""Answers of the data set's own form with one fact changed for another: planted lies of known kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from preprocess.build.known import KnownSongs
from preprocess.corpus import generate_songs
from preprocess.knowledge import Knowledge
from preprocess.measure.song import measure_song
from preprocess.measure.themes import load_lexicon
from preprocess.schema import Example, Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.instruct import TASKS, make_examples_batch
from preprocess.tasks.statistics import CorpusStatistics
from preprocess.tasks.task import Draw

_NUMBER = re.compile(r"\b\d+(?:\.\d)?\b(?!0s)")
_QUOTED = re.compile(r'"[^"]+"')
_DECADE = re.compile(r"\b\d{3}0s\b")
_DECADES = tuple(f"{tens}0s" for tens in range(195, 203))
_INVENTED = '"xylophone quartz"'
_ADDED = 7
"""A changed number is larger by this."""


class Answered(NamedTuple):
    """A song and one example of it."""

    song: Song
    example: Example


@dataclass(frozen=True, slots=True)
class Lie:
    """An answer with one thing changed.

    Attributes:
        kind: What was changed: "artist", "genre", "decade", "number", "words", "theme".
        song: The song.
        text: The answer.
    """

    kind: str
    song: Song
    text: str


def make_answers(
    num_songs: int, seed: int, artists_per_genre: int | None = None
) -> tuple[list[Answered], Knowledge]:
    """The answers that a data set of made-up songs gives, and what it knows.

    Args:
        num_songs: Songs.
        seed: Of the songs and the answers.
        artists_per_genre: See `generate_songs`; fewer have more songs each.
    """
    songs = [
        _without_names(song) for song in generate_songs(num_songs, seed, artists_per_genre=artists_per_genre)
    ]
    measures = [measure_song(song.lyrics, song.language) for song in songs]
    counts, known = CorpusCounts(), KnownSongs()
    for song, measured in zip(songs, measures, strict=True):
        counts.add(song, measured)
        known.add(song, measured)
    statistics = CorpusStatistics(counts)
    made = make_examples_batch(songs, tasks=TASKS, seed=seed, corpus=statistics, measures=measures)
    answered = [
        Answered(song, example) for song, examples in zip(songs, made, strict=True) for example in examples
    ]
    return answered, known.knowledge(statistics, counts)


def _without_names(song: Song) -> Song:
    """The song with the headings that cleaning leaves: without the performers' names."""
    lyrics = re.sub(r"(?m)^\[([^\]:]+):[^\]]*\]", r"[\1]", song.lyrics)
    return Song(
        song.id,
        lyrics,
        song.title,
        song.artist,
        song.genre,
        song.year,
        song.album,
        song.themes,
        song.language,
    )


def plant(answered: Answered, knowledge: Knowledge) -> Iterator[Lie]:
    """Lies made of one answer, at most one of each kind."""
    song, example = answered
    draw = Draw(1, song.id, example.task)
    for kind, pattern, others in _changes(song, knowledge):
        places = [match for match in pattern.finditer(example.answer) if match[0]]
        if not places:
            continue
        match = draw.one_of(places)
        names = [name for name in others if name.casefold() != match[0].casefold()]
        if not names:
            continue
        other = draw.one_of(names)
        changed = _add(match[0]) if kind == "number" else other
        yield Lie(kind, song, example.answer[: match.start()] + changed + example.answer[match.end() :])


def _add(number: str) -> str:
    """A larger number of the same form."""
    return f"{float(number) + _ADDED:.1f}" if "." in number else str(int(number) + _ADDED)


def _changes(song: Song, knowledge: Knowledge) -> Iterator[tuple[str, re.Pattern[str], Sequence[str]]]:
    """What is changed in an answer, where it stands, and what may stand in its place."""
    if song.artist:
        yield "artist", _name(song.artist), sorted(set(knowledge.artists.values()))
    if song.genre:
        yield "genre", _name(song.genre), sorted(knowledge.corpus.genres)
    yield "decade", _DECADE, _DECADES
    yield "number", _NUMBER, ("",)
    yield "words", _QUOTED, (_INVENTED,)
    strangers = sorted(set(load_lexicon("themes").about) - set(song.themes))
    if song.themes:
        yield (
            "theme",
            re.compile("|".join(rf"(?<!\")\b{re.escape(name)}\b(?!\")" for name in song.themes)),
            strangers,
        )


def _name(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
