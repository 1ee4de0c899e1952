"""What a split's rows are like: read off a data set, or assumed from a song's lengths, and then said to be so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import ConfigError
from preprocess.manifest import Manifest, SplitInfo, read_manifest

MOST_TOKENS_TO_READ = 200_000_000
"""A larger split's rows are not read one by one; its longest row is taken to fill all slots."""

PACKED = 0.99
"""Assumed share of a row's slots that hold a token; 0.98 to 0.998 on real songs (`python -m bench pack`)."""


@dataclass(frozen=True, slots=True)
class SongLengths:
    """Tokens of a song and of its questions, where there is no data set to read.

    Attributes:
        row_length: Slots of a row.
        tasks: Questions about each song.
        lyrics: Tokens of the lyrics with what stands before them: the prefix that questions share.
        question: Tokens of a question with its frame.
        answer: Supervised tokens of an answer.
    """

    row_length: int = 2048
    tasks: int = 5
    lyrics: int = 350
    question: int = 25
    answer: int = 60

    def __post_init__(self) -> None:
        for name in ("row_length", "tasks", "lyrics", "question", "answer"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if self.lyrics + self.question + self.answer > self.row_length:
            raise ConfigError(
                f"a song with one question takes {self.lyrics + self.question + self.answer} tokens and does not fit a "
                f"row of {self.row_length}; raise --row-length or lower --lyrics-tokens"
            )


@dataclass(frozen=True, slots=True)
class Workload:
    """Means over the rows of a split, and the largest of them.

    Attributes:
        source: Where the figures come from.
        assumed: Whether they are assumptions.
        longest_row: Tokens of the longest row.
        most_supervised: Supervised tokens of the row that has the most.
        examples: Questions with their answers, of a mean row.
        songs: Songs of a mean row.
        tokens: Tokens of a mean row; prefixes once.
        supervised: Supervised tokens of a mean row.
        unshared_tokens: Tokens that a mean row's examples would take with every prefix repeated.
        num_rows: Rows of the split, None where it is assumed.
        vocab_size: Of its tokenizer, None where it is assumed.
        music_tokens: Whether the data set was built with music tokens.
    """

    source: str
    assumed: bool
    longest_row: int
    most_supervised: int
    examples: float
    songs: float
    tokens: float
    supervised: float
    unshared_tokens: float
    num_rows: int | None = None
    vocab_size: int | None = None
    music_tokens: bool = False

    @property
    def tokens_per_example(self) -> float:
        """Tokens computed for one example."""
        return self.tokens / self.examples

    @property
    def pairs(self) -> float:
        """(query, key) pairs of a mean row, from the mean song: S tokens with E examples of which one alone has U.

        A prefix of L tokens with E branches of A: S = L + E A and U = L + A, so A = (S - U) / (E - 1). Pairs are
        L^2 / 2 + E (A L + A^2 / 2). Taken at the mean, below the truth where lengths differ much.
        """
        per_song, whole, alone = (
            self.examples / self.songs,
            self.tokens / self.songs,
            self.unshared_tokens / self.examples,
        )
        branch = (whole - alone) / (per_song - 1) if per_song > 1 else alone
        branch = min(max(branch, 0.0), alone)
        prefix = max(alone - branch, 0.0)
        return self.songs * (prefix**2 / 2 + per_song * (branch * prefix + branch**2 / 2))


def assume_workload(lengths: SongLengths) -> Workload:
    """Rows of songs that all have these lengths."""
    song = lengths.lyrics + lengths.tasks * (lengths.question + lengths.answer)
    songs = PACKED * lengths.row_length / song
    examples = songs * lengths.tasks
    return Workload(
        source=(
            f"assumed: {lengths.tasks} questions a song, {lengths.lyrics} tokens of lyrics, {lengths.question} a "
            f"question, {lengths.answer} an answer; rows of {lengths.row_length} slots, {PACKED:.0%} full"
        ),
        assumed=True,
        longest_row=lengths.row_length,
        most_supervised=min(round(1.25 * examples * lengths.answer), lengths.row_length),
        examples=examples,
        songs=songs,
        tokens=PACKED * lengths.row_length,
        supervised=examples * lengths.answer,
        unshared_tokens=examples * (lengths.lyrics + lengths.question + lengths.answer),
    )


def read_workload(folder: Path, split: str = "train") -> Workload:
    """What a data set's manifest and rows tell.

    Raises:
        ConfigError: There is no such folder.
        DataError: It is no finished data set, or damaged.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"data.path {folder}: no such folder. Build the data set first, or plan without it by giving --row-length, "
            "--tasks, --lyrics-tokens or --answer-tokens"
        )
    manifest = read_manifest(folder)
    if split not in manifest.splits or not manifest.splits[split].num_rows:
        raise ConfigError(f"data.path {folder}: it has no rows in split {split!r}")
    return _describe(folder, split, manifest, manifest.splits[split])


def _describe(folder: Path, split: str, manifest: Manifest, info: SplitInfo) -> Workload:
    rows = info.num_rows
    asked = manifest.extra.get("config", {}).get("encode", {}).get("music_tokens", False)
    return Workload(
        source=f"{folder}, split {split}: {rows:,} rows, {info.num_songs:,} songs, {info.num_examples:,} examples",
        assumed=False,
        longest_row=_longest_row(folder, split, manifest),
        most_supervised=info.max_row_supervised,
        examples=info.num_examples / rows,
        songs=info.num_songs / rows,
        tokens=info.num_tokens / rows,
        supervised=info.num_supervised / rows,
        unshared_tokens=info.unshared_tokens / rows,
        num_rows=rows,
        vocab_size=manifest.vocab_size,
        music_tokens=bool(asked),
    )


def _longest_row(folder: Path, split: str, manifest: Manifest) -> int:
    if manifest.splits[split].num_tokens > MOST_TOKENS_TO_READ:
        return manifest.seq_len
    from harness.row_sizes import read_row_sizes

    return int(read_row_sizes(folder, split, manifest).tokens.max())
