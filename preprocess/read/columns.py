"""What the columns of a song table mean: the known shapes of data sets, and one row made into a `Song`.

A fact that a row lacks stays None. A row that is no song raises `BadRow` with the reason; a table whose
columns are not understood raises `DataError`.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from preprocess.errors import DataError
from preprocess.schema import Song

Row = Mapping[str, object]

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "lyrics": ("lyrics", "plain_lyrics", "lyric", "text"),
        "title": ("title", "song", "song_title", "song_name", "track_name", "name"),
        "artist": ("artist", "artist_name", "artists", "singer", "author"),
        "genre": ("genre", "tag", "genres_list", "genres"),
        "year": ("year", "release_year", "release_date"),
        "album": ("album", "album_name", "album_title"),
        "themes": ("themes", "topics"),
        "id": ("id", "song_id", "track_id"),
    }
)
"""Column names, lower-cased, under which each fact is found; the first that is present counts."""

GENRE_NAMES: Mapping[str, str | None] = MappingProxyType(
    {
        **dict.fromkeys(("rap", "hiphop", "hiphoprap", "raphiphop", "hiphopandrap"), "Hip-Hop"),
        **dict.fromkeys(("rb", "rnb", "randb", "rhythmandblues", "rbsoul", "randbsoul"), "R&B"),
        **dict.fromkeys(("electronic", "electronica", "edm", "electronicdance", "electro"), "Electronic"),
        **dict.fromkeys(("", "misc", "other", "unknown", "none", "na", "nan", "null", "notavailable"), None),
    }
)
"""Spellings of genres, reduced to their letters, and the name that the project uses (None: no genre)."""

_NO_ARTIST = re.compile(
    r"(unknown( artist)?|anonymous|various( artists)?|n/?a|nan|null|genius .*translations?|)", re.IGNORECASE
)
_LIFE_DATES = re.compile(r"\s*\([^()]*(?:[\d?]\s?[-\u2013]\s?\d{3,4}|\dth century)\)$", re.IGNORECASE)
_PAIR = re.compile(
    r"generate a song verse in the style of (.*) in the genre of (.*?)\.?\s*", re.IGNORECASE | re.DOTALL
)
_FIRST_LETTER = re.compile(r"(?<![\w'\u2019])[^\W\d_]")
_NOTE = re.compile(r"\s*\((?:see )?also [^()]*\)", re.IGNORECASE)
_YEAR = re.compile(r"\s*(\d{4})(?!\d)")

_EXPECTED = (
    "Expected one of: Instruction + Label (the 5M-Songs-Lyrics pair); title, tag, artist, year, lyrics, id "
    "(Genius CSV); artist, song, link, text (Spotify); name, artist_name, album_name, plain_lyrics (LRCLIB); "
    "or a column 'lyrics' with any of title, artist, genre, year, album, themes. Rename the columns: the one "
    "with the words is called 'lyrics'."
)


class BadRow(ValueError):  # noqa: N818 - it is a verdict on a row, not an error of the program
    """A row that is no song; the message is the reason."""


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


def recognise_schema(columns: Sequence[str]) -> Schema:
    """Find out what a table's columns mean.

    Args:
        columns: Column names as the table spells them; case and surrounding spaces do not matter.

    Raises:
        DataError: No known shape fits, or the table is a bag of words.
    """
    names = {column.strip().lower(): column for column in columns}
    if {"instruction", "label"} <= names.keys():
        used = {"pair": names["instruction"], "lyrics": names["label"]}
        return Schema("5M-Songs-Lyrics pair", used, _ignored(columns, used))
    if "mxm_tid" in names or {"word", "count"} <= names.keys():
        raise DataError(
            f"The columns {', '.join(columns)} are a bag of words (musiXmatch): the order of the words is lost, "
            "and lyrics without their lines cannot be used. Take a data set with whole lyrics."
        )
    used = {}
    for fact, aliases in ALIASES.items():
        column = next((names[alias] for alias in aliases if alias in names), None)
        if column is not None:
            used[fact] = column
    # A column called 'text' is only taken for lyrics where the table is visibly about songs.
    if "lyrics" not in used or (
        used["lyrics"].strip().lower() == "text" and "artist" not in used and len(names) > 1
    ):
        found = ", ".join(columns) or "none"
        raise DataError(f"The columns are not those of a song table. Found: {found}. {_EXPECTED}")
    return Schema(_shape_name(names.keys()), used, _ignored(columns, used))


def _ignored(columns: Iterable[str], used: Mapping[str, str]) -> tuple[str, ...]:
    taken = set(used.values())
    return tuple(column for column in columns if column not in taken)


def _shape_name(names: Iterable[str]) -> str:
    present = set(names)
    if {"title", "tag", "artist", "year", "views", "features", "lyrics"} <= present:
        return "Genius"
    if {"artist", "song", "text"} <= present:
        return "Spotify"
    if "plain_lyrics" in present:
        return "LRCLIB"
    return "text alone" if present == {"text"} else "song columns"


def song_from_row(row: Row, schema: Schema, source: str) -> Song:
    """Make a song of one row.

    Args:
        row: Column name → value.
        schema: What the columns mean.
        source: Name of the file, for messages.

    Raises:
        BadRow: The row has no lyrics, or text that is not valid Unicode.
    """
    facts = {fact: row.get(column) for fact, column in schema.columns.items()}
    lyrics = facts.get("lyrics")
    if lyrics is not None and not isinstance(lyrics, str):
        raise BadRow("lyrics are not text")
    if lyrics is None or not lyrics.strip():
        raise BadRow("no lyrics")
    check_unicode(lyrics)
    if "pair" in facts:
        facts["artist"], facts["genre"] = _split_pair(facts["pair"])
    title, artist = read_text(facts.get("title")), read_artist(facts.get("artist"))
    return Song(
        id=read_text(facts.get("id")) or content_id(title, artist, lyrics),
        lyrics=lyrics,
        title=title,
        artist=artist,
        genre=read_genre(facts.get("genre")),
        year=read_year(facts.get("year")),
        album=read_text(facts.get("album")),
        themes=read_themes(facts.get("themes")),
        source=source,
    )


def _split_pair(instruction: object) -> tuple[str, str]:
    # The first group is greedy, so that an artist's name may itself contain " in the genre of ".
    match = _PAIR.fullmatch(instruction) if isinstance(instruction, str) else None
    if match is None:
        raise BadRow("instruction names no artist and genre")
    return match[1], match[2]


def check_unicode(text: str) -> None:
    """Raise `BadRow` for text that cannot be written as UTF-8: it was read from bytes that were none."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("invalid UTF-8") from None


def content_id(title: str | None, artist: str | None, lyrics: str) -> str:
    """Sixteen hex digits of SHA-256 over title, artist and lyrics: the id where the source gives none."""
    content = "\x1f".join((title or "", artist or "", lyrics))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_text(value: object) -> str | None:
    """A value as trimmed text, or None when it is empty or no scalar."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    text = " ".join(str(value).split())
    check_unicode(text)
    return text or None


def read_artist(value: object) -> str | None:
    """The artist, or None when the source says that it does not know.

    Names in a catalogue's form, with the years of life, are put into their natural order:
    "Luther, Martin (1483-1546);unknown" becomes "Martin Luther", two such names are joined with " & ". Without
    the years a comma says nothing ("Earth, Wind & Fire") and the name stays as it is.
    """
    if isinstance(value, str) and value.startswith("["):
        literal = _literal_list(value)
        value = value if literal is None else literal
    if isinstance(value, list):
        value = " & ".join(str(name) for name in value)
    text = read_text(value)
    if text is None or _NO_ARTIST.fullmatch(text):
        return None
    dated = [name for name in text.split(";") if _LIFE_DATES.search(name)]
    return " & ".join(map(_natural_order, dated)) or text


def _natural_order(name: str) -> str:
    surname, _, given = _LIFE_DATES.sub("", name).strip().rpartition(", ")
    return f"{given} {surname}".strip()


def read_genre(value: object) -> str | None:
    """The genre under the project's name for it, else the source's own word with capitals, or None."""
    if isinstance(value, str) and value.startswith("["):
        value = _literal_list(value)
    if isinstance(value, list):
        value = value[0] if value else None
    text = read_text(value)
    if text is None:
        return None
    letters = re.sub(r"[^a-z]", "", text.lower().replace("&", "and"))
    if letters in GENRE_NAMES and text.isascii():
        return GENRE_NAMES[letters]
    return _FIRST_LETTER.sub(lambda letter: letter[0].upper(), text)


def read_year(value: object) -> int | None:
    """The year as an integer in 1000..2100, from a number, "1999", "1999.0" or "1999-05-01"; else None."""
    if isinstance(value, bool) or value is None:
        return None
    match = _YEAR.match(str(value))
    return int(match[1]) if match and 1000 <= int(match[1]) <= 2100 else None


def read_themes(value: object) -> tuple[str, ...]:
    """Themes from a list, a JSON list in a string, or a string split at ";" (else at ",")."""
    if isinstance(value, str):
        literal = _literal_list(value) if value.startswith("[") else None
        value = literal or value.split(";" if ";" in value else ",")
    if not isinstance(value, list):
        return ()
    names = (read_text(_NOTE.sub("", html.unescape(str(item)))) for item in value)
    return tuple(dict.fromkeys(name for name in names if name))


def _literal_list(text: str) -> list[object] | None:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return None
