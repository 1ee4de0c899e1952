"""What one cell says: text, artist, year, language, themes, lyrics. A cell that says nothing gives None.

Nothing is guessed: a decade is no year, a list of guests is no artist, "not English" is no language.
"""

from __future__ import annotations

import ast
import html
import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

MIN_YEAR = 1000
MAX_YEAR = 2100


class BadRow(ValueError):  # noqa: N818 - it is a verdict on a row, not an error of the program
    """A row that is no song; the message is the reason."""


_NO_ARTIST = re.compile(
    r"(unknown( artist)?|anonymous|various( artists)?|n/?a|nan|null|none|\[\]|\{\}|)",
    re.IGNORECASE,
)
_LIFE_DATES = re.compile(r"\s*\([^()]*(?:[\d?]\s?[-\u2013]\s?\d{3,4}|\dth century)\)$", re.IGNORECASE)
_NOTE = re.compile(r"\s*\((?:see )?also [^()]*\)", re.IGNORECASE)
_POSTGRES_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}\s][^",{}]*)')

# A number, a number written as a decimal, or a date that starts with its year.
_YEAR = re.compile(r"(\d{4})(?:\.0*|[-/.]\d{1,2}(?!\d).*)?", re.DOTALL)
# A date that ends with it, as in "May 1, 1999" and "01/05/1999".
_LAST_YEAR = re.compile(r"\D*\d{0,2}\D+\d{0,2}\D+(\d{4})")

_STAMP = re.compile(
    r"^(?:\[\d{1,3}:\d{2}(?:[.:]\d{1,3})?\][ \t]?)+|<\d{1,3}:\d{2}(?:[.:]\d{1,3})?>[ \t]?", re.MULTILINE
)
_LRC_TAG = re.compile(
    r"^\[(?:ar|al|ti|au|by|length|offset|re|tool|ve|#)\s*:[^\]\n]*\][ \t]*\n?", re.MULTILINE | re.IGNORECASE
)

_LANGUAGE_CODE = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*", re.IGNORECASE)
_OLD_CODES = MappingProxyType({"iw": "he", "in": "id", "ji": "yi", "jw": "jv"})
_LANGUAGE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "arabic": "ar",
        "chinese": "zh",
        "danish": "da",
        "dutch": "nl",
        "english": "en",
        "finnish": "fi",
        "french": "fr",
        "german": "de",
        "greek": "el",
        "hebrew": "he",
        "hindi": "hi",
        "indonesian": "id",
        "italian": "it",
        "japanese": "ja",
        "korean": "ko",
        "norwegian": "no",
        "polish": "pl",
        "portuguese": "pt",
        "romanian": "ro",
        "russian": "ru",
        "spanish": "es",
        "swedish": "sv",
        "turkish": "tr",
        "ukrainian": "uk",
        "vietnamese": "vi",
    }
)
_NO_LANGUAGE = frozenset({"und", "unk", "mul", "zxx", "mis", "nan", "na"})


def check_unicode(text: str) -> None:
    """Raise `BadRow` for text that cannot be written as UTF-8: it was read from bytes that were none."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("invalid UTF-8") from None


def read_text(value: object) -> str | None:
    """A value as trimmed text on one line, or None when it is empty or no scalar."""
    if value is None or isinstance(value, bool | list | dict | bytes):
        return None
    try:
        text = " ".join((value if isinstance(value, str) else str(value)).split())
    except ValueError:  # an integer of more digits than Python is willing to write
        return None
    check_unicode(text)
    return None if _is_nan(value) else text or None


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def read_id(value: object) -> str | None:
    """A source's own id; a whole number that a table made a float (77.0) is the number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else read_text(value)


def read_lyrics(value: object, synced: object = None) -> str:
    """The words of a song.

    Args:
        value: Text; or a list of lines; or a list of stanzas, each a list of lines.
        synced: Text with time stamps, used where `value` is empty.

    Raises:
        BadRow: There are none, or they are something else, or no valid Unicode.
    """
    lyrics = _join_lines(value)
    if not lyrics.strip() and isinstance(synced, str):
        lyrics = strip_stamps(synced)
    if not lyrics.strip():
        raise BadRow("no lyrics")
    check_unicode(lyrics)
    return lyrics


def _join_lines(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or _is_nan(value):
        return ""
    if isinstance(value, list):
        if all(isinstance(line, str) for line in value):
            return "\n".join(value)
        if all(isinstance(part, list) and all(isinstance(line, str) for line in part) for part in value):
            return "\n\n".join("\n".join(part) for part in value)
    raise BadRow("lyrics are not text")


def strip_stamps(lyrics: str) -> str:
    """Lyrics of the LRC format without their time stamps ([mm:ss.xx], <mm:ss.xx>) and their head ([ar:…])."""
    return _STAMP.sub("", _LRC_TAG.sub("", lyrics.replace("\r\n", "\n")))


def read_artist(value: object) -> str | None:
    """The artist, or None when the source says that it does not know.

    Names in a catalogue's form, with the years of life, are put into their natural order:
    "Luther, Martin (1483-1546);unknown" becomes "Martin Luther", two such names are joined with " & ". Without
    the years a comma says nothing ("Earth, Wind & Fire") and the name stays as it is.
    """
    if isinstance(value, str) and value[:1] in ("[", "{"):
        literal = read_list(value)
        value = value if literal is None else literal
    if isinstance(value, list):
        value = " & ".join(name for name in map(read_text, value) if name)
    text = read_text(value)
    if text is None or _NO_ARTIST.fullmatch(text):
        return None
    if "(" not in text:
        return text
    dated = [name for name in text.split(";") if _LIFE_DATES.search(name)]
    return " & ".join(map(_natural_order, dated)) or text


def _natural_order(name: str) -> str:
    surname, _, given = _LIFE_DATES.sub("", name).strip().rpartition(", ")
    return f"{given} {surname}".strip()


def read_year(value: object) -> int | None:
    """The year as an integer in 1000..2100, from a number, "1999", "1999.0", "1999-05-01", "May 1, 1999"; else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if MIN_YEAR <= value <= MAX_YEAR else None
    text = str(value).strip()
    match = _YEAR.fullmatch(text) or (_LAST_YEAR.fullmatch(text) if len(text) < 30 else None)
    return int(match[1]) if match and MIN_YEAR <= int(match[1]) <= MAX_YEAR else None


def read_language(value: object, is_english: object = None) -> str | None:
    """The code as in "en" from a code ("en-US", "iw") or an English name; None when the source does not say.

    Args:
        value: A language column's cell.
        is_english: A yes-or-no column's cell. Its "no" says no language.
    """
    text = value.strip() if isinstance(value, str) else ""
    if name := _LANGUAGE_NAMES.get(text.casefold()):
        return name
    if match := _LANGUAGE_CODE.fullmatch(text):
        code = match[1].lower()
        if code not in _NO_LANGUAGE:
            return _OLD_CODES.get(code, code)
    return "en" if str(is_english).strip().casefold() in ("true", "1", "1.0", "yes") else None


def read_themes(value: object) -> tuple[str, ...]:
    """Themes from a list, a JSON list in a string, or a string split at ";" (else at ",")."""
    if isinstance(value, str):
        literal = read_list(value) if value.startswith("[") else None
        value = literal or value.split(";" if ";" in value else ",")
    if not isinstance(value, list):
        return ()
    names = (read_text(_NOTE.sub("", html.unescape(str(item)))) for item in value)
    return tuple(dict.fromkeys(name for name in names if name))


def read_list(text: str) -> list[object] | None:
    """A list that was written as text: JSON, Python, or a Postgres array ({}, {SWV}, {"A, B",C}); else None."""
    if text.startswith("{"):
        return _read_postgres(text)
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return None


def _read_postgres(text: str) -> list[object] | None:
    if not text.endswith("}") or ":" in text:  # with a colon it is a JSON object
        return None
    return [
        re.sub(r"\\(.)", r"\1", quoted) or bare.strip() for quoted, bare in _POSTGRES_ITEM.findall(text[1:-1])
    ]
