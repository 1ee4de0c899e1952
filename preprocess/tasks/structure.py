"""The task "structure": how a song is built, what rhymes and what returns."""

from __future__ import annotations

from collections.abc import Iterator

from preprocess.measure.rhyme import Rhyme
from preprocess.measure.song import Measures
from preprocess.measure.structure import Structure
from preprocess.tasks.evidence import has_words, join, line_sentence, plural, quote, refrain_sentence, times
from preprocess.tasks.task import Answer, Draw, Facts, Task

RETURNING = ("chorus", "refrain", "hook")
SECTIONS = ("verse", "pre-chorus", "post-chorus", "bridge", "intro", "outro", "interlude", *RETURNING)
"""Sections that are told by name, with the number of their headings."""

_MAX_LETTERS = 12


def answer_structure(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The song has 2 verses and a chorus that comes twice.', then how it rhymes and what returns."""
    structure = facts.measures.structure
    form = form_of(structure)
    if form is None:
        return None
    rhymes = rhyme_sentence(facts.measures.rhyme)
    returning = draw.some_of(list(_repetition(facts.measures)), 2 if rhymes is None else 1)
    shown = draw.shuffled([*returning, *([rhymes] if rhymes else [])])
    return Answer(" ".join([f"The song has {form}.", *shown]))


def form_of(structure: Structure) -> str | None:
    """The headed sections in order, or the stanzas where no two are headed; what follows 'The song has'."""
    sections = [(kind, count) for kind, count in structure.section_counts if kind in SECTIONS]
    if sum(count for _, count in sections) > 1:
        return join([_name_section(kind, count) for kind, count in sections])
    if structure.num_stanzas < 2:
        return None
    letters = structure.form.letters
    told = len(
        letters
    ) == structure.num_stanzas <= _MAX_LETTERS and structure.form.num_distinct_stanzas < len(letters)
    return f"{structure.num_stanzas} stanzas{f' in the form {letters}' if told else ''}"


def _name_section(kind: str, count: int) -> str:
    if kind in RETURNING and count > 1:
        return f"a {kind} that comes {times(count)}"
    return (
        plural(count, kind)
        if count > 1 or kind == "verse"
        else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    )


def rhyme_sentence(rhyme: Rhyme | None) -> str | None:
    """The rhyme scheme, or how many lines rhyme; None where it was not read."""
    if rhyme is None or rhyme.num_lines < 4:
        return None
    if not rhyme.pairs:
        return "It has no full rhymes."
    first, second = map(quote, rhyme.pairs[0])
    if rhyme.scheme:
        return f"It mostly rhymes {rhyme.scheme}; {first} rhymes with {second}."
    share = f"{rhyme.num_rhymed} of {rhyme.num_lines} lines"
    return f"Counting returning stanzas once, {share} rhyme, as {first} with {second}."


def _repetition(measures: Measures) -> Iterator[str]:
    """What returns in a song, and how many of its words are different."""
    structure = measures.structure
    found = line_sentence(structure), refrain_sentence(structure)
    yield from (sentence for sentence in found if sentence)
    if structure.num_repeated_lines:
        have = "has" if structure.num_repeated_lines == 1 else "have"
        yield f"{structure.num_repeated_lines} of its {structure.num_lines} lines {have} come before."
    if has_words(measures):
        yield f"{structure.num_distinct_words} of its {structure.num_words} words are different."


TASK = Task(
    name="structure",
    questions=(
        "How is this song built?",
        "Describe the structure of these lyrics.",
        "Which sections, rhymes and repetitions does this song have?",
        "Describe the form, the rhymes and the repetition of this song.",
        "What is the form of this song, and what returns in it?",
        "Outline the construction of these lyrics.",
        "Into which parts do these lyrics fall, and how do they rhyme?",
    ),
    answer_stem="The song has ",
    answer=answer_structure,
)
