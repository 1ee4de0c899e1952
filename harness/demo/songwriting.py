"""`harness generate`: lyrics in an artist's style, and whether they repeat what training saw."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config import ModelSettings
from harness.demo.asking import FAILURES, Failure, fail, tell_error
from harness.demo.speaker import UNFINISHED, OpenData, open_data
from harness.demo.terminal import plain
from harness.evaluation.labelled_lyrics import read_seen_lyrics
from harness.evaluation.overlap import Overlap, TrainingLyrics, cut_words
from harness.evaluation.truth import Knowledge
from harness.generation.batch import stream_answer
from harness.generation.sampling import Sampling
from harness.tuned import TunedModel, load_tuned_model
from preprocess.clean.explicit import is_explicit
from preprocess.clean.sung import split_sung
from preprocess.errors import ConfigError, DataError
from preprocess.outside_text import holds_surrogates
from preprocess.prompt import encode_pieces
from preprocess.schema import Song
from preprocess.tasks.generation import TASK
from preprocess.tasks.task import Facts
from preprocess.terminal import make_console, print_json

MAX_NEW_TOKENS = 400
"""Room for what the task trains on, 1,200 characters of lyrics at most."""

LONG_OVERLAP = 12
"""Words in a row in common with a training song that are worth a warning: more than a line of most songs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of song is wanted.

    Attributes:
        artist: In whose style; None for a genre alone.
        themes: What about.
        genre: In which genre; None takes the one of most of the artist's training songs.
    """

    artist: str | None
    themes: tuple[str, ...] = ()
    genre: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Lyrics that a model made up.

    Attributes:
        question: As the model got it.
        lyrics: The text.
        is_finished: Whether it ended by itself.
        is_trained: Whether the adapter was trained to write lyrics.
        seed: Of the draws.
        temperature: 0 takes the likeliest token each time.
        tokens_per_s: Generated tokens a second.
        overlap: The longest run of words in common with a training song, or None: not checked.
        notes: What the reader must know.
    """

    question: str
    lyrics: str
    is_finished: bool
    is_trained: bool
    seed: int
    temperature: float
    tokens_per_s: float
    overlap: Overlap | None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run_generate(
    settings: ModelSettings,
    data: Path,
    adapter: Path | None,
    wish: Wish,
    *,
    temperature: float,
    seed: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    as_json: bool = False,
) -> None:
    """Write lyrics, show them while they grow, and say what they have in common with the training lyrics.

    Raises:
        ConfigError: Neither an artist nor a genre is wished, or there is no such model.
        DataError: The data set is missing or damaged.
        CheckpointError: There is no such adapter.
        OutOfMemoryError: The memory does not suffice.
        typer.Exit: With 1, where generating fails otherwise.
    """
    console = make_console(error=as_json)
    with redirect_stdout(sys.stderr):
        opened = open_data(data)
        wish, notes = settle_wish(wish, opened.knowledge)
        question = spell_wish(wish)
        model = load_tuned_model(settings, opened.manifest, adapter)
    is_trained = adapter is not None and TASK.name in opened.manifest.tasks
    if not is_trained:
        notes.insert(0, warn_untrained(opened, adapter))
    for note in notes:
        console.print(plain(note, style="yellow"))
    console.print(plain(f"{question}\n", style="bold"))
    sampling = Sampling(temperature, 1.0, seed) if temperature > 0 else None
    growth = Growth()
    for said in end_on_failure(
        grow_lyrics(model, opened, question, max_new_tokens, sampling, growth), console
    ):
        console.print(plain(said), end="", soft_wrap=True)
    lyrics = growth.text.strip()
    overlap, more = check_lyrics_written(lyrics, data)
    written = Written(
        question,
        lyrics,
        growth.is_finished,
        is_trained,
        seed,
        temperature,
        growth.num_tokens / growth.seconds if growth.seconds > 0 else 0.0,
        overlap,
        notes + more,
    )
    print_json(written.to_json()) if as_json else print_end(written, more, console)


def settle_wish(wish: Wish, knowledge: Knowledge) -> tuple[Wish, list[str]]:
    """The wish with the artist's own spelling and genre, and what the reader must know.

    Raises:
        ConfigError: Neither an artist nor a genre is named, or what is wished is no UTF-8.
    """
    if holds_surrogates("".join((wish.artist or "", wish.genre or "", *wish.themes))):
        raise ConfigError("the wish holds bytes that are no UTF-8; type it in a UTF-8 terminal")
    if not wish.artist and not wish.genre:
        raise ConfigError("name an artist (--artist) or a genre (--genre); the task asks for one of them")
    if not wish.artist:
        return wish, []
    songs = knowledge.by_artist(wish.artist)
    if not songs:
        return wish, [f"No training song is by {wish.artist}: the style is not one that training showed."]
    genres = Counter(song.genre for song in songs if song.genre)
    usual = min(genres, key=lambda genre: (-genres[genre], genre)) if genres else None
    return Wish(songs[0].artist, wish.themes, wish.genre or usual), []


def spell_wish(wish: Wish) -> str:
    """The question, in the words that training uses."""
    song = Song("wish", "", artist=wish.artist, genre=wish.genre, themes=wish.themes)
    return TASK.introduce(Facts(song)) + TASK.questions[0]


def warn_untrained(data: OpenData, adapter: Path | None) -> str:
    """Why nothing taught the model to write lyrics."""
    if adapter is None:
        return "There is no adapter: the base model writes, which was not tuned on lyrics."
    return (
        f"The adapter was not trained to write lyrics: its data set has the tasks {', '.join(data.manifest.tasks)}, "
        f"without {TASK.name}. Build one with --set 'tasks=[…, {TASK.name}]' and train on it."
    )


@dataclass(slots=True)
class Growth:
    """Lyrics that grow: the text so far, its tokens, the seconds they took, and whether it ended by itself."""

    text: str = ""
    num_tokens: int = 0
    seconds: float = 0.0
    is_finished: bool = False


def grow_lyrics(
    model: TunedModel,
    data: OpenData,
    question: str,
    max_new_tokens: int,
    sampling: Sampling | None,
    growth: Growth,
) -> Iterator[str]:
    """Yield what each token adds to the lyrics, and keep the account in `growth`."""
    prompt = encode_pieces(data.tokenizer, data.prompt.without_lyrics(question))
    room = min(max_new_tokens, data.manifest.seq_len - len(prompt))
    if room < 1:
        raise ConfigError(
            f"the wish takes {len(prompt):,} tokens, and a training row has {data.manifest.seq_len:,}"
        )
    ids: list[int] = []
    started_s = time.perf_counter()
    with model.as_version(model.versions[-1]) as causal:
        for token, _ in stream_answer(causal, prompt, data.manifest.stop_token_id, room, sampling=sampling):
            ids.append(token)
            text = data.tokenizer.decode(ids, skip_special_tokens=True).rstrip(UNFINISHED)
            added, growth.text = text[len(growth.text) :], text
            growth.num_tokens, growth.seconds = len(ids), time.perf_counter() - started_s
            yield added
    growth.is_finished = len(ids) < room


def end_on_failure(growing: Iterator[str], console: Console) -> Iterator[str]:
    """The same texts; a failure ends the command as `harness.demo.asking.fail` says, below what was written."""
    try:
        yield from growing
    except FAILURES as error:
        console.print()
        fail(Failure(error, tell_error(error)))


def check_lyrics_written(lyrics: str, data: Path) -> tuple[Overlap | None, list[str]]:
    """The longest overlap with a training song, and what the reader must know of the lyrics."""
    notes = ["The lyrics hold words of the explicit lexicon."] if is_explicit(split_sung(lyrics)) else []
    if not lyrics:
        return None, ["The model wrote nothing."]
    try:
        songs = read_seen_lyrics(data)
    except DataError as error:
        return None, [*notes, f"The overlap with the training lyrics was not checked: {error}."]
    if not songs:
        return None, [
            *notes,
            "The overlap was not checked: the data set holds no lyrics of training songs.",
        ]
    overlap = TrainingLyrics(songs).longest(lyrics)
    if overlap.num_words >= LONG_OVERLAP:
        notes.append(
            f"{overlap.num_words} words in a row are those of a training song; do not call them new."
        )
    return overlap, notes


def print_end(written: Written, notes: list[str], console: Console) -> None:
    """What is to be known of lyrics that stand on the terminal."""
    console.print("\n")
    if not written.is_finished:
        console.print(plain("(cut: it did not end by itself)", style="dim"))
    if written.overlap is not None:
        console.print(plain(tell_overlap(written.overlap)))
    for note in notes:
        console.print(plain(note, style="yellow"))
    console.print(plain(f"{written.tokens_per_s:,.1f} tokens/s, seed {written.seed}", style="dim"))


def tell_overlap(overlap: Overlap) -> str:
    """The overlap, in words; of a long one no more than a line."""
    if overlap.song_id is None:
        return "Overlap with the training lyrics: none."
    return (
        f"Longest overlap with the training lyrics: {overlap.num_words:,} words, \u201c{cut_words(overlap.text)}\u201d "
        f"(song {overlap.song_id})."
    )
