"""Build a data set: the order of events.

    songs ── scan ── choose ── select ── encode ── pack ── shards

Each stage leaves what it made on disk, under a key of all that decides it; see `preprocess.build.output_folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from preprocess.build.config import BuildConfig
from preprocess.build.encode import SongEncoder, check_row_length
from preprocess.build.encode_counts import EncodeCounts
from preprocess.build.groups import encode_splits, make_encoder, open_tokenizer
from preprocess.build.inputs import Inputs, open_inputs, scan_inputs
from preprocess.build.key import library_versions, make_key
from preprocess.build.output_folder import OutputFolder, check_inputs, open_output
from preprocess.build.rows import write_rows
from preprocess.build.scan import ScanResult, read_columns
from preprocess.build.selection import select_songs
from preprocess.build.side_files import write_side_files
from preprocess.build.workers import Workers
from preprocess.check.frame import hash_prompt
from preprocess.choose.outcome import SampleOutcome
from preprocess.choose.sample import Choice, choose_songs
from preprocess.errors import DataError
from preprocess.knowledge import KNOWLEDGE_FILE
from preprocess.manifest import Manifest, SplitInfo, read_manifest, write_manifest
from preprocess.quality.findings import find_all
from preprocess.quality.overview import QualityReport
from preprocess.tasks.instruct import load_tasks

__all__ = ["BuildConfig", "BuildResult", "build_dataset"]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        manifest: As written.
        quality: What was found in the input; None when the data set was there already.
        outcome: What the sample wanted, had and took; None when the data set was there already.
    """

    manifest: Manifest
    quality: QualityReport | None = None
    outcome: SampleOutcome | None = None

    @property
    def note(self) -> str | None:
        """A sentence for the user when evaluation songs were asked for and there are none."""
        sample = BuildConfig.model_validate(self.manifest.extra["config"]).sample
        wanted = sample.eval_fraction if sample.eval_songs is None else sample.eval_songs
        if "eval" in self.manifest.splits or not wanted:
            return None
        return (
            f"note: no eval split, for none of {self.manifest.splits['train'].num_songs:,} songs could be set aside "
            f"(eval_fraction {sample.eval_fraction:g}); take more songs, more of an artist, or set sample.eval_songs"
        )


@dataclass(frozen=True, slots=True)
class _Build:
    """What all stages of one build need."""

    inputs: Inputs
    folder: OutputFolder
    tokenizer_source: str
    encoder: SongEncoder
    config: BuildConfig
    console: Console
    workers: Workers
    key: str


def build_dataset(
    paths: Sequence[str | Path],
    output: Path,
    tokenizer_source: str,
    config: BuildConfig,
    console: Console,
    *,
    overwrite: bool,
    num_workers: int = 1,
    cache: Path | None = None,
) -> BuildResult:
    """Build a data set folder. It stands in its place only when it is whole.

    Args:
        paths: Files, folders, glob patterns or hub ids with songs.
        output: Folder to write.
        tokenizer_source: See `preprocess.tokenizer.load_tokenizer`.
        config: Everything else that decides the bytes.
        console: For progress.
        overwrite: Replace a data set that is already there.
        num_workers: Processes; the bytes do not depend on them.
        cache: Folder that keeps the scanned songs for later builds; None: only until this one is done.

    Raises:
        ConfigError: Bad settings, an unknown tokenizer, or something in the way of the output.
        DataError: Bad input.
        NoSpaceError: The disk is full.
        PreflightError: Another build is writing there.
    """
    tasks = load_tasks(config.tasks, config.task_files)
    config = config.model_copy(update={"tasks": tuple(task.name for task in tasks)})
    encoder = make_encoder(config, open_tokenizer(tokenizer_source, config))
    with open_output(output) as folder, Workers(num_workers, folder.building) as workers:
        folder.check(overwrite=True)
        check_inputs([*paths, *config.read.metadata], output, cache)
        inputs = open_inputs(paths, config)
        key = make_key(
            {
                "inputs": inputs.fingerprints,
                "config": config.model_dump(mode="json"),
                "tokenizer": [_name_of(tokenizer_source), encoder.tokenizer.sha256],
                "prompt": [encoder.prompt.name, hash_prompt(encoder.prompt)],
            }
        )
        if not overwrite and folder.key() == key:
            return BuildResult(read_manifest(folder.place))
        folder.check(overwrite=overwrite)
        for line in inputs.descriptions:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        build = _Build(inputs, folder, tokenizer_source, encoder, config, console, workers, key)
        try:
            scanned = scan_inputs(inputs, config, folder.work, cache, workers, console)
            choice, quality = _choose(build, scanned)
            manifest = _write(build, scanned, choice, quality)
            folder.finish()
        except BaseException:
            if folder.has_work():
                console.print(
                    f"note: what was done so far stays in {folder.building}; the same command goes on from there",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            raise
    return BuildResult(manifest, quality, choice.outcome)


def _name_of(source: str) -> str:
    return Path(source).name if Path(source).exists() else source


def _choose(build: _Build, scanned: ScanResult) -> tuple[Choice, QualityReport]:
    """Which songs are taken, and the quality report. The columns of all songs are held only here."""
    if not len(scanned.spool):
        dropped = ", ".join(
            f"{reason} ({count:,})" for reason, count in scanned.counts.dropped.tally.ranked()
        )
        raise DataError(
            f"cleaning dropped every song: {dropped}. Look at some with `python -m preprocess quality`, or loosen the "
            "limits under clean"
        )
    columns = read_columns(scanned.spool)
    sample = build.config.sample
    choice = choose_songs(columns, sample, build.config.seed)
    num_near = choice.outcome.num_near_duplicates if sample.near_duplicates else None
    return choice, QualityReport(scanned.counts, find_all(columns, scanned.spool.artists, num_near))


def _write(build: _Build, scanned: ScanResult, choice: Choice, quality: QualityReport) -> Manifest:
    """Encode, pack and write the chosen songs."""
    config, console, workers = build.config, build.console, build.workers
    work = build.folder.work.open("groups", build.key)
    selection, make_corpus = select_songs(
        scanned.spool, choice, work, config.statistics.similar_pool, workers, console
    )
    pieces = {name: selection.pieces(name) for name in selection.order}
    groups = encode_splits(pieces, config, build.encoder.tokenizer, make_corpus, work, workers, console)
    counts = EncodeCounts()
    for split in groups.values():
        counts.merge(split.counts)
    build.encoder.counts = counts
    check_row_length(build.encoder, sum(len(split.owners) for split in groups.values()))
    if "train" not in groups or not len(groups["train"].owners):
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in counts.dropped.most_common())
        raise DataError(
            f"no training example is left: {len(selection.crossing):,} songs are copies of evaluation songs; "
            f"{reasons or 'none was dropped while encoding'}. Take more songs, other tasks, or fewer evaluation songs"
        )
    if not (work / KNOWLEDGE_FILE).is_file():
        make_corpus()
    data = build.folder.start()
    splits = {
        name: write_rows(data / name, split, selection.order[name], config)
        for name, split in groups.items()
        if len(split.owners)
    }
    files = write_side_files(
        data,
        tokenizer=build.encoder.tokenizer,
        groups=groups,
        order=selection.order,
        tasks=config.tasks,
        quality=quality,
        outcome=choice.outcome,
        knowledge=work / KNOWLEDGE_FILE,
        rejected=scanned.rejected,
    )
    manifest = _make_manifest(
        build,
        splits,
        {
            "key": build.key,
            "config": config.model_dump(mode="json"),
            "encoding": counts.to_state(),
            "filled_from_metadata": dict(sorted(scanned.filled.items())),
            "crossing_songs_left_out": len(selection.crossing)
            + sum(split.num_crossing for split in groups.values()),
            "tokenizer_path": build.encoder.tokenizer.fast_path,
            "versions": library_versions(),
            "files": files,
        },
    )
    write_manifest(data, manifest)
    return manifest


def _make_manifest(build: _Build, splits: dict[str, SplitInfo], extra: dict[str, Any]) -> Manifest:
    tokenizer, prompt = build.encoder.tokenizer, build.encoder.prompt
    return Manifest(
        seq_len=build.config.encode.seq_len,
        tasks=build.config.tasks,
        tokenizer_source=_name_of(build.tokenizer_source),
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        prompt_format=prompt.name,
        prompt_sha256=hash_prompt(prompt),
        system=prompt.system,
        stop_token=prompt.stop_token,
        stop_token_id=tokenizer.special_id(prompt.stop_token),
        splits=splits,
        extra=extra,
    )
