"""Build a data set: read, clean, report, sample, ask, encode, pack, write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console

from preprocess.build.encode import SongEncoder, check_row_length, pack_groups
from preprocess.build.output_folder import check_inputs, open_output
from preprocess.build.pack import pack_lengths
from preprocess.choose.sample import SampleConfig, SampleOutcome, sample_songs
from preprocess.clean.lyrics import NamedArtist, clean_song
from preprocess.errors import DataError
from preprocess.forest import PackedRow
from preprocess.prompt import DEFAULT_SYSTEM, PromptFormat, find_format
from preprocess.quality.report import QualityReport
from preprocess.read.songs import find_files, read_songs
from preprocess.schema import Example, Song
from preprocess.settings import Settings
from preprocess.shards import (
    SIDE_FILES,
    Manifest,
    SplitInfo,
    sha256_of,
    write_manifest,
    write_split,
    write_text_durably,
)
from preprocess.tasks.instruct import TASKS, answer_stem, make_examples
from preprocess.terminal import make_progress
from preprocess.tokenizer import TextTokenizer, load_tokenizer


class EncodeSettings(Settings):
    """How songs and examples become rows."""

    seq_len: int = Field(default=2048, ge=16, le=1_048_576)
    """Slots in a row."""

    max_lyrics_tokens: int | None = Field(default=None, ge=1)
    """Cut lyrics at a line end to at most so many tokens. None: only where the row's length demands it."""

    share_prefix: bool = True
    """Store the lyrics once for all questions about them. False repeats them for each question."""

    system: str = DEFAULT_SYSTEM
    """The system message of every chat."""


class BuildConfig(Settings):
    """Everything that decides what a data set holds."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sample, the phrasings, and the packing."""

    tasks: tuple[str, ...] = TASKS
    """Tasks to make examples for."""

    named_artist: NamedArtist = "withhold"
    """A song whose lyrics name its artist: "withhold" asks no artist question, "redact" the name, "drop" the song."""

    sample: SampleConfig = SampleConfig()
    """Which songs are taken."""

    encode: EncodeSettings = EncodeSettings()
    """How they are encoded."""

    rows_per_shard: int = Field(default=8192, ge=1)
    """Rows in one shard file."""

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, each once")
        return tasks


AskedSong = tuple[Song, frozenset[str]]
"""A song as the model will see it, and the tasks that a row asks it."""


class CleanSongs:
    """The cleaned songs of some files, read anew at each iteration; the first one fills the quality report."""

    def __init__(self, paths: Sequence[Path], config: BuildConfig, report: QualityReport) -> None:
        self._paths = paths
        self._config = config
        self._report: QualityReport | None = report

    def __iter__(self) -> Iterator[Song]:
        report, self._report = self._report, None
        on_reject = report.reject if report else lambda source, line, reason: None
        limits = {"min_chars": self._config.sample.min_chars, "max_chars": self._config.sample.max_chars}
        for song in read_songs(self._paths, on_reject=on_reject):
            cleaned, reason = clean_song(song, **limits, named_artist=self._config.named_artist)
            if report:
                report.drop(reason) if reason else report.add(cleaned)
            if reason is None:
                yield cleaned


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        manifest: As written.
        quality: What was found in the input.
        outcome: What the sample wanted, had and took.
    """

    manifest: Manifest
    quality: QualityReport
    outcome: SampleOutcome

    @property
    def note(self) -> str | None:
        """A sentence for the user when evaluation songs were asked for and there are none."""
        sample = BuildConfig.model_validate(self.manifest.extra["config"]).sample
        wanted = sample.eval_fraction if sample.eval_songs is None else sample.eval_songs
        if "eval" in self.manifest.splits or not wanted:
            return None
        return (
            f"note: no eval split, for none of {self.outcome.num_taken:,} songs could be set aside (eval_fraction "
            f"{sample.eval_fraction:g}); take more songs, more of an artist, or set sample.eval_songs"
        )


def build_dataset(
    paths: Sequence[Path],
    output: Path,
    tokenizer_source: str,
    config: BuildConfig,
    console: Console,
    *,
    overwrite: bool,
) -> BuildResult:
    """Build a data set folder. It stands in its place only when it is whole; see `preprocess.build.output_folder`.

    Args:
        paths: Files, folders or glob patterns with songs.
        output: Folder to write.
        tokenizer_source: See `preprocess.tokenizer.load_tokenizer`.
        config: Everything else.
        console: For progress.
        overwrite: Replace a data set that is already there.

    Raises:
        ConfigError: Bad settings, an unknown tokenizer, or something in the way of the output.
        DataError: Bad input.
        NoSpaceError: The disk is full.
    """
    tokenizer = load_tokenizer(tokenizer_source)
    prompt = find_format(tokenizer, config.encode.system)
    with open_output(output, overwrite=overwrite) as building:
        check_inputs(find_files(paths), output)
        quality = QualityReport()
        train, evaluation, outcome = sample_songs(
            CleanSongs(paths, config, quality), config.sample, config.seed
        )
        encoder = SongEncoder(
            tokenizer,
            prompt,
            config.tasks,
            config.encode.seq_len,
            config.encode.max_lyrics_tokens,
            share_prefix=config.encode.share_prefix,
        )
        splits = {}
        kept: dict[str, list[AskedSong]] = {}
        for name, songs in (("train", train), ("eval", evaluation)):
            rows, kept[name] = _encode_split(name, songs, encoder, config, console)
            if rows:
                splits[name] = write_split(building / name, rows, config.tasks, config.rows_per_shard)
        check_row_length(encoder, len(splits))
        if "train" not in splits:
            raise DataError(f"no example could be made of {len(train)} songs: {dict(encoder.counts.dropped)}")
        _write_labels(building, kept["train"], kept["eval"], config.tasks)
        _write_songs(building / "eval_songs.jsonl", [song for song, _ in kept["eval"]])
        _write_side_files(building, tokenizer, quality, outcome)
        extra = {
            "config": config.model_dump(mode="json"),
            "encode": asdict(encoder.counts),
            "versions": {name: metadata.version(name) for name in ("numpy", "pyarrow", "tokenizers")},
            "files": {name: sha256_of(building / name) for name in SIDE_FILES},
        }
        manifest = _make_manifest(tokenizer_source, tokenizer, prompt, config, splits, extra)
        write_manifest(building, manifest)
    return BuildResult(manifest, quality, outcome)


def _make_manifest(
    tokenizer_source: str,
    tokenizer: TextTokenizer,
    prompt: PromptFormat,
    config: BuildConfig,
    splits: dict[str, SplitInfo],
    extra: dict[str, Any],
) -> Manifest:
    return Manifest(
        seq_len=config.encode.seq_len,
        tasks=config.tasks,
        tokenizer_source=Path(tokenizer_source).name if Path(tokenizer_source).exists() else tokenizer_source,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        prompt_format=prompt.name,
        system=prompt.system,
        stop_token=prompt.stop_token,
        stop_token_id=tokenizer.special_id(prompt.stop_token),
        splits=splits,
        extra=extra,
    )


def _encode_split(
    name: str, songs: Sequence[Song], encoder: SongEncoder, config: BuildConfig, console: Console
) -> tuple[list[PackedRow], list[AskedSong]]:
    """The packed rows of some songs, and the songs that are in them."""
    groups: list[PackedRow] = []
    kept: list[AskedSong] = []
    examples: partial[list[Example]] = partial(make_examples, tasks=config.tasks, seed=config.seed)
    with make_progress(console) as progress:
        for song in progress.track(songs, description=f"encoding {name}"):
            fitted = encoder.fit_song(song, examples)
            own = encoder.encode(*fitted) if fitted is not None else []
            if fitted is not None and own:
                groups += own
                asked = {task for group in own for task in group.tasks.tolist() if task >= 0}
                kept.append((fitted[0], frozenset(config.tasks[task] for task in asked)))
    bins = pack_lengths([len(group.input_ids) for group in groups], encoder.seq_len, config.seed)
    return list(pack_groups(groups, bins)), kept


def _write_labels(
    output: Path, train: Sequence[AskedSong], evaluation: Sequence[AskedSong], tasks: Sequence[str]
) -> None:
    """The closed sets that evaluation ranks: names in training with counts, and what is true of the eval songs.

    Both of the songs that are asked for it: a song that sings its artist's name teaches no artist.
    """
    labels = {
        task: {
            "stem": answer_stem(task),
            "train_counts": dict(sorted(Counter(_facts(train, task, fact).values()).items())),
            "truth": _facts(evaluation, task, fact),
        }
        for task, fact in LABELLED.items()
        if task in tasks
    }
    write_text_durably(output / "labels.json", json.dumps(labels, indent=2, ensure_ascii=False) + "\n")


def _facts(songs: Sequence[AskedSong], task: str, fact: Callable[[Song], str | None]) -> dict[str, str]:
    """Song id → what is true of it, of the songs that are asked for it."""
    return {song.id: name for song, asked in songs if task in asked and (name := fact(song))}


LABELLED: dict[str, Callable[[Song], str | None]] = {
    "artist": lambda song: song.artist,
    "genre": lambda song: song.genre,
    "context": lambda song: song.decade,
}
"""Tasks that ask for one fact of a song, and that fact."""


def _write_songs(path: Path, songs: Sequence[Song]) -> None:
    lines = (
        json.dumps({**asdict(song), "source": Path(song.source).name}, ensure_ascii=False) for song in songs
    )
    write_text_durably(path, "".join(line + "\n" for line in lines))


def _write_side_files(
    output: Path, tokenizer: TextTokenizer, quality: QualityReport, outcome: SampleOutcome
) -> None:
    (output / "tokenizer").mkdir(exist_ok=True)
    write_text_durably(output / "tokenizer" / "tokenizer.json", tokenizer.to_json())
    found = {"quality": quality.to_json(), "sample": outcome.to_json()}
    write_text_durably(output / "quality.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
