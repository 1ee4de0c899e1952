"""Whether lyrics sing explicit words, by a lexicon in several languages (`lexicon/explicit.yaml`).

A lexicon knows words, not what is meant by them; it is a flag for counting, not a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path

import yaml

from preprocess.clean.sung import SungText

# The letters under the signs of "f**k", "sh*t", "b!tch", "n***as".
_MASKED = re.compile(
    r"(?<!\w)(?:f[*#@$%-]{1,3}(?:k|ck)|f\*{2,4}|s[h*][*#@!$%]{1,2}t|b[*#@!$%]{1,2}(?:tch|ch)|n[*#@$%]{1,3}[gz*]?(?:a|er)"
    r"|p[*#@$%]{1,3}s?y|c[*#@$%]{1,2}nt|a[*#@$]{2}hole)(?:s|z|ed|er|in|ing)?(?!\w)",
    re.IGNORECASE,
)
_MASKS = ("*", "#", "@", "$", "%", "!t", "!c")


@dataclass(frozen=True, slots=True)
class ExplicitWords:
    """A lexicon.

    Attributes:
        words: Whole words, lower-cased.
        stems: Beginnings of words, under their own first `opening_chars` letters.
        opening_chars: The length of the shortest stem.
    """

    words: frozenset[str]
    stems: dict[str, tuple[str, ...]]
    opening_chars: int


def is_explicit(sung: SungText) -> bool:
    """Whether a song sings a word of the lexicon, spelled out or with letters masked by signs."""
    lexicon = load_explicit_words()
    if not lexicon.words.isdisjoint(sung.words):
        return True
    num, stems = lexicon.opening_chars, lexicon.stems
    # The beginnings of all words at the speed of C; the words themselves only where one is suspect.
    if not stems.keys().isdisjoint(map(itemgetter(slice(num)), sung.words)):
        likely = [word for word in sung.words if word[:num] in stems]
        if any(word.startswith(stems[word[:num]]) for word in likely):
            return True
    return any(sign in sung.text for sign in _MASKS) and _MASKED.search(sung.text) is not None


@cache
def load_explicit_words() -> ExplicitWords:
    """Read the lexicon that is shipped."""
    path = Path(__file__).parent / "lexicon" / "explicit.yaml"
    groups: dict[str, str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = sorted({entry.lower() for group in groups.values() for entry in group.split()})
    stems = tuple(entry.removesuffix("*") for entry in entries if entry.endswith("*"))
    num = min(map(len, stems))
    words = frozenset(entry for entry in entries if not entry.endswith("*"))
    openings = sorted({stem[:num] for stem in stems})
    return ExplicitWords(words, {start: tuple(filter(_starts(start), stems)) for start in openings}, num)


def _starts(opening: str) -> Callable[[str], bool]:
    return lambda stem: stem.startswith(opening)
