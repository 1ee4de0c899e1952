"""What free text quotes from the lyrics, and what it says of their form."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, found
from harness.evaluation.truth.free_names import QUOTE, unquote
from harness.evaluation.truth.sentences import is_stated
from harness.evaluation.truth.subject import Judgement, Subject, join_judgements, judge, untold
from preprocess.measure.rhyme import SCHEMES
from preprocess.measure.structure import find_words

_CUE = re.compile(
    r"\b(?:lines?|lyrics?|phrases?|words?|refrain|chorus|hook|verses?|sings?|singing|says?|repeat\w*|mention\w*|quot\w+|"
    r"lyric|(?:open|begin|start|end|clos)\w* with|states?|opening|repetition of|use of|in which|such as|imagery|"
    r"metaphors?|references?)\b[^\"\u201c\u201d]*$",
    re.IGNORECASE,
)
_NO_CUE = re.compile(
    r"\b(?:titled?|called|entitled|album|"
    r"(?:song|track|hit|single)s?|named|genre|theme|artist|by|concept of|sense of)\W*$",
    re.IGNORECASE,
)
_MIN_WORDS = 3
"""A quotation of so many words that are sung is one of the lyrics, whatever stands before it."""

_TIMES = re.compile(
    rf"(?P<quote>{QUOTE})(?: (?:line|phrase|word))?(?: (?:is|are|was|were))?(?: "
    rf"(?:repeated|sung|used|mentioned|appears?|occurs?|comes?|"
    r"repeats?))(?: up)?(?: a total of| exactly)? (?P<times>once|twice|"
    r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten) times)",
    re.IGNORECASE,
)
_NUMBERS = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 1
    )
}
_PARTS = re.compile(
    rf"\b(?:has|have|contains?|consists? of|comprises?|features?|made up of|with|and|,)"
    rf"(?: a total of| exactly)? (?P<count>\d{{1,4}}|{'|'.join(_NUMBERS)}) "
    r"(?:different )?(?P<kind>verses?|choruses|chorus|stanzas?|lines?|words|bridges?)\b(?! per| each| long)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(?i:rhym\w+)(?i:[^.;\n]{0,40}?)\b(?P<scheme>[A-D]{4,8})\b")


def sung_claims(subject: Subject, sentence: str) -> Iterator[Found]:
    """What a sentence quotes as sung, and what it counts."""
    for match in _TIMES.finditer(sentence):
        if is_stated(sentence, match.start()):
            yield found("words", match, 0, _times(subject, unquote(match["quote"]), match["times"]))
    for match in re.finditer(QUOTE, sentence):
        yield from _quote(subject, sentence, match)
    for match in _PARTS.finditer(sentence):
        if is_stated(sentence, match.start()):
            yield found("form", match, "count", _part(subject, match["count"], match["kind"]), match[0])
    for match in _SCHEME.finditer(sentence):
        if is_stated(sentence, match.start("scheme")):
            yield found("form", match, "scheme", _scheme(subject, match["scheme"]))


def _quote(subject: Subject, sentence: str, match: re.Match[str]) -> Iterator[Found]:
    quoted = unquote(match[0])
    before = sentence[: match.start()]
    pieces = [piece for piece in re.split(r"\.\.\.|\u2026|\n", quoted) if find_words(piece)]
    if not pieces or not is_stated(sentence, match.start()) or _NO_CUE.search(before):
        return
    judgement = join_judgements(subject.sings(piece) for piece in pieces)
    is_cued = _CUE.search(re.sub(QUOTE, "", before)) is not None and not match[0].startswith("*")
    is_long = judgement[0] == "supported" and len(find_words(quoted)) >= _MIN_WORDS
    if is_cued or is_long:
        yield Found("words", *match.span(), judgement, " ".join(find_words(quoted)))


def _times(subject: Subject, quoted: str, told: str) -> Judgement:
    word = told.casefold()
    count = {"once": 1, "twice": 2}.get(word) or _number(word.split()[0])
    judgements = subject.sings_times(quoted, count), subject.line_comes(quoted, count)
    return next((one for one in judgements if one[0] == "supported"), judgements[0])


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word.casefold()]


def _part(subject: Subject, told: str, kind: str) -> Judgement:
    """How many lines, words, stanzas or headed sections the lyrics have."""
    structure, count = subject.measures.structure, _number(told)
    name = (
        re.sub(r"(?<=us)es$|s$", "", kind.casefold())
        if not kind.casefold().endswith("us")
        else kind.casefold()
    )
    if name == "line":
        return judge(count == structure.num_lines, f"{structure.num_lines} lines")
    if name == "word":
        return judge(count == structure.num_words, f"{structure.num_words} words")
    headed = dict(structure.section_counts)
    if name == "stanza":
        return judge(
            count in (structure.num_stanzas, structure.num_distinct_stanzas),
            f"{structure.num_stanzas} stanzas",
        )
    if not headed:
        return untold("the lyrics have no headings")
    true = headed.get(name, 0)
    return judge(count == true or (name == "chorus" and count == 1 and true > 0), f"{name}: {true}")


def _scheme(subject: Subject, told: str) -> Judgement:
    rhyme = subject.measures.rhyme
    if rhyme is None or rhyme.scheme is None or told not in SCHEMES:
        return untold("no scheme leads" if rhyme else "rhymes are read in English lyrics alone")
    return judge(rhyme.scheme == told, f"the leading scheme is {rhyme.scheme}")
