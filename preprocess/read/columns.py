"""What the columns of a song table mean: the known shapes of data sets, and one row made into a `Song`.

A fact that a row lacks stays None. A row that is no song raises `BadRow` with the reason; a table whose
columns are not understood raises `DataError`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from preprocess.errors import ConfigError, DataError
from preprocess.read.genres import GenreTable, load_genres
from preprocess.read.values import (
    BadRow,
    check_unicode,
    read_artist,
    read_id,
    read_language,
    read_lyrics,
    read_text,
    read_themes,
    read_year,
)
from preprocess.schema import Song

__all__ = [
    "ALIASES",
    "FACTS",
    "BadRow",
    "Row",
    "Schema",
    "check_unicode",
    "content_id",
    "parse_columns",
    "read_artist",
    "read_genre",
    "read_themes",
    "read_year",
    "recognise_schema",
    "song_from_row",
]

Row = Mapping[str, object]

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "lyrics": ("lyrics", "plain_lyrics", "plainlyrics", "lyric", "paragraphs", "text"),
        "synced_lyrics": ("synced_lyrics", "syncedlyrics"),
        "title": ("title", "song", "song_title", "song_name", "track_name", "track", "rhythmic", "name"),
        "artist": ("artist", "artist_name", "artists", "singer", "author"),
        "genre": ("genre", "tag", "genres_list", "genres"),
        "year": ("year", "release_year", "release_date"),
        "album": ("album", "album_name", "album_title"),
        "themes": ("themes", "topics"),
        "id": ("id", "song_id", "track_id"),
        "language": ("language", "lang", "language_code", "language_cld3", "language_ft"),
        "is_english": ("is_english",),
    }
)
"""Column names, lower-cased, under which each fact is found; the first that is present counts."""

FACTS = ("lyrics", "title", "artist", "genre", "year", "album", "themes", "id", "language")
"""Facts that a user can point to a column."""

_PAIR = re.compile(
    r"generate a song verse in the style of (.*) in the genre of (.*?)\.?\s*", re.IGNORECASE | re.DOTALL
)

_SHAPES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Genius": frozenset({"title", "tag", "artist", "year", "views", "features", "lyrics"}),
        "MetroLyrics": frozenset({"index", "song", "year", "artist", "genre", "lyrics"}),
        "brunokreiner": frozenset({"artist_name", "genres_list", "is_english", "lyrics"}),
        "Spotify": frozenset({"artist", "song", "link", "text"}),
        "LRCLIB": frozenset({"artist_name", "plain_lyrics"}),
        "chinese-poetry": frozenset({"author", "paragraphs"}),
    }
)
"""Shapes that are known by name, and the columns that give them away."""

_EXPECTED = (
    "Expected one of: Instruction + Label (the 5M-Songs-Lyrics pair); title, tag, artist, year, lyrics, id "
    "(Genius); artist, song, link, text (Spotify); index, song, year, artist, genre, lyrics (MetroLyrics); "
    "artist_name, genres_list, lyrics (brunokreiner); name, artist_name, album_name, plain_lyrics (LRCLIB); text "
    "alone (huggingartists); author, paragraphs (chinese-poetry); or a column 'lyrics' with any of title, artist, "
    "genre, year, album, themes. Otherwise say which column is what: --columns lyrics=…,artist=…"
)
_EXPECTED_FACTS = (
    "A table of facts needs lyrics, or title and artist, to know the songs by, and at least one of genre, year, "
    "album, title, artist to tell of them. Otherwise say which column is what: --columns title=…,artist=…"
)


@dataclass(frozen=True, slots=True)
class Schema:
    """Which column carries which fact.

    Attributes:
        name: Short name of the shape, as in "Genius".
        columns: Fact ("lyrics", "artist", …, or "pair" for the two-column shape) → column name in the table.
        ignored: Columns that carry nothing the project uses.
    """

    name: str
    columns: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """One line for the terminal, as in "Genius: lyrics from 'lyrics', genre from 'tag'"."""
        found = ", ".join(f"{fact} from {column!r}" for fact, column in self.columns.items())
        ignored = f"; ignored: {', '.join(self.ignored)}" if self.ignored else ""
        return f"{self.name}: {found}{ignored}"


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Read what a user says of the columns, as in "lyrics=text,artist=singer"; "title=" means: in no column.

    Returns:
        Fact → column name (empty: the table does not have it).

    Raises:
        ConfigError: Another form, a fact that does not exist, or one that is named twice.
    """
    columns: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            fact, equals, column = (piece.strip() for piece in part.partition("="))
            fact = fact.lower()
            if not equals:
                raise ConfigError(f"--columns {part.strip()!r}: expected fact=column, as in lyrics=text.")
            if fact not in FACTS:
                near = difflib.get_close_matches(fact, FACTS, 1)
                meant = f"; did you mean {near[0]!r}?" if near else "."
                raise ConfigError(
                    f"--columns: {fact!r} is no fact of a song{meant} Known: {', '.join(FACTS)}."
                )
            if columns.setdefault(fact, column) != column:
                raise ConfigError(f"--columns: {fact!r} is given twice, {columns[fact]!r} and {column!r}.")
    return columns


def recognise_schema(
    columns: Sequence[str], named: Mapping[str, str] | None = None, *, needs_lyrics: bool = True
) -> Schema:
    """Find out what a table's columns mean.

    Args:
        columns: Column names as the table spells them; case and surrounding spaces do not matter.
        named: Fact → column, as `parse_columns` gives it: what the user says goes before what is recognised.
        needs_lyrics: False for a table of facts about songs.

    Raises:
        DataError: No known shape fits, a named column is missing, a column that is used exists twice, or the
            table is a bag of words.
    """
    names = {column.strip().lower(): column for column in reversed(columns)}
    given = named or {}
    used = {fact: _find_named(column, columns, names) for fact, column in given.items() if column}
    free = {name: column for name, column in names.items() if column not in used.values()}
    if {"instruction", "label"} <= free.keys() and "lyrics" not in given:
        used = {"pair": free["instruction"], "lyrics": free["label"], **used}
        return _finish("5M-Songs-Lyrics pair", columns, used)
    if "lyrics" not in used and ("mxm_tid" in names or {"word", "count"} <= names.keys()):
        raise DataError(
            f"The columns {', '.join(columns)} are a bag of words (musiXmatch): the order of the words is lost, "
            "and lyrics without their lines cannot be used. Take a data set with whole lyrics."
        )
    for fact, aliases in ALIASES.items():
        column = None if fact in given else next((free[alias] for alias in aliases if alias in free), None)
        if column is not None:
            used[fact] = column
    found = ", ".join(columns) or "none"
    if needs_lyrics and not given.get("lyrics") and not _has_lyrics(used, names):
        raise DataError(f"The columns are not those of a song table. Found: {found}. {_EXPECTED}")
    if not needs_lyrics and not _has_facts(used):
        raise DataError(f"The columns say nothing of songs. Found: {found}. {_EXPECTED_FACTS}")
    return _finish(_shape_name(names.keys()), columns, {fact: used[fact] for fact in ALIASES if fact in used})


def _has_lyrics(used: Mapping[str, str], names: Mapping[str, str]) -> bool:
    # A column called 'text' is only taken for lyrics where the table is visibly about songs.
    if "lyrics" not in used:
        return "synced_lyrics" in used
    return used["lyrics"].strip().lower() != "text" or "artist" in used or len(names) == 1


def _has_facts(used: Mapping[str, str]) -> bool:
    if "lyrics" in used:
        return bool(used.keys() & {"pair", "title", "artist", "genre", "year", "album"})
    return {"title", "artist"} <= used.keys() and bool(used.keys() & {"genre", "year", "album"})


def _find_named(column: str, columns: Sequence[str], names: Mapping[str, str]) -> str:
    if column in columns:
        return column
    if column.strip().lower() in names:
        return names[column.strip().lower()]
    near = difflib.get_close_matches(column, columns, 1, 0.5)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"--columns names {column!r}, which is not there. Found: {', '.join(columns) or 'none'}.{meant}"
    )


def _finish(name: str, columns: Sequence[str], used: Mapping[str, str]) -> Schema:
    for column in used.values():
        if columns.count(column) > 1:
            raise DataError(
                f"There are {columns.count(column)} columns called {column!r}. Rename all but one."
            )
    taken = set(used.values())
    return Schema(name, dict(used), tuple(column for column in columns if column not in taken))


def _shape_name(names: Iterable[str]) -> str:
    present = set(names)
    if present == {"text"}:
        return "text alone"
    return next((name for name, columns in _SHAPES.items() if columns <= present), "song columns")


def song_from_row(row: Row, schema: Schema, source: str, genres: GenreTable | None = None) -> Song:
    """Make a song of one row.

    Args:
        row: Column name → value.
        schema: What the columns mean.
        source: Name of the file, for messages.
        genres: What the words for genres stand for; None takes the project's own table.

    Raises:
        BadRow: The row has no lyrics, or text that is not valid Unicode.
    """
    facts = {fact: row.get(column) for fact, column in schema.columns.items()}
    lyrics = read_lyrics(facts.get("lyrics"), facts.get("synced_lyrics"))
    return song_of_facts(facts, lyrics, source, genres or _shipped_table())


def song_of_facts(facts: Mapping[str, object], lyrics: str, source: str, genres: GenreTable) -> Song:
    """Make a song of its facts' cells; see `song_from_row`."""
    artist_cell, genre_cell = facts.get("artist"), facts.get("genre")
    if "pair" in facts:
        artist, genre = _split_pair(facts["pair"])
        artist_cell = artist_cell if "artist" in facts else artist
        genre_cell = genre_cell if "genre" in facts else genre
    title, artist_name = read_text(facts.get("title")), read_artist(artist_cell)
    tag, genre_name = genres.map_cell(genre_cell)
    return Song(
        id=read_id(facts.get("id")) or content_id(title, artist_name, lyrics),
        lyrics=lyrics,
        title=title,
        artist=artist_name,
        genre=genre_name,
        year=read_year(facts.get("year")),
        album=read_text(facts.get("album")),
        themes=read_themes(facts["themes"]) if "themes" in facts else (),
        language=read_language(facts.get("language"), facts.get("is_english")),
        tag=tag,
        source=source,
    )


def _split_pair(instruction: object) -> tuple[str, str]:
    # The first group is greedy, so that an artist's name may itself contain " in the genre of ".
    match = _PAIR.fullmatch(instruction) if isinstance(instruction, str) else None
    if match is None:
        raise BadRow("instruction names no artist and genre")
    return match[1], match[2]


def content_id(title: str | None, artist: str | None, lyrics: str) -> str:
    """Sixteen hex digits of SHA-256 over title, artist and lyrics: the id where the source gives none."""
    content = "\x1f".join((title or "", artist or "", lyrics))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@cache
def _shipped_table() -> GenreTable:
    return load_genres()


def read_genre(value: object) -> str | None:
    """The genre under the project's name for it, else the source's own word with capitals, or None."""
    return _shipped_table().map_cell(value)[1]
