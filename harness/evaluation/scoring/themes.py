"""The themes that a text names, and whether the words that it quotes are sung."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from harness.evaluation.scoring.clauses import is_asked, is_denied, is_quoted, share
from harness.evaluation.scoring.names import index_names
from harness.evaluation.scoring.words import find_quotes, normalise
from preprocess.knowledge import normal_name
from preprocess.measure.lexicons import load_lexicon
from preprocess.measure.words import find_words
from preprocess.schema import Song
from preprocess.tasks.instruct import stated_themes
from preprocess.tasks.main_themes import theme_name


@cache
def _known_themes() -> frozenset[str]:
    return frozenset(load_lexicon("themes").about)


def read_themes(text: str, further: Collection[str]) -> tuple[str, ...]:
    """The themes that a normalised text names, each once, as names are compared.

    In the form that training teaches they are the items of its list, whatever they are. In any other text they are
    those of the lexicon, and of `further` ones, that stand there as whole words, neither denied, asked nor quoted.
    """
    listed = stated_themes(text)
    if listed:
        return tuple(dict.fromkeys(normal_name(theme) for theme in listed if theme))
    mentions = index_names(_known_themes() | frozenset(further)).find(text)
    return tuple(
        dict.fromkeys(
            found.key
            for found in mentions
            if not is_denied(text, found.start, found.end)
            and not is_asked(text, found.start)
            and not is_quoted(text, found.start, found.end)
        )
    )


def score_themes(named: Collection[str], themes: Collection[str]) -> dict[str, float]:
    """Precision, recall and F1 of sets; an answer that names none has none of them.

    Args:
        named: As `read_themes` gives them.
        themes: The song's own; at least one.
    """
    true = {normal_name(theme_name(theme)) for theme in themes}
    num_right = len(true & set(named))
    return {
        "precision": num_right / len(named) if named else 0.0,
        "recall": num_right / len(true),
        "f1": 2 * num_right / (len(named) + len(true)),
    }


def sung_share(text: str, song: Song) -> float | None:
    """The share of the quotations of a normalised text that the song sings, word for word; None without any."""
    quotes = [inside for _, _, inside in find_quotes(text) if inside.strip()]
    if not quotes:
        return None
    lyrics = normalise(song.lyrics)
    sung = f" {' '.join(find_words(lyrics))} "
    return share([_is_sung(quote, sung, lyrics.casefold()) for quote in quotes])


def _is_sung(quote: str, sung: str, lyrics: str) -> bool:
    words = find_words(quote)
    if words and f" {' '.join(words)} " in sung:
        return True
    # Scripts without spaces, numbers, a line that the answer cut.
    return not quote.isascii() and quote.strip().casefold() in lyrics
