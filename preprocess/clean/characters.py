"""Characters made uniform: Unicode's form NFC, one kind of line end, ordinary spaces, no markup, nothing invisible.

Every script stays. Joiners (U+200C, U+200D) are spelling in Persian, in the Indic scripts and in emoji: they stay
between such characters, and after an Indic one at the end of a word (the older spelling of Malayalam's chillus).
"""

from __future__ import annotations

import html
import re
import unicodedata

_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029\x85\x0b\x0c]")
_SPACES = re.compile(r"[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069"
    r"\ufeff\ufffc\ufffe\uffff]"
    r"|(?<![\u0590-\u200b\u200e-\U0010ffff])[\u200c\u200d]"
    r"|(?<![\u0900-\u0dff])[\u200c\u200d](?![\u0590-\u200b\u200e-\U0010ffff])"
)
# Unicode's stream-safe form allows 30 marks on a letter (UAX 15); more are ornament, and sorting them takes ages.
_MARKS = (
    r"[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u06d6-\u06ed\u0730-\u074a\u07eb-\u07f3"
    r"\u0816-\u082d\u08d3-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
_MANY_MARKS = re.compile(rf"({_MARKS}{{30}}){_MARKS}+")
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#[xX][0-9a-fA-F]{1,6});")
_AMPERSAND = re.compile(r"&(?:amp;)+", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"</?(?:blockquote|body|br|center|div|h[1-6]|hr|html|li|ol|p|pre|table|tbody|td|tr|ul)"
    r"(?:\s[^<>\n]{0,300})?/?>",
    re.IGNORECASE,
)
_INLINE_TAG = re.compile(
    r"</?(?:a|abbr|annotation|b|big|cite|code|em|font|i|iframe|img|ins|s|script|small|span|strike|strong|style|sub"
    r"|sup|u)(?:\s[^<>\n]{0,300})?/?>",
    re.IGNORECASE,
)
_MOJIBAKE = re.compile(
    r"\ufffd|\u00e2\u20ac|\u00f0\u0178|\u00ef\u00bf\u00bd|[\u00c2-\u00c3][\u0080-\u00bf]"
    r"|(?:[\u00d0\u00d1][\u0080-\u00bf\u2018-\u203a\u20ac]){3}"
)
"""UTF-8 that was read as Windows-1252 or Latin-1, or a character that some step could not read."""
# One of these is in everything that the expression finds: most texts need no more than this.
_MOJIBAKE_SIGNS = ("\ufffd", "\u00e2\u20ac", "\u00f0", "\u00ef", "\u00c2", "\u00c3", "\u00d0", "\u00d1")


def normalise_characters(text: str) -> str:
    """NFC, newline as the only line end, ordinary spaces, no control or invisible characters, no HTML."""
    if "\n" not in text and text.count("\\n") > 1:
        # Line breaks that were escaped once too often on their way.
        text = text.replace("\\r", "").replace("\\n", "\n")
    if "&" in text:
        # Escaped any number of times over, as some sources are.
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _AMPERSAND.sub("&", text))
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _normalise_unicode(text)


def _normalise_unicode(text: str) -> str:
    text = _repair_mojibake(text)
    # Whatever the expressions below look for is "not printable": most lyrics pass at the speed of C.
    if not text.replace("\n", "").isprintable():
        text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", text))
        text = _INVISIBLE.sub("", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", _MANY_MARKS.sub(r"\1", text))
    return text


def is_damaged(text: str) -> bool:
    """Whether a text shows damage from a wrong decoding, as in "donâ€™t" or a U+FFFD."""
    if text.isascii() or not any(sign in text for sign in _MOJIBAKE_SIGNS):
        return False
    return _MOJIBAKE.search(text) is not None


def _repair_mojibake(text: str) -> str:
    """Undo a reading of UTF-8 as Windows-1252; only where the whole text turns out to be UTF-8."""
    if "\ufffd" in text or not is_damaged(text):
        return text
    try:
        return b"".join(map(_to_byte, text)).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def _to_byte(letter: str) -> bytes:
    try:
        return letter.encode("cp1252")
    except UnicodeEncodeError:
        # The five bytes that Windows-1252 leaves open are passed on as they are.
        return letter.encode("latin-1")
