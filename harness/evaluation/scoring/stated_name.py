"""The one name that a free text gives as its answer, or none.

    "Taylor Swift"   "**Artist:** Taylor Swift"              the whole answer is the name
    "The artist is Taylor Swift. Of the artist's …"          the form that training teaches, at a sentence's start
    "This sounds like a song by Taylor Swift."               the only name that the whole text states

Anything else is no answer: two different names ("Drake or Eminem"), also where the closed set lacks one of them, a name
that is denied, asked or quoted, a part of a longer name, a relative ("Drake's sister"), a name of nobody in the closed
set where the form wants one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from harness.evaluation.scoring.clauses import (
    comes_after,
    first_word,
    is_asked,
    is_denied,
    is_quoted,
    last_word,
    sentence_ends,
)
from harness.evaluation.scoring.names import Mention, NameIndex, index_names, longest
from harness.evaluation.scoring.refusal import guesses
from harness.evaluation.scoring.words import Token, coarse_tokens, fine_tokens, word_set
from preprocess.knowledge import normal_name
from preprocess.measure.words import STOP_WORDS
from preprocess.read.genres import load_genres, reduce_spelling

_LABEL = re.compile(
    r"^[\W_]*(?:(?:the |my )?(?:final |most likely )?(?:answer|artist|singer|performer|band|genre|decade|era)\W{0,3}"
    r"(?:name\s*)?(?:\s+is\s+|:\s*))?[\W_]*",
    re.IGNORECASE,
)
_BEFORE_NAME = word_set(
    "is was by artist singer performer band rapper group duo genre as to named called answer likely probably maybe"
    " perhaps definitely like s it's from of more"
)
_AFTER_NAME = word_set("song songs track tune ballad music genre piece anthem number lyrics record artist")
_ROLES = word_set(
    "artist singer performer band rapper group duo song songs lyrics maybe perhaps probably definitely likely clearly"
    " certainly possibly answer american british english country pop rock legend"
)
_WORD = r"[^\W\d_]\w*"
_JOIN = r"\s*(?:/|&|,?\s*\b(?:or|and|vs)\b\.?)\s*"
_LISTED = rf",\s*(?!(?:or|and)\b)({_WORD})(?:[ '.-]+\w+){{0,3}}"
_JOINED_AFTER = re.compile(rf"(?P<listed>(?:{_LISTED}){{0,5}}){_JOIN}(?P<last>{_WORD})", re.IGNORECASE)
_SINGULAR = word_set("is was has sings performs writes")
_JOINED_BEFORE = re.compile(rf"({_WORD}){_JOIN}$", re.IGNORECASE)
_LABELLED = re.compile(
    rf"^[^\w\n]*(?:artist|singer|performer|band)(?: name)?[*_ ]*:[^\w\n]*({_WORD})",
    re.IGNORECASE | re.MULTILINE,
)
_RELATIVE = re.compile(
    r"'s?\s+(?:\w+\s+)?(?:sister|brother|wife|husband|daughter|son|mother|father|cousin|niece|nephew|friend|rival)s?\b",
    re.IGNORECASE,
)
# "He is like X" tells of somebody else; "it sounds like X" is an answer.
_LIKENED = re.compile(
    r"\b(?:he|she|they)(?:'s|'re|\s+(?:is|are|was|were))\s+(?:\w+\s+)?(?:like|similar to)\s+$", re.IGNORECASE
)
_GUEST = re.compile(r"(?:feat|ft|featuring)\b\.?\s*$", re.IGNORECASE)
_REACH = 200
"""Characters before a name in which a name that is joined to it is looked for."""

_MAX_GENRE_WORDS = 5
_MAX_WHOLE_WORDS = 15


def read_name(text: str, stem: str, names: frozenset[str], *, is_genre: bool = False) -> str | None:
    """The name that a text gives as its answer, as the closed set spells it; None for none, or for several.

    Args:
        text: Normalised (`words.normalise`).
        stem: What the answers that training teaches begin with.
        names: The closed set.
        is_genre: Whether the names are genres: then other words for them count too (`preprocess.read.genres`), and a
            longer name ("alternative rock") is one of these words or the genre itself.
    """
    index = index_names(names)
    if len(text.split()) <= _MAX_WHOLE_WORDS:
        bare = _LABEL.sub("", text, count=1).rstrip(" .!*_\"'\u201d\n\t")
        for whole in (text.strip(), bare):
            if normal_name(whole) in index.spelling:
                return index.spelling[normal_name(whole)]
    mentions = find_names(text, index, is_genre=is_genre)
    formal = _read_forms(text, stem, mentions)
    if formal is not None:
        keys = formal
    else:
        keys = {found.key for found in mentions if _states(text, found, is_genre=is_genre)}
        if not is_genre and _names_a_stranger(text, mentions):
            return None
    return index.spelling[keys.pop()] if len(keys) == 1 else None


def find_names(text: str, index: NameIndex, *, is_genre: bool) -> list[Mention]:
    """The names in a text, stated or not."""
    found = index.find(text)
    return longest([*found, *_find_genres(text, index)]) if is_genre else found


@cache
def _genre_words() -> dict[str, str]:
    return {spelling: genre for spelling, genre in load_genres().names.items() if genre and spelling}


def _find_genres(text: str, index: NameIndex) -> Iterator[Mention]:
    """Other words for the genres of the closed set."""
    words = _genre_words()
    for tokens in (fine_tokens(text), coarse_tokens(text)):
        for first in range(len(tokens)):
            for last in range(first, min(first + _MAX_GENRE_WORDS, len(tokens))):
                genre = words.get(_spell(tokens[first : last + 1]))
                start, end = tokens[first].start, tokens[last].end
                # "Pop/Rock" is two genres, whatever a catalogue makes of it.
                if genre and normal_name(genre) in index.spelling and not set(text[start:end]) & set("/,"):
                    yield Mention(normal_name(genre), start, end)


def _spell(tokens: list[Token]) -> str:
    return reduce_spelling("".join(token.text for token in tokens))


def _read_forms(text: str, stem: str, mentions: list[Mention]) -> set[str] | None:
    """The names after the stem, where the text has it at the start of a sentence; None where it has not.

    An unknown name there gives a key of no name, "".
    """
    keys: set[str] = set()
    starts = {found.start: found for found in mentions}
    for match in re.finditer(
        rf"(?:^|(?<=[.!\n])\s*)\W*{re.escape(stem.strip())}\s+[\"'*_\u201c]*", text, re.IGNORECASE
    ):
        found = starts.get(match.end())
        if found is None:
            word = re.compile(r"\w+").match(text, match.end())
            if word and word[0][:1].isupper() and word[0].casefold() not in STOP_WORDS | _ROLES:
                keys.add("")
        elif sentence_ends(text, found.end) and not is_asked(text, match.start()):
            keys.add(found.key)
        else:
            return None
    if keys and "" in keys:
        return {"", *keys} if len(keys) > 1 else set()
    return keys or None


def _states(text: str, found: Mention, *, is_genre: bool) -> bool:
    """Whether a mention gives the name as the answer."""
    if is_denied(text, found.start, found.end) or is_asked(text, found.start):
        return False
    if is_quoted(text, found.start, found.end) or comes_after(_GUEST, text, found.start):
        return False
    if comes_after(_LIKENED, text, found.start) or _RELATIVE.match(text, found.end):
        return False
    if not guesses(text, found.start):
        return False
    if not is_genre and _is_part_of_name(text, found):
        return False
    return " " in text[found.start : found.end] or _is_used_as_name(text, found)


def _is_used_as_name(text: str, found: Mention) -> bool:
    """Whether a single word is the name and not the common word ("heart", "rock") that it also is."""
    word = text[found.start : found.end]
    if word != word.casefold() or word == word.upper():
        return True  # a capital, or a script without any
    before, after = last_word(text, found.start).casefold(), first_word(text, found.end).casefold()
    starts = not text[: found.start].strip(" \n\t_*\"'")
    return starts or before in _BEFORE_NAME or after in _AFTER_NAME


def _may_name(word: str) -> bool:
    """Whether a word may be of a name: a capital, and neither a common word nor a role."""
    return word[:1].isupper() and word.casefold() not in STOP_WORDS | _ROLES


def _is_part_of_name(text: str, found: Mention) -> bool:
    """Whether a capitalised word beside a name makes it a longer one: "Prince Royce", "Kid Drake"."""
    if _may_name(first_word(text, found.end)):
        return True
    return " " not in text[found.start : found.end] and _may_name(last_word(text, found.start))


def _names_a_stranger(text: str, mentions: list[Mention]) -> bool:
    """Whether a text gives a name that the closed set lacks beside, or on a line of its own after "Artist:"."""
    starts = {found.start for found in mentions}
    labelled = (match for match in _LABELLED.finditer(text) if match.start(1) not in starts)
    return any(_may_name(match[1]) for match in labelled) or any(
        _is_joined(text, found, mentions) and _states(text, found, is_genre=False) for found in mentions
    )


def _is_joined(text: str, found: Mention, mentions: list[Mention]) -> bool:
    """Whether a name is one of several, of which the closed set lacks another: "Drake or Ada Unknown"."""
    before = _JOINED_BEFORE.search(text, max(0, found.start - _REACH), found.start)
    # "… of Texas, and Drake sings it" begins another clause.
    if before and _may_name(before[1]) and first_word(text, found.end).casefold() not in _SINGULAR:
        return all(other.end != before.end(1) for other in mentions)
    after = _JOINED_AFTER.match(text, found.end)
    if after is None:
        return False
    listed = [(match[1], found.end + match.start(1)) for match in re.finditer(_LISTED, after["listed"])]
    others = [*listed, (after["last"], after.start("last"))]
    is_known = {place for _, place in others} <= {other.start for other in mentions}
    return not is_known and all(_may_name(word) for word, _ in others)
