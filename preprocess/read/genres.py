"""The table that maps a source's words for genres to the project's: `genres.yaml`, and what a user adds to it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from preprocess.errors import ConfigError
from preprocess.read.values import read_list, read_text
from preprocess.schema import GENRES

_TABLE = Path(__file__).with_name("genres.yaml")
_FIRST_LETTER = re.compile(r"(?<![\w'\u2019])[^\W\d_]")
_NULL_TAG = "tag:yaml.org,2002:null"


def reduce_spelling(word: str) -> str:
    """A genre's word without case, spaces and punctuation: "Hip-Hop / Rap" and "hip hop rap" are one spelling."""
    return "".join(filter(str.isalnum, word.casefold().replace("&", "and")))


@dataclass(frozen=True, slots=True)
class GenreTable:
    """Which genre a word stands for.

    Attributes:
        names: Reduced spelling → genre, or None for a word that names no genre ("misc").
    """

    names: Mapping[str, str | None] = field(repr=False)

    def map_word(self, word: str) -> str | None:
        """The project's name for a genre, else the word with capitals, or None where it names no genre."""
        spelling = reduce_spelling(word)
        if spelling in self.names:
            return self.names[spelling]
        return _FIRST_LETTER.sub(lambda letter: letter[0].upper(), word) if spelling else None

    def map_cell(self, value: object) -> tuple[str | None, str | None]:
        """The source's own word, as it stands in its cell, and the genre.

        Of a list of genres the word is the first; the genre is the first that the project has a name for, else
        the first at all.
        """
        if isinstance(value, str) and value[:1] in ("[", "{"):
            value = read_list(value)
        words = value if isinstance(value, list) else [value]
        texts = [text for text in map(read_text, words) if text]
        if not texts:
            return None, None
        genres = [genre for genre in map(self.map_word, texts) if genre]
        known = next((genre for genre in genres if genre in GENRES), None)
        return ", ".join(texts), known or (genres[0] if genres else None)


def load_genres(path: Path | None = None) -> GenreTable:
    """The project's table, with a user's entries over it.

    Args:
        path: A YAML file of lines `spelling: genre` (or `spelling: null` for a word that names no genre), or None.

    Raises:
        ConfigError: The file cannot be read, or an entry is not of that form; the message gives the line.
    """
    shipped = _shipped_names()
    return GenreTable(shipped if path is None else {**shipped, **_read_table(path)})


@cache
def genre_words() -> tuple[str, ...]:
    """The words of the project's table that name a genre, as they are spelled there."""
    pairs = [(key.value, _read_value(value, str(_TABLE))) for key, value in _pairs(_TABLE)]
    return tuple(word for word, genre in pairs if genre and isinstance(word, str) and word)


@cache
def _shipped_names() -> dict[str, str | None]:
    return _read_table(_TABLE)


def _read_table(path: Path) -> dict[str, str | None]:
    names: dict[str, str | None] = {}
    for key, value in _pairs(path):
        where = f"{path}, line {key.start_mark.line + 1}"
        spelling = reduce_spelling(key.value) if isinstance(key, yaml.ScalarNode) else ""
        genre = _read_value(value, where)
        if not spelling and genre is not None:
            raise ConfigError(f"{where}: a spelling without a letter. Write `spelling: genre`.")
        if names.setdefault(spelling, genre) != genre:
            raise ConfigError(f"{where}: {key.value!r} stands there twice, with two genres. Keep one.")
    return names


def _pairs(path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"genres {path}: not valid YAML ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise ConfigError(f"genres {path}: {error.strerror or error}. Give a YAML file.") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"genres {path}, line {root.start_mark.line + 1}: expected lines of the form `spelling: genre`."
        )
    return list(root.value)


def _read_value(node: yaml.Node, where: str) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{where}: expected one genre or null, got a list or a mapping.")
    if node.tag == _NULL_TAG:
        return None
    genre = str(node.value).strip()
    if not genre:
        raise ConfigError(f"{where}: an empty genre. Write null for a word that names no genre.")
    near = difflib.get_close_matches(genre.casefold(), [name.casefold() for name in GENRES], 1, 0.75)
    if genre not in GENRES and near:
        name = next(name for name in GENRES if name.casefold() == near[0])
        raise ConfigError(f"{where}: the genre {genre!r} is not known; did you mean {name!r}?")
    return genre
