"""The task "structure": how a song is built, what rhymes and what returns."""

from __future__ import annotations

from collections.abc import Iterator

from preprocess.measure.structure import Structure
from preprocess.tasks.evidence import line_sentence, plural, times
from preprocess.tasks.task import Answer, Draw, Facts, Task


def form_of(structure: Structure) -> str | None:
    """Verses and choruses where they are headed, else stanzas, as the end of 'The song has'."""
    if structure.num_verses:
        chorus = (
            f"a chorus that comes {times(structure.num_choruses)}" if structure.num_choruses else "no chorus"
        )
        return f"{plural(structure.num_verses, 'verse')} and {chorus}"
    if structure.num_choruses:
        return f"a chorus that comes {times(structure.num_choruses)}"
    if structure.num_stanzas < 2:
        return None
    return plural(structure.num_stanzas, "stanza")


def answer_structure(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The song has 2 verses and a chorus that comes twice.', then what returns."""
    structure = facts.measures.structure
    form = form_of(structure)
    if form is None:
        return None
    return Answer(" ".join([f"The song has {form}.", *draw.some_of(list(_repetition(structure)), 2)]))


def _repetition(structure: Structure) -> Iterator[str]:
    line = line_sentence(structure)
    if line:
        yield line
    yield f"{structure.num_distinct_words} of its {structure.num_words} words are different."
    yield f"It has {structure.num_lines} lines of {structure.words_per_line:.1f} words on average."


TASK = Task(
    name="structure",
    questions=(
        "How is this song built?",
        "Describe the structure of these lyrics.",
        "Which verses, chorus and repetitions does this song have?",
        "Describe the form, the rhymes and the repetition of this song.",
        "What is the form of this song, and what returns in it?",
        "Outline the construction of these lyrics.",
    ),
    answer_stem="The song has ",
    answer=answer_structure,
)
