"""The hand-written material: genres, artists, themes and eras, read once from the package's data files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

import yaml

from preprocess.corpus.grammar import Lexicon, Person
from preprocess.schema import GENRES

Scheme = Literal["AABB", "ABAB", "ABCB", "none"]
CoupletTemplate = tuple[str, str]

_FIRST_YEAR = re.compile(r"(?:(\d{4}): )?(.+)")
_SLOT_FIELDS = {"PLACE": "places", "THING": "things", "THINGS": "plurals", "SKY": "skies", "ADJ": "adjs"}
_GENRE_FILES = {genre: genre.lower().replace("&", "_and_").replace("-", "_") + ".yaml" for genre in GENRES}


@dataclass(frozen=True, slots=True)
class Album:
    """An album and the year it came out."""

    title: str
    year: int


@dataclass(frozen=True, slots=True)
class Artist:
    """An invented artist and what makes the songs theirs.

    Attributes:
        name: Name of one to three words; no two artists share the first.
        genre: One of `schema.GENRES`.
        person: Whom the songs are about.
        other: Whom that person sings to or of.
        scheme: Rhyme scheme of the verses.
        form: Sections in order: I intro, V<lines> verse, P pre-chorus, C chorus, L loop, B<lines> bridge, O outro.
        chorus: Lines of the chorus: H hook, a and b a rhyming couplet, R the artist's cry.
        themes: Favourite themes; others occur too.
        albums: Albums in order of their years.
        split: Whether lines are broken in two, for artists of short lines.
        tails: Asides in parentheses after a line, as rappers have them.
        cries: Interjections.
        refrain: A line that ends every verse, or "".
        names: People in the songs.
        towns: Places with a proper name.
        lexicon: The artist's imagery by slot.
        couplets: The artist's own rhyming pairs of lines.
        hooks: The artist's own hooks; what stands before the first comma is the song's title.
    """

    name: str
    genre: str
    person: Person
    other: Person
    scheme: Scheme
    form: tuple[str, ...]
    chorus: str
    themes: tuple[str, ...]
    albums: tuple[Album, ...]
    split: bool
    tails: tuple[str, ...]
    cries: tuple[str, ...]
    refrain: str
    names: tuple[str, ...]
    towns: tuple[str, ...]
    lexicon: Lexicon
    couplets: tuple[CoupletTemplate, ...]
    hooks: tuple[str, ...]

    @property
    def decades(self) -> tuple[str, ...]:
        """Decades in which the artist's albums came out, as in ("1960s", "1970s")."""
        return tuple(dict.fromkeys(f"{album.year // 10 * 10}s" for album in self.albums))


@dataclass(frozen=True, slots=True)
class Genre:
    """A genre: its Genius tag, the couplets that its artists share, and the artists."""

    name: str
    tag: str
    couplets: tuple[CoupletTemplate, ...]
    artists: tuple[Artist, ...]


@dataclass(frozen=True, slots=True)
class Theme:
    """A theme: couplets and hooks that say it in so many words."""

    name: str
    couplets: tuple[CoupletTemplate, ...]
    hooks: tuple[str, ...]


def _read_yaml(name: str) -> dict[str, Any]:
    text = files("preprocess.corpus").joinpath("data", name).read_text(encoding="utf-8")
    return cast(dict[str, Any], yaml.safe_load(text))


def _split_lines(block: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in block.splitlines() if line.strip())


def _split_couplets(block: str) -> tuple[CoupletTemplate, ...]:
    pairs = (line.split(" / ") for line in _split_lines(block))
    return tuple((first.strip(), second.strip()) for first, second in pairs)


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(";") if item.strip())


def _choose_other(person: Person) -> Person:
    others: dict[Person, Person] = {"I": "you", "we": "you", "you": "she", "she": "he", "he": "she"}
    return others[person]


def _read_artist(raw: dict[str, Any], genre: str, split: bool) -> Artist:
    albums = (item.split(" ", 1) for item in _split_list(raw["albums"]))
    return Artist(
        name=raw["name"],
        genre=genre,
        person=raw["person"],
        other=raw.get("other", _choose_other(raw["person"])),
        scheme=raw["scheme"],
        form=tuple(raw["form"].split()),
        chorus=raw["chorus"],
        themes=tuple(theme.strip() for theme in raw["themes"].split(",")),
        albums=tuple(Album(title, int(year)) for year, title in albums),
        split=split,
        tails=_split_list(raw.get("tails", "")),
        cries=_split_list(raw["cries"]),
        refrain=raw.get("refrain", ""),
        names=_split_list(raw["names"]),
        towns=_split_list(raw["towns"]),
        lexicon={slot: _split_list(raw[field]) for slot, field in _SLOT_FIELDS.items()},
        couplets=_split_couplets(raw["couplets"]),
        hooks=_split_lines(raw["hooks"]),
    )


@cache
def load_genres() -> tuple[Genre, ...]:
    """The genres in the order of `schema.GENRES`, with their artists."""
    genres = []
    for name, file in _GENRE_FILES.items():
        raw = _read_yaml(file)
        artists = tuple(_read_artist(item, name, raw.get("lines") == "split") for item in raw["artists"])
        genres.append(Genre(name, raw["tag"], _split_couplets(raw["couplets"]), artists))
    return tuple(genres)


@cache
def load_themes() -> tuple[Theme, ...]:
    """The themes, in the order of their file."""
    return tuple(
        Theme(name, _split_couplets(raw["couplets"]), _split_lines(raw["hooks"]))
        for name, raw in _read_yaml("themes.yaml").items()
    )


@dataclass(frozen=True, slots=True)
class Era:
    """A decade's couplets, and for each the first year in which what it sings of was there."""

    couplets: tuple[CoupletTemplate, ...]
    first_years: tuple[int, ...]


def _read_era(decade: str, block: str) -> Era:
    lines = [_FIRST_YEAR.fullmatch(line) for line in _split_lines(block)]
    found = [(int(line[1] or decade[:4]), line[2]) for line in lines if line]
    assert len(found) == len(lines)
    return Era(_split_couplets("\n".join(text for _, text in found)), tuple(year for year, _ in found))


@cache
def load_eras() -> dict[str, Era]:
    """Couplets that fit one decade only, by decade."""
    return {decade: _read_era(decade, block) for decade, block in _read_yaml("eras.yaml").items()}


@cache
def load_rhymes() -> dict[str, frozenset[int]]:
    """Numbers of the rhyme families of each word that ends a line; "again" has two."""
    families: dict[str, set[int]] = {}
    for number, family in enumerate(_split_lines(_read_yaml("rhymes.yaml")["families"])):
        for word in family.split():
            families.setdefault(word, set()).add(number)
    return {word: frozenset(numbers) for word, numbers in families.items()}


def find_families(word: str) -> frozenset[int]:
    """Rhyme families of a word; two words rhyme if these overlap."""
    return load_rhymes().get(word, frozenset())


def list_artists(per_genre: int | None = None) -> tuple[Artist, ...]:
    """All artists, or the first `per_genre` of each genre."""
    return tuple(artist for genre in load_genres() for artist in genre.artists[:per_genre])
