"""How fast are lyrics tokenized, against the tokenizer's own batch encoding? Everything on one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from bench.material import find_tokenizer
from bench.record import Outcome, WrongResultError, compare, costs, rates, summarize, time_in_turns
from preprocess.build.encode import SongEncoder
from preprocess.corpus import generate_songs
from preprocess.prompt import find_format
from preprocess.schema import Example, Song
from preprocess.tasks.instruct import make_examples_batch
from preprocess.tokenizer import TextTokenizer, load_tokenizer, locate_source
from preprocess.tokenizer.fast import Verdict

RAW, BATCH, FAST, SONGS = "raw_encode_batch_fast", "our_batch", "our_fast_path", "songs_encoded"
LLAMA3_PACKAGE = "llama_models"
TASKS = ("artist", "genre", "themes", "context", "analysis")
SEQ_LEN = 2048
SONGS_AT_ONCE = 500


def measure(*, quick: bool) -> Outcome:
    """Encode the lyrics of made-up songs three ways, and the songs with five examples each.

    Raises:
        WrongResultError: The ways give different ids.
    """
    num_songs, num_turns = (200, 3) if quick else (5_000, 5)
    tokenizer = find_llama3(quick=quick)
    songs = list(generate_songs(num_songs, seed=0))
    lyrics = [song.lyrics for song in songs]
    slow = TextTokenizer(
        Tokenizer.from_str(tokenizer.to_json()), tokenizer.source, verdict=Verdict("tokenizers: the baseline")
    )
    tokenizer.prepare()
    num_tokens = check_ids(tokenizer, slow, lyrics)
    encode_songs, num_encoded = prepare_songs(tokenizer, songs)
    with one_thread():
        turns = time_in_turns(
            {
                RAW: lambda: in_chunks(lyrics, lambda texts: encode_raw(slow.backend, texts)),
                BATCH: lambda: in_chunks(lyrics, slow.encode_batch),
                FAST: lambda: in_chunks(lyrics, tokenizer.encode_batch),
                SONGS: encode_songs,
            },
            num_turns,
        )
    figures = {
        f"{name}_tokens_per_s": summarize(
            rates(seconds, num_encoded if name == SONGS else num_tokens), "tokens/s"
        )
        for name, seconds in turns.seconds.items()
    }
    figures[f"{SONGS}_us_per_song"] = summarize(costs(turns.seconds[SONGS], num_songs), "us/song")
    return Outcome(
        baseline=RAW,
        figures=figures,
        ratios={name: compare(turns.seconds[RAW], turns.seconds[name]) for name in (BATCH, FAST)},
        facts={
            "tokenizer": Path(tokenizer.source).name,
            "fast_path": tokenizer.fast_path,
            "songs": num_songs,
            "lyrics_tokens": num_tokens,
            "encoded_tokens": num_encoded,
            "tasks": len(TASKS),
            "tokens_with_equal_ids": num_tokens,
        },
    )


def find_llama3(*, quick: bool) -> TextTokenizer:
    """Llama 3's tokenizer where its package is installed; see `bench.material.find_tokenizer` for where not."""
    if quick or find_spec(LLAMA3_PACKAGE) is None:
        return find_tokenizer(quick=quick)
    return load_tokenizer(Path(locate_source(f"package:{LLAMA3_PACKAGE}")) / "llama3" / "tokenizer.model")


def check_ids(tokenizer: TextTokenizer, slow: TextTokenizer, texts: Sequence[str]) -> int:
    """Number of tokens of some texts, after both ways were found to give the same.

    Raises:
        WrongResultError: They do not.
    """
    num_tokens = 0
    for start in range(0, len(texts), SONGS_AT_ONCE):
        part = texts[start : start + SONGS_AT_ONCE]
        ours, theirs = tokenizer.encode_batch(part), slow.encode_batch(part)
        raw = [encoding.ids for encoding in encode_raw(slow.backend, part)]
        if raw != [list(ids) for ids in theirs]:
            raise WrongResultError(f"{RAW} and {BATCH} give different ids")
        if ours != theirs:
            differing = sum(mine != other for mine, other in zip(ours, theirs, strict=True))
            raise WrongResultError(f"{differing} of {len(part)} texts have other ids on the fast path")
        num_tokens += sum(map(len, ours))
    return num_tokens


def prepare_songs(tokenizer: TextTokenizer, songs: Sequence[Song]) -> tuple[Callable[[], object], int]:
    """What encodes songs with examples made beforehand, and how many tokens come of it."""
    made = make_examples_batch(songs, tasks=TASKS)
    examples = {song.id: own for song, own in zip(songs, made, strict=True)}
    prompt = find_format(tokenizer)

    def look_up(some: Sequence[Song]) -> list[list[Example]]:
        return [examples[song.id] for song in some]

    def encode() -> int:
        encoder = SongEncoder(tokenizer, prompt, TASKS, SEQ_LEN)
        num_tokens = 0
        for start in range(0, len(songs), SONGS_AT_ONCE):
            for encoded in encoder.encode_songs(songs[start : start + SONGS_AT_ONCE], look_up):
                num_tokens += sum(len(group.input_ids) for group in encoded.groups)
        return num_tokens

    return encode, encode()


def encode_raw(backend: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """The library's own batch encoding, its ids not even taken out."""
    found: list[Encoding] = backend.encode_batch_fast(texts, add_special_tokens=False)
    return found


def in_chunks(texts: Sequence[str], encode: Callable[[Sequence[str]], object]) -> None:
    """Encode some hundred texts at a time and let the ids go, as a build does."""
    for start in range(0, len(texts), SONGS_AT_ONCE):
        encode(texts[start : start + SONGS_AT_ONCE])


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep `tokenizers` from sharing a batch out to all cores."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before
