"""The third stage: chosen songs become examples, ids, and groups of segments, piece by piece, on disk.

    WORK/groups/train-000017.arrow     the groups of piece 17; a JSON note in its metadata

A piece whose file is there already is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from preprocess.build.config import BuildConfig
from preprocess.build.encode import EncodedSong, SongEncoder
from preprocess.build.encode_counts import EncodeCounts
from preprocess.build.group_file import GroupFile, write_groups
from preprocess.build.labels import LABELLED
from preprocess.build.pieces import Piece
from preprocess.build.progress import Advance, show_progress
from preprocess.build.workers import Workers
from preprocess.choose.crossing import CrossingIndex
from preprocess.prompt import find_format
from preprocess.schema import Example, Int64Array, Song
from preprocess.tasks.instruct import load_tasks, make_examples_batch
from preprocess.tasks.statistics import CorpusStatistics
from preprocess.tasks.task import Task
from preprocess.tokenizer import TextTokenizer, add_music_tokens, load_tokenizer

ARTIST_TASKS = frozenset({"artist"})
"""Tasks that cannot be asked of songs whose artist has none in training."""


def open_tokenizer(source: str, config: BuildConfig) -> TextTokenizer:
    """The tokenizer of a build, with its added tokens.

    Raises:
        ConfigError: There is no such tokenizer.
    """
    tokenizer = load_tokenizer(source)
    return add_music_tokens(tokenizer) if config.encode.music_tokens else tokenizer


def make_encoder(config: BuildConfig, tokenizer: TextTokenizer) -> SongEncoder:
    """An encoder with a build's settings."""
    encode = config.encode
    return SongEncoder(
        tokenizer,
        find_format(tokenizer, encode.system),
        config.tasks,
        encode.seq_len,
        encode.max_lyrics_tokens,
        share_prefix=encode.share_prefix,
    )


@dataclass(frozen=True, slots=True)
class _Asker:
    """What a worker holds: how to encode, and what examples may know of the training songs."""

    config: BuildConfig
    encoder: SongEncoder
    tasks: tuple[Task, ...]
    corpus: CorpusStatistics
    held_out: CrossingIndex
    is_held_out_cut: bool

    def find_crossing(self, songs: Sequence[Song], encoded: Sequence[EncodedSong]) -> set[int]:
        """Places of the songs whose lyrics, as they are encoded, are those of a held-out song: cut, they may be.

        Whole songs were compared when the songs were selected.
        """
        lyrics = (
            (str(place), found.song.lyrics)
            for place, (song, found) in enumerate(zip(songs, encoded, strict=True))
            if self.is_held_out_cut or found.song.lyrics != song.lyrics
        )
        return (
            {int(found.train_id) for found in self.held_out.search(lyrics)} if len(self.held_out) else set()
        )

    def make_examples(self, songs: Sequence[Song], *, unseen: bool) -> list[list[Example]]:
        tasks = [task for task in self.tasks if not (unseen and task.name in ARTIST_TASKS)]
        return make_examples_batch(songs, tasks=tasks, seed=self.config.seed, corpus=self.corpus)


def _make_asker(
    config: BuildConfig,
    tokenizer: TextTokenizer,
    corpus: CorpusStatistics,
    held_out: tuple[tuple[str, str], ...],
    is_held_out_cut: bool,
) -> _Asker:
    encoder = make_encoder(config, tokenizer)
    tasks = tuple(load_tasks(config.tasks, config.task_files))
    return _Asker(config, encoder, tasks, corpus, CrossingIndex(held_out), is_held_out_cut)


@dataclass(frozen=True, slots=True)
class _Job:
    split: str
    piece: Piece
    path: Path


@dataclass(frozen=True, slots=True)
class KeptSong:
    """A held-out song as the model sees it, and the tasks that it is asked."""

    index: int
    song: Song
    asked: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class SplitGroups:
    """The groups of one split, on disk.

    Attributes:
        paths: One file a piece, in order.
        owners: int64[G], for each group of all files the index of its song in the spool.
        counts: What encoding did.
        labels: Task → name → songs that are asked for it.
        songs: The songs, of a held-out split.
        num_crossing: Songs left out because their lyrics, cut to fit, are those of a held-out song.
    """

    paths: tuple[Path, ...]
    owners: Int64Array
    counts: EncodeCounts
    labels: Mapping[str, Counter[str]]
    songs: tuple[KeptSong, ...]
    num_crossing: int


def encode_splits(
    splits: Mapping[str, Sequence[Piece]],
    config: BuildConfig,
    tokenizer: TextTokenizer,
    make_corpus: Callable[[], CorpusStatistics],
    folder: Path,
    workers: Workers,
    console: Console,
) -> dict[str, SplitGroups]:
    """Encode the songs of all splits.

    Args:
        splits: Name → the songs of the split, cut into pieces; all but "train" are held out.
        config: The build's settings.
        tokenizer: With its added tokens.
        make_corpus: Gives what examples may know of the training songs; called only when there is work to do.
        folder: Where the files go; those that are there already are kept.
        workers: Processes to share the work out to.
        console: For progress.

    Raises:
        NoSpaceError: The disk is full.
    """
    total = sum(len(piece.indices) for pieces in splits.values() for piece in pieces)
    with show_progress(console, "encoding", total) as advance:
        jobs = {name: list(_list_jobs(name, pieces, folder, advance)) for name, pieces in splits.items()}
        corpus = make_corpus() if any(jobs.values()) else None
        if corpus is not None:
            tokenizer.prepare()  # once here, not in each worker
        # Held-out songs first: what they are when they are cut to fit must not be trained on.
        order = sorted(splits, key=lambda name: (name == "train", name))
        groups: dict[str, SplitGroups] = {}
        for name in order:
            lyrics = tuple(
                (kept.song.id, kept.song.lyrics) for split in groups.values() for kept in split.songs
            )
            if jobs[name]:
                assert corpus is not None
                is_cut = any(split.counts.songs_cut for split in groups.values())
                make_state = partial(_make_asker, config, tokenizer, corpus, lyrics, is_cut)
                for num_songs in workers.run(_encode_piece, jobs[name], make_state):
                    advance(num_songs)
            groups[name] = _gather_split(splits[name], _list_paths(name, splits[name], folder))
    return {name: groups[name] for name in splits}


def _list_paths(split: str, pieces: Sequence[Piece], folder: Path) -> list[Path]:
    return [folder / f"{split}-{piece.number:06d}.arrow" for piece in pieces]


def _list_jobs(name: str, pieces: Sequence[Piece], folder: Path, advance: Advance) -> Iterator[_Job]:
    for piece, path in zip(pieces, _list_paths(name, pieces, folder), strict=True):
        if path.is_file():
            advance(len(piece.indices))
        else:
            yield _Job(name, piece, path)


def _encode_piece(asker: _Asker, job: _Job) -> int:
    """Write the groups of one piece; the number of songs."""
    songs = job.piece.songs()
    encoder = asker.encoder
    encoder.counts = EncodeCounts()
    encoded = encoder.encode_songs(songs, partial(asker.make_examples, unseen=job.split == "eval_unseen"))
    crossing = asker.find_crossing(songs, encoded)
    encoded = [
        replace(song, groups=[], asked=frozenset()) if place in crossing else song
        for place, song in enumerate(encoded)
    ]
    kept = [] if job.split == "train" else [place for place, song in enumerate(encoded) if song.groups]
    note = {
        "counts": encoder.counts.to_state(),
        "num_crossing": len(crossing),
        "groups_of_songs": [len(song.groups) for song in encoded],
        "labels": {task: _count_labels(encoded, task) for task in LABELLED if task in asker.config.tasks},
        "songs": [_describe(place, encoded[place]) for place in kept],
    }
    write_groups(job.path, [group for song in encoded for group in song.groups], note)
    return len(songs)


def _count_labels(encoded: Sequence[EncodedSong], task: str) -> dict[str, int]:
    names = (LABELLED[task](song.song) for song in encoded if task in song.asked)
    return dict(sorted(Counter(name for name in names if name).items()))


def _describe(place: int, encoded: EncodedSong) -> dict[str, Any]:
    return {"place": place, "song": {**asdict(encoded.song), "source": ""}, "asked": sorted(encoded.asked)}


def _gather_split(pieces: Sequence[Piece], paths: Sequence[Path]) -> SplitGroups:
    counts = EncodeCounts()
    labels: dict[str, Counter[str]] = {}
    songs: list[KeptSong] = []
    num_crossing = 0
    owners = [np.zeros(0, np.int64)]
    for piece, path in zip(pieces, paths, strict=True):
        note = GroupFile(path).note
        counts.merge(EncodeCounts.from_state(note["counts"]))
        for task, own in note["labels"].items():
            labels.setdefault(task, Counter()).update(own)
        songs += [_kept(piece, **value) for value in note["songs"]]
        num_crossing += note["num_crossing"]
        owners.append(np.repeat(piece.indices, note["groups_of_songs"]))
    return SplitGroups(tuple(paths), np.concatenate(owners), counts, labels, tuple(songs), num_crossing)


def _kept(piece: Piece, place: int, song: dict[str, Any], asked: list[str]) -> KeptSong:
    whole = Song(**{**song, "themes": tuple(song["themes"])})
    return KeptSong(int(piece.indices[place]), whole, frozenset(asked))
