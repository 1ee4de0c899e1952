"""What free text quotes from the lyrics, and what it says of their form."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, found
from harness.evaluation.truth.free_names import QUOTE, unquote
from harness.evaluation.truth.sentences import is_denied_after, is_stated, scope_before
from harness.evaluation.truth.subject import Judgement, Subject, join_judgements, judge, not_so, so, untold
from preprocess.measure.rhyme import SCHEMES, words_rhyme
from preprocess.measure.structure import find_words

_CUE = re.compile(
    r"\b(?:lines?|lyrics?|phrases?|words?|refrain|chorus|hook|verses?|sings?|singing|says?|repeat\w*|mention\w*|quot\w+|"
    r"lyric|(?:open|begin|start|end|clos)\w* with|states?|opening|repetition of|use of|in which|such as|imagery|"
    r"metaphors?|references?)\b[^\"\u201c\u201d]*$",
    re.IGNORECASE,
)
_NO_CUE = re.compile(
    r"\b(?:titled?|called|entitled|known as|album|band|group|musicians?|"
    r"(?:song|track|hit|single)s?|named|genre|theme|artist|by|concept of|sense of)\W*$",
    re.IGNORECASE,
)
_NAMED_SO = re.compile(r"\b(?:an?|so-called|kind of) $", re.IGNORECASE)
"""Before a quotation that names what is told, as in 'a "coming of age" story', unless it is sung."""

_QUOTES_BEFORE = re.compile(rf"(?:{QUOTE}(?:,? (?:or|and)|,) )+$")
_MIN_WORDS = 3
"""A quotation of so many words that are sung is one of the lyrics, whatever stands before it."""

_SECTION = r"(?:pre-chorus|chorus|verse|stanza|bridge|hook|refrain|outro|intro)"
_COUNTED = (
    r"(?: a total of| exactly)? (?P<times>once|twice|"
    r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten) times)"
)
_TIMES_RULES = (
    re.compile(
        rf"(?P<quote>{QUOTE})(?: (?:line|phrase|word))?(?: (?:is|are|was|were))?(?: "
        r"(?:repeated|sung|used|mentioned|appears?|occurs?|comes?|"
        rf"repeats?))(?: up)?{_COUNTED}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:sings?|singing|repeats?|repeating|says?|mentions?|uses?)\b[^\"\u201c\u201d.;:]{{0,40}}"
        rf"(?P<quote>{QUOTE}){_COUNTED}(?=\W*$|\W* (?:in|and|throughout|over|through|across)\b|[,;])",
        re.IGNORECASE,
    ),
)
_OF_PART = re.compile(
    rf"\b(?:each|every|per|both|title|{_SECTION}|opens?|opening|begins?|starts?|ends?|closes?)\b",
    re.IGNORECASE,
)
_IN_PART = re.compile(
    r",? (?:long\b|(?:per|each|every|(?:in|throughout|during) (?:the|each|every|its|both))(?: [a-z]+)? "
    rf"(?:{_SECTION}|choruses|verses)\b)",
    re.IGNORECASE,
)
"""A count of a part of the song, which its whole does not tell."""

_RHYME = re.compile(rf"(?P<first>{QUOTE})(?: is)? rhym(?:es|ed|ing) with (?P<second>{QUOTE})", re.IGNORECASE)
_FIRST = re.compile(
    r"\b(?:(?:open|begin|start)\w* with|(?:first|opening) (?:lines?|words?|phrase))\b[^\"\u201c\u201d]*$",
    re.IGNORECASE,
)
_LAST = re.compile(
    r"\b(?:(?:end|clos|conclud|finish)\w* with|(?:last|final|closing) (?:lines?|words?|phrase))\b[^\"\u201c\u201d]*$",
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
    yield from _rhymes(subject, sentence)
    yield from _repeats(subject, sentence)
    for match in re.finditer(QUOTE, sentence):
        yield from _quote(subject, sentence, match)
    for match in _PARTS.finditer(sentence):
        if _is_said(sentence, match):
            judgement = _part(subject, match["count"], match["kind"])
            if _is_of_part(sentence, match.start(), match.end()):
                judgement = untold("a part of the song is counted")
            yield found("form", match, "count", judgement, match[0])
    for match in _SCHEME.finditer(sentence):
        if is_stated(sentence, match.start("scheme")):
            yield found("form", match, "scheme", _scheme(subject, match["scheme"]))


def _is_said(sentence: str, match: re.Match[str]) -> bool:
    """Whether a match is stated, and not denied behind it."""
    return is_stated(sentence, match.start()) and not is_denied_after(sentence, match.end())


def _is_of_part(sentence: str, start: int, end: int) -> bool:
    """Whether what is counted is in a part of the song, such as a verse."""
    before = re.sub(QUOTE, "", scope_before(sentence, start))
    return _OF_PART.search(before) is not None or _IN_PART.match(sentence, end) is not None


def _rhymes(subject: Subject, sentence: str) -> Iterator[Found]:
    for match in _RHYME.finditer(sentence):
        if _is_said(sentence, match):
            first, second = unquote(match["first"]), unquote(match["second"])
            yield found("form", match, 0, _rhyme(subject, first, second), f"{first} {second}")


def _rhyme(subject: Subject, first: str, second: str) -> Judgement:
    """Whether two sung phrases rhyme; of near rhymes nothing tells."""
    sung = join_judgements((subject.sings(first), subject.sings(second)))
    ends = [find_words(phrase)[-1:] for phrase in (first, second)]
    if sung[0] != "supported" or not all(ends):
        return sung
    rhymes = subject.measures.is_english and words_rhyme(ends[0][0], ends[1][0])
    return so(f'"{first}" and "{second}" rhyme') if rhymes else untold("it is no full rhyme")


def _repeats(subject: Subject, sentence: str) -> Iterator[Found]:
    """How often something is said to be sung."""
    seen: set[int] = set()
    for rule in _TIMES_RULES:
        for match in rule.finditer(sentence):
            start, end = match.start("quote"), match.end()
            if start in seen or not _is_said(sentence, match):
                continue
            seen.add(start)
            judgement = _times(subject, unquote(match["quote"]), match["times"])
            if judgement[0] == "contradicted" and _is_of_part(sentence, start, end):
                judgement = untold("a part of the song is counted")
            yield Found("words", start, end, judgement, " ".join(sentence[start:end].casefold().split()))


def _quote(subject: Subject, sentence: str, match: re.Match[str]) -> Iterator[Found]:
    quoted = unquote(match[0])
    before = sentence[: match.start()]
    pieces = [piece for piece in re.split(r"\.\.\.|\u2026|\n", quoted) if find_words(piece)]
    if not pieces or not _is_said(sentence, match) or _NO_CUE.search(_QUOTES_BEFORE.sub("", before)):
        return
    judgement = join_judgements(subject.sings(piece) for piece in pieces)
    if judgement[0] == "supported":
        judgement = _at_end(subject, scope_before(sentence, match.start()), pieces) or judgement
    if judgement[0] == "contradicted" and _NAMED_SO.search(before):
        return
    is_cued = _CUE.search(re.sub(QUOTE, "", before)) is not None and not match[0].startswith("*")
    is_long = judgement[0] == "supported" and len(find_words(quoted)) >= _MIN_WORDS
    if is_cued or is_long:
        yield Found("words", *match.span(), judgement, " ".join(find_words(quoted)))


def _at_end(subject: Subject, before: str, pieces: list[str]) -> Judgement | None:
    """Whether sung words stand in the first or the last line, where it is said; None where it is not."""
    for cue, index, place in ((_FIRST.search(before), 0, "first"), (_LAST.search(before), -1, "last")):
        if cue is None:
            continue
        line = subject.lines[index]
        if f" {' '.join(find_words(pieces[index]))} " in f" {line} ":
            return so(f"the {place} line is {line}")
        is_sure = "line" in cue[0] and not re.search(rf"\b(?:{_SECTION}|section)\b", before, re.IGNORECASE)
        return (not_so if is_sure else untold)(f"the {place} line is {line}")
    return None


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
