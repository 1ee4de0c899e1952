# ruff: noqa: RUF001 - words of many scripts
"""What a web page or a file format leaves in lyrics: its head, its tail, advertisements, credits, time stamps.

Words that a song may sing are only taken where the page's own form gives them away: glued to a neighbour, with
their numbers, or in a text that carries other residue. Shapes seen in public reports of the Genius scrapers::

    27 ContributorsTranslationsEspañolPortuguêsFreeBird Lyrics[Verse 1]        head
    See Lynyrd Skynyrd LiveGet tickets as low as $17You might also like        in the middle, glued or not
    ...change12EmbedShare URLCopyEmbed                                         tail
"""

from __future__ import annotations

import re

from preprocess.clean.whole_lines import remove_cut_lines, remove_whole_lines

_LANGUAGES = (
    "English|Español|Português(?: do Brasil)?|Français|Deutsch|Italiano|Türkçe|Polski|Русский|Українська|日本語|한국어"
    "|中文|简体中文|繁體中文|العربية|فارسی|עברית|Nederlands|Svenska|Dansk|Norsk|Suomi|Čeština|Slovenčina|Slovenščina"
    "|Ελληνικά|Magyar|Română|Српски|Srpski|Hrvatski|Български|Lietuvių|Latviešu|Eesti|Bahasa Indonesia"
    "|Bahasa Melayu|Tiếng Việt|ไทย|ภาษาไทย|हिन्दी|বাংলা|Català|Euskara|Galego|Azərbaycan(?:ca)?|Қазақша|ქართული"
    "|Հայերեն|Shqip|Íslenska|Filipino|Tagalog|Afrikaans|Esperanto|Latina|Gaeilge|Cymraeg|Македонски|Bosanski"
    "|Беларуская|Oʻzbekcha|Kiswahili|اردو|தமிழ்|Romanization|Romanized"
)
_CONTRIBUTORS = r"\d[\d.,]*K?\+? Contributors?"
_HEAD = re.compile(
    r"\A\s*(?:"
    rf"{_CONTRIBUTORS}[^\n]{{0,1200}}?Lyrics"
    rf"|Translations?\s*(?:(?:{_LANGUAGES})\s*)+(?:[^\n]{{0,120}}?Lyrics(?=\[|\n|[A-Z])|(?=\n)|\Z)"
    rf"|{_CONTRIBUTORS}(?=\n|Translations?|\Z|[^\n]{{0,1500}}?(?:…|\.\.\.) ?Read More)"
    r"|[^\n\[\]]{1,100} Lyrics(?=\[|\n))"
)
_TRANSLATION_LINES = re.compile(rf"\A\s*Translations?\s*\n(?:(?:{_LANGUAGES})\s*\n)+")
_READ_MORE = re.compile(r"\A[^\n\[\]]{0,1500}?(?:…|\.\.\.) ?Read More\s*")
_TAIL = re.compile(
    r"(?:\d[\d.,]*K?)?\s*Embed\s?Share\s?(?:URL)?\s?Copy\s?Embed\s?(?:Copy)?\s*\Z|(?<=[^\s])(?:\d[\d.,]*K?(?:Embed)+)+\s*\Z"
    r"|(?<=[a-z.,!?)\]\"'\u2019\u201d])(?:Embed)+\s*\Z|^(?:\d[\d.,]*K?)?(?:Embed)+\s*\Z",
    re.MULTILINE,
)
_TAIL_CHARS = 200
_LIKE = "You might also like"
_TICKETS = re.compile(
    r"See (?:upcoming [^\n]{1,40}? shows\s?Get tickets for your favou?rite artists"
    r"|[^\n]{1,80}? ?Live\s?Get tickets as low as [^\d\n]{0,4}\d[\d.,]*)"
    rf"[^\S\n]?(?:{_LIKE}(?=\W|[A-Z]|\Z))?\n?"
)
_GLUED_LIKE = re.compile(rf"(?<=[^\s\[(]){_LIKE}(?=[A-Z\[\n]|\Z)\n?|{_LIKE}(?=[A-Z\[])")
_LIKE_LINE = re.compile(rf"^{_LIKE}$\n?|(?<=\S) {_LIKE}(?= [A-Z])", re.MULTILINE)

_CREDIT_LINE = re.compile(
    r"\W*(?:lyrics from genius(?:\.com)?\W*"
    r"|(?:song )?lyrics (?:are )?(?:licensed (?:&|and) )?(?:provided|powered) by .{1,60}"
    r"|(?:lyrics )?(?:©|℗|\(c\)|copyright:).{0,200}"
    r"|(?:song)?(?:writer|composer|lyricist|producer|publisher)(?:s|\(s\))?\s*:.{1,200}"
    r"|(?:words|music|lyrics|written|composed|produced)(?: (?:and|&) (?:words|music|lyrics|composed|produced))? by\s*:"
    r".{1,200}"
    r"|(?:作词|作曲|编曲|作詞|編曲|填词|填詞|词曲|詞曲|词|詞|曲|制作人|製作人|监制|監製|混音|录音|錄音|和声|和聲|吉他|母带"
    r"|出品|原唱|演唱|작사|작곡|편곡)\s*[:：／/].{1,100}"
    r"|\*{3,} ?this lyrics is not for commercial use ?\*{3,}|\(\d{13}\)"
    r"|submitted by .{1,100}|copyright (?:by|holders?)\b.{0,200}|read more at .{1,100}"
    r"|thanks to .{1,80} for (?:correcting|adding|sending|submitting)(?: \w+)? (?:these )?lyrics\W*|submit corrections"
    r")",
    re.IGNORECASE,
)
# A credit stands among the first or the last so many lines.
_NUM_CREDIT_LINES = 4

_STAMP = re.compile(r"\[(\d{1,3}):(\d{2})(?:[.:](\d{1,3}))?\]\s?")
_WORD_STAMP = re.compile(r"<\d{1,3}:\d{2}(?:[.:]\d{1,3})?>\s?")
_LRC_TAG = re.compile(
    r"^\[(?:ar|ti|al|au|by|re|ve|id|la|length|offset|tool|encoding):[^\[\]\n]*\][^\S\n]*\n?", re.MULTILINE
)
_MARK = r"(?:\[\?+\]|\(\?+\)|[\[(](?:inaudible|unintelligible|incomprehensible|indistinct|unclear)\??[\])])"
_UNHEARD_LINE = re.compile(rf"^(?: ?{_MARK})+ *(?:\n|\Z)", re.MULTILINE | re.IGNORECASE)
_UNHEARD = re.compile(rf" ?{_MARK}", re.IGNORECASE)
# One of these is in every such mark: a cheap question first.
_UNHEARD_HINTS = ("?]", "?)", "audible", "telligible", "prehensible", "indistinct", "unclear")


def remove_residue(text: str, title: str | None = None) -> str:
    """Take out what a source adds.

    Args:
        text: Lyrics with a newline between lines.
        title: The song's title, which lets a head be told that is glued to the first line.
    """
    text = text.strip()
    text = _remove_stamps(text)
    cleaned = _remove_head(text, title)
    if "Embed" in cleaned[-_TAIL_CHARS:]:
        cleaned = cleaned[:-_TAIL_CHARS] + _TAIL.sub("", cleaned[-_TAIL_CHARS:])
    if "Get tickets" in cleaned:
        cleaned = _TICKETS.sub(_break_between, cleaned)
    if _LIKE in cleaned:
        cleaned = _GLUED_LIKE.sub(_break_between, cleaned)
        if cleaned != text:
            cleaned = _LIKE_LINE.sub(_break_between, cleaned)
    if any(hint in cleaned for hint in _UNHEARD_HINTS):
        cleaned = _UNHEARD.sub("", _UNHEARD_LINE.sub("", cleaned))
    return remove_cut_lines(remove_whole_lines(_remove_credits(cleaned)))


def _remove_head(text: str, title: str | None) -> str:
    start = text[:1500]
    if "Lyrics" not in start and "Contributor" not in start and "Translation" not in start:
        return text
    if title and text.startswith(f"{title} Lyrics"):
        return text[len(title) + len(" Lyrics") :]
    cleaned = _TRANSLATION_LINES.sub("", _HEAD.sub("", text, count=1), count=1)
    return _READ_MORE.sub("", cleaned, count=1) if cleaned != text else text


def _remove_credits(text: str) -> str:
    lines = text.split("\n")
    last = max(_NUM_CREDIT_LINES, len(lines) - _NUM_CREDIT_LINES)
    edges = (*lines[:_NUM_CREDIT_LINES], *lines[last:])
    if not any(_CREDIT_LINE.fullmatch(line.strip()) for line in edges if line):
        return text
    kept = [
        line
        for place, line in enumerate(lines)
        if _NUM_CREDIT_LINES <= place < last or not line or not _CREDIT_LINE.fullmatch(line.strip())
    ]
    return "\n".join(kept)


def _remove_stamps(text: str) -> str:
    """The lines of an LRC file without their times; a line with several is sung at each of them."""
    if _STAMP.search(text) is None:
        return _WORD_STAMP.sub("", text) if "<" in text else text
    timed: list[tuple[int, str]] = []
    for line in _WORD_STAMP.sub("", _LRC_TAG.sub("", text)).split("\n"):
        stamps = _STAMP.findall(line)
        rest = _STAMP.sub("", line)
        previous = timed[-1][0] if timed else 0
        times = [_milliseconds(*stamp) for stamp in stamps] or [previous]
        timed += [(time, rest) for time in times]
    if "][" in text:
        timed.sort(key=lambda item: item[0])
    return "\n".join(line for _, line in timed)


def _milliseconds(minutes: str, seconds: str, fraction: str) -> int:
    return (int(minutes) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0") or 0)


def _break_between(match: re.Match[str]) -> str:
    """A line end after what stood before the residue; nothing where the residue was a line of its own."""
    start, end = match.span()
    glued_before = start > 0 and match.string[start - 1] != "\n"
    return "\n" if glued_before and end < len(match.string) else ""
