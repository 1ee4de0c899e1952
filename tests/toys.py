"""Small real things for tests: tokenizers trained on the spot, songs, a data set folder, a tiny Llama."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from preprocess.build.encode import SongEncoder, pack_groups
from preprocess.build.pack import pack_lengths
from preprocess.check.frame import hash_prompt
from preprocess.durable import sha256_of
from preprocess.forest import PackedRow
from preprocess.knowledge import KNOWLEDGE_FILE, CorpusFigures, Knowledge, KnownSong, write_knowledge
from preprocess.manifest import SIDE_FILES, Manifest, SplitInfo, seal, write_manifest
from preprocess.prompt import PromptFormat, find_format
from preprocess.schema import Example, Song
from preprocess.shards import write_split
from preprocess.tasks.statistics import Group
from preprocess.tokenizer import TextTokenizer

Family = Literal["chatml", "llama3", "plain"]

TASKS = ("artist", "genre", "decade", "themes")

SPECIAL_TOKENS: dict[Family, tuple[str, ...]] = {
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    "plain": ("<|endoftext|>",),
}

TRAINING_TEXT = (
    "You are an expert on song lyrics. Here are the lyrics of a song. End of the lyrics. Answer:",
    "The river ran by the old mill wall and the moon went down on the winter town",
    "Who performs this song? Which genre is this song? From which decade is it? What is it about?",
    "system user assistant artist genre decade themes love night home road rain fire",
    "Sing me a song of the road and the rain, and I will come home to the fire again",
)

SUBJECTS = (
    "river",
    "moon",
    "road",
    "rain",
    "winter town",
    "fire",
    "mill wall",
    "night",
    "été",
    "雨の夜",
    "дорога",
)
ARTISTS = ("Ada Vale", "The Copper Mills", "Jo Winter", "Nine Roads")
GENRES = ("Rock", "Folk", "Pop")


@cache
def _trained_json(family: Family, vocab_size: int) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[
            AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS[family]
        ],
        show_progress=False,
    )
    backend.train_from_iterator(TRAINING_TEXT, trainer)
    return str(backend.to_str())


def make_tokenizer(family: Family = "chatml", *, vocab_size: int = 384) -> TextTokenizer:
    """A byte-level BPE with the special tokens of a chat family, trained on a few lines of text.

    Args:
        family: Whose special tokens it holds.
        vocab_size: Number of ids wanted, special ones included; the training text yields no more than about 420.
    """
    return TextTokenizer(Tokenizer.from_str(_trained_json(family, vocab_size)), f"toy-{family}")


def make_songs(num_songs: int, *, num_lines: int = 4, seed: int = 0) -> list[Song]:
    """Made-up songs with facts, some of their lines in other scripts; the same ones for the same seed."""
    rng = np.random.Generator(np.random.Philox(seed))
    return [_make_song(number, num_lines, rng) for number in range(num_songs)]


def _make_song(number: int, num_lines: int, rng: np.random.Generator) -> Song:
    def pick(names: Sequence[str]) -> str:
        return names[int(rng.integers(len(names)))]

    lines = [f"Sing of the {pick(SUBJECTS)} and the {pick(SUBJECTS)}" for _ in range(num_lines)]
    return Song(
        id=f"song-{number:04d}",
        lyrics="\n".join(lines),
        title=f"Song {number}",
        artist=pick(ARTISTS),
        genre=pick(GENRES),
        year=int(rng.integers(1960, 2020)),
        themes=(pick(("love", "home", "night")),),
        source="toys",
    )


def make_examples(song: Song) -> list[Example]:
    """One example for each task of `TASKS`."""
    assert song.artist is not None
    assert song.genre is not None
    assert song.decade is not None
    return [
        Example("artist", "Who performs this song?", song.artist, song.artist),
        Example("genre", "Which genre is this song?", song.genre, song.genre),
        Example("decade", "From which decade is it?", song.decade, song.decade),
        Example("themes", "What is it about?", f"It is about {', '.join(song.themes)}."),
    ]


def encode_songs(
    songs: Sequence[Song], tokenizer: TextTokenizer, seq_len: int, *, share_prefix: bool = True, seed: int = 0
) -> list[PackedRow]:
    """Packed rows of some songs with all their examples."""
    encoder = SongEncoder(tokenizer, find_format(tokenizer), TASKS, seq_len, share_prefix=share_prefix)
    groups = [group for song in songs for group in encoder.encode(song, make_examples(song))]
    bins = pack_lengths([len(group.input_ids) for group in groups], seq_len, seed)
    return list(pack_groups(groups, bins))


def make_dataset(
    folder: Path,
    *,
    num_songs: int = 12,
    seq_len: int = 512,
    num_eval_songs: int = 3,
    num_lines: int = 4,
    family: Family = "chatml",
    tokenizer: TextTokenizer | None = None,
    rows_per_shard: int = 2,
    share_prefix: bool = True,
    seal_side_files: bool = False,
    seed: int = 0,
) -> Manifest:
    """Write a data set folder like the one that `python -m preprocess build` makes.

    Args:
        folder: Where; made if it is missing.
        num_songs: Songs of the train split.
        seq_len: Slots in a row.
        num_eval_songs: Songs of the eval split (0: no such split).
        num_lines: Lines of each song.
        family: Chat family of the toy tokenizer, where `tokenizer` is None.
        tokenizer: Another tokenizer to encode with.
        rows_per_shard: Rows in a shard file.
        share_prefix: False stores each example whole.
        seal_side_files: Name the files beside the splits in the manifest, as a build does.
        seed: Of the songs and of the packing.

    Returns:
        The manifest that was written.
    """
    tokenizer = make_tokenizer(family) if tokenizer is None else tokenizer
    songs = make_songs(num_songs + num_eval_songs, num_lines=num_lines, seed=seed)
    parts = {"train": songs[:num_songs], "eval": songs[num_songs:]}
    splits = {}
    for split, part in parts.items():
        if part:
            rows = encode_songs(part, tokenizer, seq_len, share_prefix=share_prefix, seed=seed)
            splits[split] = write_split(folder / split, rows, TASKS, rows_per_shard)
    _write_side_files(folder, parts, tokenizer)
    sums = {name: sha256_of(folder / name) for name in SIDE_FILES if (folder / name).exists()}
    return write_toy_manifest(folder, splits, tokenizer, seq_len, sums if seal_side_files else None)


def write_toy_manifest(
    folder: Path,
    splits: dict[str, SplitInfo],
    tokenizer: TextTokenizer,
    seq_len: int,
    files: dict[str, str] | None = None,
) -> Manifest:
    """Write the manifest of splits that `write_split` has written; `files` are the sums of side files to seal."""
    prompt: PromptFormat = find_format(tokenizer)
    manifest = Manifest(
        seq_len=seq_len,
        tasks=TASKS,
        tokenizer_source=tokenizer.source,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        prompt_format=prompt.name,
        system=prompt.system,
        stop_token=prompt.stop_token,
        stop_token_id=tokenizer.special_id(prompt.stop_token),
        splits=splits,
        extra={} if files is None else {"files": files},
        prompt_sha256=hash_prompt(prompt),
    )
    write_manifest(folder, manifest)
    return manifest


def _write_side_files(folder: Path, parts: dict[str, list[Song]], tokenizer: TextTokenizer) -> None:
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    with (folder / "eval_songs.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(song), ensure_ascii=False) + "\n" for song in parts["eval"])
    facts: dict[str, Callable[[Song], str | None]] = {
        "artist": lambda song: song.artist,
        "genre": lambda song: song.genre,
        "decade": lambda song: song.decade,
    }
    labels = {
        task: {
            "stem": "",
            "train_counts": dict(sorted(Counter(fact(song) or "" for song in parts["train"]).items())),
            "truth": {song.id: fact(song) for song in parts["eval"]},
        }
        for task, fact in facts.items()
    }
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    write_knowledge(folder / KNOWLEDGE_FILE, know_songs(parts["train"]))


def know_songs(songs: Sequence[Song]) -> Knowledge:
    """What a data set of these songs knows: their facts, and no figures, which would take a second to import."""
    known = [
        KnownSong(
            song.id, song.title, song.artist, song.genre, song.year, song.album, song.language, song.themes
        )
        for song in songs
    ]
    nothing = Group(len(songs), 0, 0, 0, 0, 0, {}, {}, {}, {})
    return Knowledge(known, CorpusFigures(nothing, {}, {}, {}))


def make_model_dir(
    folder: Path,
    vocab_size: int,
    *,
    tie: bool = True,
    tokenizer: TextTokenizer | None = None,
    num_layers: int = 2,
    seed: int = 0,
) -> Path:
    """Save a tiny random Llama (hidden 64, 4 heads, 2 key-value heads) with its tokenizer.

    Args:
        folder: Where; made if it is missing.
        vocab_size: Rows of the embedding, at least the tokenizer's `vocab_size`.
        tie: Whether the head is the embedding, as in Llama-3.2-3B.
        tokenizer: Written as `tokenizer.json`; a toy ChatML one where it is None.
        num_layers: Decoder layers.
        seed: Of the weights.

    Returns:
        The folder, ready for `AutoModelForCausalLM.from_pretrained` and `load_tokenizer`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer("chatml") if tokenizer is None else tokenizer
    assert vocab_size >= tokenizer.vocab_size
    stop_id = tokenizer.special_id(find_format(tokenizer).stop_token)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=stop_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": find_format(tokenizer).stop_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_sealed(folder: Path, value: dict[str, Any]) -> None:
    """Write a manifest with any content, as if a build had written it."""
    text = seal({key: one for key, one in value.items() if key != "sha256"})
    (folder / "manifest.json").write_text(text, encoding="utf-8")
