"""Prompts as an evaluation asks them: made-up songs, and the questions of the project's tasks about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.generation.prompts import Prompt
from preprocess.corpus import Length, generate_songs
from preprocess.measure.song import measure_song
from preprocess.prompt import encode_pieces, find_format
from preprocess.schema import Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.instruct import DEFAULT_TASKS, make_examples
from preprocess.tasks.statistics import CorpusStatistics
from preprocess.tokenizer import TextTokenizer

NUM_COUNTED = 200
"""Songs behind the answers that speak of other songs."""


def make_prompts(
    tokenizer: TextTokenizer, num_songs: int, per_song: int, *, length: Length = "full", seed: int = 0
) -> list[Prompt]:
    """Songs with the same number of questions each, song by song.

    An answer may take as many tokens as the data set's own answer has, its stop token included. So answers are of the
    lengths that an evaluation meets.

    Args:
        tokenizer: To encode with.
        num_songs: Made-up songs.
        per_song: Questions about each; those of the first tasks that the song has answers for.
        length: Of a song.
        seed: Of songs and phrasings.
    """
    counted = list(generate_songs(NUM_COUNTED, seed, length=length))
    corpus = count_songs(counted)
    prompts: list[Prompt] = []
    for song in counted:
        own = list(_ask(tokenizer, song, corpus, seed))
        if len(own) >= per_song and len(prompts) < num_songs * per_song:
            prompts += own[:per_song]
    assert len(prompts) == num_songs * per_song, "enough of the songs have answers for so many tasks"
    return prompts


def count_songs(songs: Sequence[Song]) -> CorpusStatistics:
    """What answers may say of some songs."""
    counts = CorpusCounts()
    for song in songs:
        counts.add(song, measure_song(song.lyrics))
    return CorpusStatistics(counts)


def _ask(tokenizer: TextTokenizer, song: Song, corpus: CorpusStatistics, seed: int) -> Iterator[Prompt]:
    prompt = find_format(tokenizer)
    prefix = tuple(encode_pieces(tokenizer, prompt.prefix(song.lyrics)))
    for example in make_examples(song, tasks=DEFAULT_TASKS, seed=seed, corpus=corpus):
        yield Prompt(
            prefix,
            tuple(encode_pieces(tokenizer, prompt.question(example.instruction))),
            len(encode_pieces(tokenizer, prompt.answer(example.answer))),
        )
