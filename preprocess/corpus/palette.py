"""What one artist can sing, compiled once: the own, the genre's, the themes' and the decades' couplets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from preprocess.corpus.grammar import Line, compile_line, split_line
from preprocess.corpus.material import (
    Artist,
    CoupletTemplate,
    Era,
    find_families,
    list_artists,
    load_eras,
    load_genres,
    load_themes,
)

Verse = tuple[Line, ...]
"""What one verse of a template became: one line, or the two that a split made of it."""

_FEATURING_GENRES = frozenset({"Hip-Hop", "R&B", "Pop"})


@dataclass(frozen=True, slots=True)
class Couplet:
    """Two verses that rhyme, ready for an artist.

    Attributes:
        first: The first verse.
        second: The second.
        families: Families of their rhyme.
        first_year: Songs of earlier years cannot sing it.
    """

    first: Verse
    second: Verse
    families: frozenset[int]
    first_year: int = 0


@dataclass(frozen=True, slots=True)
class Palette:
    """Everything an artist can sing.

    Attributes:
        artist: Whose palette it is.
        own: The artist's couplets.
        genre: Couplets shared by the genre.
        hooks: The artist's hooks.
        themes: Couplets by theme.
        theme_hooks: Hooks by theme.
        eras: Couplets by decade.
        refrain: Line that ends every verse; empty for none.
        features: Artists who may be named as guests.
    """

    artist: Artist
    own: tuple[Couplet, ...]
    genre: tuple[Couplet, ...]
    hooks: tuple[Line, ...]
    themes: dict[str, tuple[Couplet, ...]]
    theme_hooks: dict[str, tuple[Line, ...]]
    eras: dict[str, tuple[Couplet, ...]]
    refrain: Verse
    features: tuple[str, ...]


def _compile_verse(template: str, artist: Artist) -> Verse:
    parts = split_line(template) if artist.split else [template]
    return tuple(compile_line(part, artist.person, artist.other, artist.lexicon) for part in parts)


def _compile_couplets(templates: tuple[CoupletTemplate, ...], artist: Artist) -> tuple[Couplet, ...]:
    pairs = [(_compile_verse(first, artist), _compile_verse(second, artist)) for first, second in templates]
    return tuple(Couplet(a, b, find_families(a[-1].end) & find_families(b[-1].end)) for a, b in pairs)


def _compile_era(era: Era, artist: Artist) -> tuple[Couplet, ...]:
    couplets = _compile_couplets(era.couplets, artist)
    return tuple(
        replace(couplet, first_year=year) for couplet, year in zip(couplets, era.first_years, strict=True)
    )


def _compile_hooks(templates: tuple[str, ...], artist: Artist) -> tuple[Line, ...]:
    return tuple(compile_line(text, artist.person, artist.other, artist.lexicon) for text in templates)


@cache
def build_palette(name: str) -> Palette:
    """Compile what the artist of this name can sing."""
    artist = next(artist for artist in list_artists() if artist.name == name)
    genre = next(genre for genre in load_genres() if genre.name == artist.genre)
    guests = genre.artists if genre.name in _FEATURING_GENRES else ()
    return Palette(
        artist,
        own=_compile_couplets(artist.couplets, artist),
        genre=_compile_couplets(genre.couplets, artist),
        hooks=_compile_hooks(artist.hooks, artist),
        themes={theme.name: _compile_couplets(theme.couplets, artist) for theme in load_themes()},
        theme_hooks={theme.name: _compile_hooks(theme.hooks, artist) for theme in load_themes()},
        eras={decade: _compile_era(era, artist) for decade, era in load_eras().items()},
        refrain=_compile_verse(artist.refrain, artist) if artist.refrain else (),
        features=tuple(guest.name for guest in guests if guest.name != name),
    )
