"""Sentences of our own answers about what is sung and how a song is built."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, Rule, found
from harness.evaluation.truth.subject import Judgement, Subject, join_judgements, judge, untold
from preprocess.measure.rhyme import words_rhyme
from preprocess.measure.structure import PERSONS
from preprocess.measure.sung import split_song
from preprocess.tasks.structure import SECTIONS

COUNT = r"once|twice|\d+ times"
_QUOTED = r'"[^"\n]*"'
_WORD = re.compile(r'"([^"\n]*)"')
_KIND = rf"(?:{'|'.join(SECTIONS)})(?:es|s)?"
_SECTION_TEXT = rf"(?:an?|\d+) {_KIND}(?: that comes (?:{COUNT}))?"
_SECTION = re.compile(rf"(?:an?|(?P<count>\d+)) (?P<kind>{_KIND})(?: that comes (?P<times>{COUNT}))?")


def number(times: str) -> int:
    """How often "once", "twice" and "3 times" are."""
    return {"once": 1, "twice": 2}.get(times) or int(times.split()[0])


def quoted_words(subject: Subject, text: str, start: int, end: int, shown: str = "") -> Iterator[Found]:
    """The words and phrases that a part of a text quotes as sung, and what they show: of a mood it is told apart."""
    for match in _WORD.finditer(text, start, end):
        yield found("words", match, 0, subject.sings(match[1]), f"{shown} {match[1]}")


def _shown(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    return quoted_words(subject, match.string, *match.span("words"))


def _counted(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'The song sings "a" twice and "b" 3 times.' claim by claim."""
    pair = re.compile(rf'"([^"\n]*)" ({COUNT})')
    for word in pair.finditer(match.string, *match.span("words")):
        yield found("words", word, 0, subject.sings_times(word[1], number(word[2])))


def _line(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    judgement = subject.line_comes(match["line"], number(match["count"]))
    yield found("words", match, 0, join_judgements((subject.sings(match["line"]), judgement)))


def _refrain(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    form = subject.measures.structure.form
    told, place = subject.bare(match["line"]), {"ends": "last", "begins": "first"}[match["place"]]
    if form.refrain is not None and form.refrain_place == place and subject.bare(form.refrain) == told:
        count = form.num_refrains
    else:
        stanzas = {part.keys for part in split_song(subject.song.lyrics).stanzas if part.keys}
        count = sum(keys[-1 if place == "last" else 0] == told for keys in stanzas)
    why = f"the line {match['place']} {count} different stanzas"
    yield found("form", match, 0, judge(count == int(match["count"]), why))


def _opening(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    lines = set(subject.lines)
    count = sum(f"{line} ".startswith(f"{match['opening']} ") for line in lines)
    why = f"{count} different lines begin so"
    yield found("form", match, 0, judge(count == int(match["count"]), why))


def _pronoun(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    counts = {name: sum(subject.words[form] for form in forms) for name, forms in PERSONS.items()}
    person = match["person"]
    leads = person in counts and all(
        counts[person] > count for name, count in counts.items() if name != person
    )
    why = f"{person} and its forms come {counts.get(person, 0)} times"
    holds = leads and counts[person] == number(match["count"])
    yield found("form", match, 0, judge(holds, why if leads else f"{person} does not lead"))


def _length(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    structure = subject.measures.structure
    true = str(structure.num_lines), f"{structure.words_per_line:.1f}"
    holds = (match["lines"], match["mean"]) == true
    yield found("form", match, 0, judge(holds, f"{true[0]} lines of {true[1]} words"))


def _variety(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    structure = subject.measures.structure
    true = structure.num_distinct_words, structure.num_words
    holds = (int(match["different"]), int(match["words"])) == true
    yield found("form", match, 0, judge(holds, f"{true[0]} of {true[1]} words are different"))


def _repeated(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    structure = subject.measures.structure
    true = structure.num_repeated_lines, structure.num_lines
    holds = (int(match["repeated"]), int(match["lines"])) == true
    yield found("form", match, 0, judge(holds, f"{true[0]} of {true[1]} lines have come before"))


def _stanzas(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    structure = subject.measures.structure
    holds = int(match["count"]) == structure.num_stanzas and match["letters"] in (
        None,
        structure.form.letters,
    )
    why = f"{structure.num_stanzas} stanzas in the form {structure.form.letters}"
    yield found("form", match, 0, judge(holds, why))


def _sections(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'The song has 2 verses, a bridge and a chorus that comes twice.' claim by claim."""
    counts = dict(subject.measures.structure.section_counts)
    for part in _SECTION.finditer(match.string, *match.span("sections")):
        count = number(part["times"]) if part["times"] else int(part["count"] or 1)
        kind = part["kind"]
        if part["count"] and count > 1:
            kind = re.sub(r"(?<=us)es$|s$", "", kind)
        true = counts.get(kind, 0)
        # "A chorus" is one at least; how often it returns is told apart.
        holds = true == count if part["count"] or part["times"] else true > 0
        judgement = judge(holds, f"{kind}: {true}")
        if not counts:
            judgement = untold("the lyrics have no headings")
        yield found("form", part, 0, judgement)


def rhyme_pair(subject: Subject, first: str, second: str) -> Judgement:
    """Whether two words rhyme and are both sung."""
    rhymes = judge(words_rhyme(first, second), f'"{first}" and "{second}"')
    return join_judgements((subject.sings(first), subject.sings(second), rhymes))


def _rhymes(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    rhyme = subject.measures.rhyme
    if rhyme is None:
        yield found("form", match, 0, untold("rhymes are read in English lyrics alone"))
        return
    told = match.groupdict()
    if "scheme" in told:
        judgement = judge(rhyme.scheme == told["scheme"], f"the leading scheme is {rhyme.scheme}")
        yield found("form", match, "scheme", judgement)
    else:
        true = rhyme.num_rhymed, rhyme.num_lines
        holds = (int(told["rhymed"]), int(told["lines"])) == true
        yield found("form", match, "rhymed", judge(holds, f"{true[0]} of {true[1]} lines rhyme"))
    pair = rhyme_pair(subject, told["first"], told["second"])
    yield Found("form", match.start("first"), match.end("second"), pair, f"{told['first']} {told['second']}")


def _no_rhymes(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    rhyme = subject.measures.rhyme
    judgement = (
        untold("rhymes are read in English lyrics alone")
        if rhyme is None
        else judge(not rhyme.pairs, f"pairs that rhyme: {len(rhyme.pairs)}")
    )
    yield found("form", match, 0, judgement)


_PAIR = r"\"(?P<first>[^\"\n]*)\" (?:rhymes )?with \"(?P<second>[^\"\n]*)\"\."

SUNG_RULES: list[tuple[re.Pattern[str], Rule]] = [
    (
        re.compile(rf"The song sings (?P<words>{_QUOTED} (?:{COUNT})(?: and {_QUOTED} (?:{COUNT}))?)\."),
        _counted,
    ),
    (re.compile(rf"This one sings (?P<words>{_QUOTED}(?: and {_QUOTED})?)\."), _shown),
    (
        re.compile(
            rf"(?:They|The themes|It|The theme) shows? in (?P<words>{_QUOTED}(?:(?:, | and ){_QUOTED})*)\."
        ),
        _shown,
    ),
    (re.compile(rf'The line "(?P<line>[^"\n]*)" comes (?P<count>{COUNT})\.'), _line),
    (
        re.compile(r'The line "(?P<line>[^"\n]*)" (?P<place>ends|begins) (?P<count>\d+) different stanzas\.'),
        _refrain,
    ),
    (re.compile(r'(?P<count>\d+) different lines begin with "(?P<opening>[^"\n]*)"\.'), _opening),
    (
        re.compile(
            rf'The leading pronoun is "(?P<person>[^"\n]*)": it comes (?P<count>{COUNT}) with its forms\.'
        ),
        _pronoun,
    ),
    (
        re.compile(r"The song has (?P<lines>\d+) lines of (?P<mean>\d+\.\d) words on average\."),
        _length,
    ),
    (re.compile(r"(?P<different>\d+) of its (?P<words>\d+) words are different\."), _variety),
    (re.compile(r"(?P<repeated>\d+) of its (?P<lines>\d+) lines (?:has|have) come before\."), _repeated),
    (re.compile(r"The song has (?P<count>\d+) stanzas(?: in the form (?P<letters>[A-Z]+))?\."), _stanzas),
    (
        re.compile(rf"The song has (?P<sections>{_SECTION_TEXT}(?:(?:, | and ){_SECTION_TEXT})*)\."),
        _sections,
    ),
    (re.compile(rf"It mostly rhymes (?P<scheme>[A-C]+); {_PAIR}"), _rhymes),
    (
        re.compile(
            rf"Counting returning stanzas once, (?P<rhymed>\d+) of (?P<lines>\d+) lines rhyme, as {_PAIR}"
        ),
        _rhymes,
    ),
    (re.compile(r"It has no full rhymes\."), _no_rhymes),
]
