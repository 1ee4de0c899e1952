"""What can be counted in lyrics: sections, lines, repetitions, words, the person that speaks.

Everything here is a fact about the text and can be checked by counting again; nothing is interpreted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


VERSE_WORDS = frozenset({"verse", "couplet", "verso", "strophe", "strofa", "estrofa", "vers", "куплет"})
"""Section words that mean a verse, lower-cased."""

CHORUS_WORDS = ("chorus", "refrain", "coro", "estribillo", "refrão", "ritornello", "refren", "припев", "hook")
"""Section words that mean a chorus, lower-cased. Of those that a song uses, the first is its chorus."""

PERSONS: dict[str, frozenset[str]] = {
    "I": _split("i me my mine myself i'm i've i'll i'd"),
    "you": _split("you your yours yourself you're you've you'll you'd ya thou thee thy thine ye u ur"),
    "we": _split("we us our ours ourselves we're we've we'll we'd"),
    "he": _split("he him his himself he's he'll he'd"),
    "she": _split("she her hers herself she's she'll she'd"),
    "they": _split("they them their theirs themselves they're they've they'll they'd"),
}
"""English pronouns under the one that stands for them."""

STOP_WORDS = frozenset().union(*PERSONS.values()) | _split(
    """a about above after again against ah ain't all am an and another any are aren't around as at away back be
    because been before being below between both but by can can't cannot cause come comes could couldn't did
    didn't do does doesn't doing don't done down each ev'n ev'ry even ever every few for from further get gets
    getting go goes going gonna gone got gotta had hadn't has hasn't hath doth have haven't having hear here hey
    how if in into is isn't it it's its just keep know la let let's like made make makes many may might more
    most much must na never no nor not now o of off oh on once one only onto ooh or other out over own put said
    same saw say says see shall shalt should so some still such take tell than that that's the then there
    there's these thing things think this those though through til till to too under until unto up upon uh very
    wanna want wants was wasn't way were weren't what what's when where where's which while who whom who's why
    will wilt with won't would wouldn't yeah yes yet yo tis"""
)
"""English words too common to tell anything about a song."""

_ENGLISH_WORDS = _split(
    """again ain't are away been before below both but can't could didn't don't down every ev'ry from hath have he's
    hear here him his how i'd i'll i'm i've into it it's its just know let never nobody not nothing oh only our out
    gonna gotta wanna shall she she's should some than that that's the their them then there there's these they
    this those thou through thee thy two until up upon us we're what when where which who with won't would yeah yes
    you you're your and above"""
)
# Words that hardly another language of Europe has: "die" and "war" are German, "me" Spanish, "i", "my" and "to" Polish.

_SHARED_WORDS = _split("a all as at be by for he i if in is me my no of on so to was we will")
# English words that other languages have too: they only add to a text that has some of the above.

MIN_ENGLISH_SHARE = 0.1
"""Lyrics count as English when this share of their words are function words that English alone has; half of it is
enough where these and the words that English shares with others come to `MIN_COMMON_SHARE`."""

MIN_COMMON_SHARE = 0.25

# Letters of any script, with the combining marks that Python's \w leaves out (Hebrew, Arabic, Indic, Thai).
_LETTER = (
    r"[^\W\d_\u0300-\u036f]"
    r"[^\W\d_]*(?:[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0903\u093a-\u0dff\u0e31-\u0e4e\u200c]"
    r"[^\W\d_]*)*"
)
_WORD = re.compile(rf"{_LETTER}(?:'{_LETTER})*")
_ASCII_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_HEADING = re.compile(r"\[([^\[\]\n]{1,60})\]")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\u2018": "'", "`": "'"})


def find_words(text: str) -> list[str]:
    """The words of a text in order, case-folded, with straight apostrophes; numbers are no words."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(text.translate(_APOSTROPHES).casefold())


def is_english(words: Counter[str]) -> bool:
    """Whether lyrics, given as counted words, read as English by their share of function words."""
    total = max(1, words.total())
    own = sum(count for word, count in words.items() if word in _ENGLISH_WORDS) / total
    shared = sum(count for word, count in words.items() if word in _SHARED_WORDS) / total
    return own >= MIN_ENGLISH_SHARE or (own >= MIN_ENGLISH_SHARE / 2 and own + shared >= MIN_COMMON_SHARE)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a song.

    Attributes:
        heading: The text inside the brackets, as in "Verse 1", or None.
        lines: Its lines, without empty ones.
    """

    heading: str | None
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The heading's words without its number, lower-cased: "verse", "pre-chorus", or ""."""
        return re.sub(r"[\s\d]+$", "", self.heading or "").lower()


def split_sections(lyrics: str) -> list[Section]:
    """Split lyrics at their headings, or, when they have none, at their empty lines."""
    lines = [line.strip() for line in lyrics.split("\n")]
    headings = [_HEADING.fullmatch(line) for line in lines]
    has_headings = any(headings)
    sections: list[Section] = []
    heading: str | None = None
    body: list[str] = []
    for line, match in zip(lines, headings, strict=True):
        if match or (not line and not has_headings):
            _close(sections, heading, body)
            heading, body = (match[1] if match else None), []
        elif line:
            body.append(line)
    _close(sections, heading, body)
    return sections


def _close(sections: list[Section], heading: str | None, body: list[str]) -> None:
    if heading is not None or body:
        sections.append(Section(heading, tuple(body)))


def sung_lines(lyrics: str) -> Iterator[str]:
    """The lines that are sung: neither empty nor a heading."""
    for line in lyrics.split("\n"):
        stripped = line.strip()
        if stripped and not _HEADING.fullmatch(stripped):
            yield stripped


@dataclass(frozen=True, slots=True)
class Structure:
    """The counts of one song.

    Attributes:
        num_verses: Sections headed as a verse; 0 when no section is headed.
        num_choruses: Sections headed as a chorus (each return counts); 0 when no section is headed.
        is_english: Whether the words are English enough to be read as such.
        num_stanzas: Sections of any kind that have lines.
        num_stanza_repeats: How often the most repeated stanza occurs, word for word (at least 1 if there is any).
        num_lines: Lines that are sung.
        num_words: Words that are sung.
        num_distinct_words: Different words among them.
        repeated_line: The line that occurs most often, as first written, and its count; None when none returns.
        person: "I", "you", "we", "he", "she" or "they": whose pronouns are the most frequent; None without a clear
            leader of at least three, and for lyrics that are not English.
        frequent_words: Words outside `STOP_WORDS` that occur at least twice, most frequent first, with counts.
    """

    num_verses: int
    num_choruses: int
    is_english: bool
    num_stanzas: int
    num_stanza_repeats: int
    num_lines: int
    num_words: int
    num_distinct_words: int
    repeated_line: tuple[str, int] | None
    person: str | None
    frequent_words: tuple[tuple[str, int], ...]

    @property
    def type_token_ratio(self) -> float:
        """Different words per word, 0 to 1."""
        return self.num_distinct_words / max(1, self.num_words)

    @property
    def words_per_line(self) -> float:
        """Mean number of words in a line."""
        return self.num_words / max(1, self.num_lines)


def measure_structure(lyrics: str) -> Structure:
    """Count what a song consists of, in time linear in its length."""
    sections = split_sections(lyrics)
    kinds = Counter(section.kind for section in sections)
    lines = [line for section in sections for line in section.lines]
    words_by_line = [find_words(line) for line in lines]
    words = Counter(word for line_words in words_by_line for word in line_words)
    stanzas = Counter(_stanza_keys(sections, words_by_line))
    english = is_english(words)
    return Structure(
        num_verses=sum(kinds[word] for word in VERSE_WORDS),
        num_choruses=next((kinds[word] for word in CHORUS_WORDS if word in kinds), 0),
        is_english=english,
        num_stanzas=stanzas.total(),
        num_stanza_repeats=max(stanzas.values(), default=0),
        num_lines=len(lines),
        num_words=words.total(),
        num_distinct_words=len(words),
        repeated_line=_find_repeated_line(lines, words_by_line),
        person=_find_person(words) if english else None,
        frequent_words=_find_frequent_words(words),
    )


def _stanza_keys(sections: Sequence[Section], words_by_line: Sequence[list[str]]) -> Iterator[str]:
    start = 0
    for section in sections:
        end = start + len(section.lines)
        if section.lines:
            yield "\n".join(" ".join(words) for words in words_by_line[start:end])
        start = end


def _find_repeated_line(lines: Sequence[str], words_by_line: Sequence[list[str]]) -> tuple[str, int] | None:
    first_written: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for line, words in zip(lines, words_by_line, strict=True):
        if len(words) >= 3:
            key = " ".join(words)
            first_written.setdefault(key, line)
            counts[key] += 1
    if not counts:
        return None
    key, count = counts.most_common(1)[0]
    return (first_written[key], count) if count > 1 else None


def _find_person(words: Counter[str]) -> str | None:
    counts = {person: sum(words[word] for word in forms) for person, forms in PERSONS.items()}
    (person, first), (_, second) = sorted(counts.items(), key=lambda item: -item[1])[:2]
    return person if first >= 3 and first > second else None


def _find_frequent_words(words: Counter[str], num: int = 5) -> tuple[tuple[str, int], ...]:
    telling = [
        (word, count)
        for word, count in words.items()
        if count > 1 and len(word) > 1 and word not in STOP_WORDS
    ]
    return tuple(sorted(telling, key=lambda item: (-item[1], item[0]))[:num])
