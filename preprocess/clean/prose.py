"""What is no song by its form: prose, dialogue, lists of tracks and dates, collections of links.

Verse, even in one paragraph, differs from prose: its lines (or the capitals that were line beginnings, once the
lines were run together) do not wait for the end of a sentence. Poems are songs here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from preprocess.clean.formats import is_quoted_dialogue, is_recipe, is_screenplay, is_source_code
from preprocess.clean.sung import SungText
from preprocess.schema import Song

_SENTENCE_END = re.compile(r"[.!?]['\"\u201d\u2019)]?(?=\s|$)|[\u3002\uff01\uff1f]")
_INNER_END = re.compile(
    r"[a-z\u00df-\u024f\u0430-\u044f]{2}[.!?]['\"\u201d\u2019)]?"
    r" (?=['\"\u201c\u00ab]?[A-Z\u00c0-\u00de\u0410-\u042f\d])"
)
_INNER_CJK_END = re.compile(r"[\u3002\uff01\uff1f](?=.)")
# A capital after no more than a comma: where a line of verse began, as in "I walk alone And all the stars".
_RUN_ON_CAPITAL = re.compile(
    r"[a-z,;:\u2019'] (?:And|The|But|To|In|Of|An?|With|For|That|My|Your|Our|His|Her|We|You|He|She|It|So|When|Where|What"
    r"|How|If|No|Now|Not|Just|Let|Oh|On|As|At|From|Then|There|They|This|All|Who|Like|Got|Don't|Yeah|Is|Are|Can|Cause|Til"
    r"|Till|Y|Que|De|En|El|La|Mi|Et|Je|Le|Les|Un|Una|Und|Ich|Der|Die|Das|E|O|Eu|Non|Per|Che) "
)
_ANY_CAPITAL = re.compile(r"[a-z,;:\u2019'] (?!I\b)[A-Z]")
_CLAUSE_END = re.compile(r"[.,;:!?]\W*")
_DENSE = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_NUM_DENSE_CHARS_A_WORD = 2

_NUMBERED = re.compile(
    r"\W{0,2}(?:track |disc \d )?(\d{1,3})(?:[.)\]:\u3001\uff0e-]|\s[\u2013\u2014-])\s*\S", re.IGNORECASE
)
_DIGIT = re.compile(r"\d")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"\b(?:\d{{1,2}}[/.]\d{{1,2}}(?:[/.]\d{{2,4}})?\b|\d{{4}}-\d{{2}}-\d{{2}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH})",
    re.IGNORECASE,
)
_SPEAKER = re.compile(
    r"([A-Z\u00c0-\u00de\u0410-\u042f][\w.'\u2019-]{0,20}(?: [\w.'\u2019#-]{1,15}){0,3}) ?: ?\S"
)
_LIST_TITLE = re.compile(
    r"[\[(](?:[^\[\]()]{0,30}\W)?(?:track ?list(?:ing)?|(?:album |single |cover )?art(?:work)?|album cover|liner notes"
    r"|(?:album |production )?credits|tour dates|set ?list|booklet"
    r"|press release|release dates?)(?:\W[^\[\]()]{0,40})?[\])]"
    r"|\btrack ?list(?:ing)?\s*$|\btour dates(?: \d{4})?\s*$|\bset ?list\s*$",
    re.IGNORECASE,
)
_LIST_LINE = re.compile(
    r"\W*(?:(?:full |official |album |standard )?track ?list(?:ing)?|tour dates|set ?list|liner notes"
    r"|(?:album )?credits)\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """From which measures on a text is no song.

    Attributes:
        words_a_line: Mean number of words in a line of prose, at least.
        ends_a_line: Sentence ends inside a line of prose, mean, at least.
        words_a_sentence: Words between two sentence ends in prose, at most.
        words_a_speech: Mean number of words in a line of dialogue, at least.
    """

    words_a_line: float
    ends_a_line: float
    words_a_sentence: float
    words_a_speech: float


SONG_BAR = Bar(words_a_line=40, ends_a_line=2.0, words_a_sentence=33, words_a_speech=14)
"""For a text that its source files among songs, or says nothing about."""

MISC_BAR = Bar(words_a_line=22, ends_a_line=0.8, words_a_sentence=40, words_a_speech=10)
"""For a text that its source files under "misc"."""

# Of 254 hymns written as one paragraph none stays below all three; of 226 pieces of prose (quotations) 145 do, 156
# under the stricter bar.
_MAX_RUN_ON_SHARE = 0.015
_MAX_CAPITAL_SHARE = 0.08
_MAX_DISTINCT_CLAUSES = 0.95
_MIN_PROSE_WORDS = 80
_MIN_LIST_LINES = 4
# Longer lines are stanzas with their numbers.
_MAX_LIST_WORDS = 12
_MIN_SPEECHES = 4


def is_no_song(song: Song, sung: SungText) -> bool:
    """Whether a text is no song by its form.

    Args:
        song: The song: its title and its source's tag count.
        sung: What is sung in it.
    """
    bar = MISC_BAR if (song.tag or "").strip().lower() == "misc" else SONG_BAR
    lines = sung.lines
    if is_source_code(sung.text, lines) or is_recipe(sung.text, lines):
        return True
    if bar is MISC_BAR and (is_screenplay(lines) or is_quoted_dialogue(lines)):
        return True
    num_words = _count_words(sung)
    mean = num_words / len(lines)
    if len(lines) >= _MIN_LIST_LINES and _is_enumeration(sung, mean):
        return True
    if song.title and _LIST_TITLE.search(song.title) and (bar is MISC_BAR or not _returns(sung)):
        return True
    if num_words < _MIN_PROSE_WORDS:
        return False
    if mean >= bar.words_a_speech and not _returns(sung) and _is_dialogue(lines):
        return True
    return _is_prose(sung, num_words, mean, bar) or (bar is MISC_BAR and _is_wrapped_prose(lines, mean))


def _returns(sung: SungText) -> bool:
    """Whether lines return, as those of a song do."""
    return len(sung.distinct_lines) < 0.9 * len(sung.lines)


def _count_words(sung: SungText) -> int:
    """Words by spaces; scripts without spaces by their characters."""
    num = sung.text.count(" ") + len(sung.lines)
    return num if sung.text.isascii() else num + len(_DENSE.findall(sung.text)) // _NUM_DENSE_CHARS_A_WORD


def _is_prose(sung: SungText, num_words: int, mean: float, bar: Bar) -> bool:
    if mean < bar.words_a_line:
        return False
    text = sung.text
    num_inner = len(_INNER_END.findall(text)) + len(_INNER_CJK_END.findall(text))
    if num_inner < bar.ends_a_line * len(sung.lines):
        return False
    if num_words > bar.words_a_sentence * len(_SENTENCE_END.findall(text)):
        return False
    if len(_RUN_ON_CAPITAL.findall(text)) >= _MAX_RUN_ON_SHARE * num_words:
        return False
    return len(_ANY_CAPITAL.findall(text)) < _MAX_CAPITAL_SHARE * num_words and not _sentences_return(text)


def _sentences_return(text: str) -> bool:
    """Whether whole sentences or clauses come again, as a refrain does."""
    clauses = [clause for clause in _CLAUSE_END.split(text.lower()) if clause.count(" ") >= 2]
    return len(set(clauses)) <= _MAX_DISTINCT_CLAUSES * len(clauses)


def _is_wrapped_prose(lines: Sequence[str], mean: float) -> bool:
    """Prose broken at a column: full lines that begin in small letters, sentences that begin inside them."""
    if len(lines) < 8 or mean < 8:
        return False
    width = max(map(len, lines))
    num_full = sum(len(line) > 0.75 * width for line in lines)
    num_small = sum(line[0].islower() for line in lines)
    num_inner = sum(_INNER_END.search(line) is not None for line in lines)
    num = len(lines)
    return width <= 120 and num_full >= 0.65 * num and num_small >= 0.5 * num and num_inner >= 0.25 * num


def _is_dialogue(lines: Sequence[str]) -> bool:
    """Whether half of the lines begin with a speaker's name, and a name returns."""
    speakers = [match[1] for match in map(_SPEAKER.match, lines) if match]
    return len(speakers) >= max(_MIN_SPEECHES, 0.5 * len(lines)) and 2 <= len(set(speakers)) <= 0.7 * len(
        speakers
    )


def _is_enumeration(sung: SungText, mean: float) -> bool:
    """Whether a text is a list of tracks, of dates or of links."""
    lines = sung.lines
    # The cheap questions first: few songs hold a digit or a link.
    if sung.num_digits >= 3 and mean <= _MAX_LIST_WORDS:
        with_digits = [line for line in lines if _DIGIT.search(line)]
        if _is_numbered(lines, with_digits) or _is_calendar(lines, with_digits):
            return True
    num_links = sung.text.count("://") + sung.text.count("www.")
    return num_links >= 3 and num_links >= 0.3 * len(lines)


def _is_numbered(lines: Sequence[str], with_digits: Sequence[str]) -> bool:
    """Whether most lines are numbered upwards, or the first ones announce a list and some are."""
    numbers = [int(match[1]) for match in map(_NUMBERED.match, with_digits) if match]
    num_rising = sum(after == before + 1 for before, after in pairwise(numbers))
    if num_rising >= 3 and num_rising + 1 >= 0.6 * len(lines):
        return True
    return num_rising >= 2 and any(_LIST_LINE.fullmatch(line) for line in lines[:3])


def _is_calendar(lines: Sequence[str], with_digits: Sequence[str]) -> bool:
    num_wanted = max(_MIN_LIST_LINES, 0.5 * len(lines))
    if len(with_digits) < num_wanted:
        return False
    return sum(_DATE.search(line) is not None for line in with_digits) >= num_wanted
