"""The task "themes": what a song is about and which mood it has, with the words that show them."""

from __future__ import annotations

from preprocess.tasks.evidence import join, quote, themes_in_words
from preprocess.tasks.task import Answer, Draw, Facts, Task


def answer_themes(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The main themes are a, b and c.' with the words that show them, and the mood."""
    themes = facts.themes
    if not themes:
        return None
    plural = len(themes) > 1
    names = join([theme.theme for theme in themes])
    fact = f"The main {'themes are' if plural else 'theme is'} {names}."
    num_words = 1 if len(themes) > 2 else 2
    words = [quote(word) for theme in themes for word in theme.words[:num_words]]
    shown = []
    if words:
        subject = draw.one_of(("They show", "The themes show") if plural else ("It shows", "The theme shows"))
        shown.append(f"{subject} in {join(list(dict.fromkeys(words)))}.")
    if facts.measures.moods:
        shown.append(f"The mood is {themes_in_words(facts.measures.moods[:1], num_words=2)}.")
    if draw.below(2) and shown and not shown[0].startswith(("They", "It")):
        shown.reverse()
    return Answer(" ".join([fact, *shown]))


TASK = Task(
    name="themes",
    questions=(
        "What themes are expressed in these lyrics?",
        "Name the main themes of this song and the words that show them.",
        "What are these lyrics about?",
        "Which themes does this song explore?",
        "Which themes and emotions does this song express?",
        "What is this song about, and what feeling does it carry?",
        "List the themes of these lyrics with their evidence.",
    ),
    answer_stem="The main themes are ",
    answer=answer_themes,
)
