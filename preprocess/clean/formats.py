"""Texts of another format than a song's: screenplays, quoted dialogue, source code, recipes."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SCENE = re.compile(r"(?:\d{1,3}[.)]? )?(?:INT|EXT|INT\./EXT|I/E)\.\s*\S")
_SPEAKER_ALONE = re.compile(r"[A-Z][A-Z.'\u2019 -]{1,30}(?: \([^()]{1,30}\))?")
_QUOTES = ('"', "\u201c", "\u201e", "\u00ab", "\u300c")
_MIN_LINES = 6
_MIN_SPEECHES = 4

_CODE_HINTS = ("def ", "import ", "#include", "function ", "return ")
_CODE_DEFINITION = re.compile(
    r"(?:async )?def \w+\(.*|from [\w.]+ import [\w*].*|import [\w.]+(?: as \w+)?;?|#include ?[<\"].*"
    r"|(?:export |async )?function \w*\(.*"
)
_CODE = re.compile(
    r"return(?:;| [\w.]*[(\[{=+*/].*| \w+ ?[-+*/] ?\w+| \w+)|class \w+[(:].*|(?:const|let|var) \w+ ?=.*"
    r"|(?:if|for|while|elif) .*[:{]|else ?[:{]|[{}]+;?|[\w.\[\]]+ ?[-+*]?= ?\S.*|[\w.]+\(.*\);?|.*;|(?:#|//) .*"
)
_MIN_CODE_LINES = 3

_INGREDIENTS = re.compile(r"\W{0,3}(?:the )?ingredients(?: \([^()]{1,30}\))? ?:?\W{0,3}", re.IGNORECASE)
_METHOD = re.compile(
    r"\W{0,3}(?:directions|instructions|method|preparation|steps)\b ?:?\W{0,3}", re.IGNORECASE
)
_MEASURED = re.compile(
    r"\W{0,3}(?:\d[\d./\u2013-]*|[\u00bc-\u00be\u2153-\u215e])+ ?(?:\d/\d )?"
    r"(?:cups?|tbsp|tsp|tablespoons?|teaspoons?|oz|ounces?|lbs?|pounds?|kg|g|grams?|ml|l|pinch|cloves?|eggs?|sticks?)\b",
    re.IGNORECASE,
)
_MIN_MEASURED_LINES = 2


def is_screenplay(lines: Sequence[str]) -> bool:
    """Whether lines hold scene headings ("INT. KITCHEN - DAY"), or speakers' names alone, in capitals, that return."""
    if sum(_SCENE.match(line) is not None for line in lines) >= 2:
        return True
    speeches = [line for line in lines if _SPEAKER_ALONE.fullmatch(line) and line.count(" ") <= 3]
    num_names = len(set(speeches))
    if len(speeches) < max(_MIN_SPEECHES, 0.2 * len(lines)) or not 2 <= num_names <= 0.7 * len(speeches):
        return False
    spoken = [line for line in lines if not line.isupper()]
    # In a song what stands between the shouts returns too.
    return len(spoken) >= len(speeches) and len(set(spoken)) == len(spoken)


def is_quoted_dialogue(lines: Sequence[str]) -> bool:
    """Whether half of the lines begin with a quotation mark and no line returns."""
    if len(lines) < _MIN_LINES or len(set(lines)) < len(lines):
        return False
    return sum(line.startswith(_QUOTES) for line in lines) >= 0.5 * len(lines)


def is_source_code(text: str, lines: Sequence[str]) -> bool:
    """Whether half of the lines are a program's, one of them a definition or an import."""
    # The cheap questions first: few songs hold the signs, fewer one of the words.
    if "(" not in text and "#" not in text:
        return False
    if not any(sign in text for sign in "=;:{") or not any(hint in text for hint in _CODE_HINTS):
        return False
    definitions = [line for line in lines if _CODE_DEFINITION.fullmatch(line)]
    if not any("(" in line or line.startswith(("from ", "#include")) for line in definitions):
        return False
    num = len(definitions) + sum(
        _CODE.fullmatch(line) is not None for line in lines if not _CODE_DEFINITION.fullmatch(line)
    )
    return num >= max(_MIN_CODE_LINES, 0.5 * len(lines))


def is_recipe(text: str, lines: Sequence[str]) -> bool:
    """Whether a line heads ingredients, and measures, a method, or nothing that returns goes with it."""
    if "ngredients" not in text:
        return False
    heads = [line for line in lines if _INGREDIENTS.fullmatch(line)]
    if not heads:
        return False
    if sum(_MEASURED.match(line) is not None for line in lines) >= _MIN_MEASURED_LINES:
        return True
    if any(_METHOD.fullmatch(line) for line in lines):
        return True
    return any(":" in head for head in heads) and len(set(lines)) == len(lines)
