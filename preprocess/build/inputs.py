"""What a build reads: the songs' sources, and the user's other files, with fingerprints of their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from rich.console import Console

from preprocess.build.config import BuildConfig
from preprocess.build.key import hash_files, make_key
from preprocess.build.output_folder import Work, hold_cache
from preprocess.build.scan import FILLED_FACTS, ScanOptions, ScanResult, gather_scan, scan_songs
from preprocess.build.workers import Workers
from preprocess.errors import ConfigError
from preprocess.read.genres import load_genres
from preprocess.read.metadata import MetadataIndex, build_metadata_index
from preprocess.read.songs import ReadOptions, Source, open_sources


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build reads.

    Attributes:
        songs: Sources of songs.
        metadata: Sources of facts to fill in.
        read: What columns and genres mean.
        fingerprints: Names and hashes of all content, and of the user's files that the settings name.
    """

    songs: tuple[Source, ...]
    metadata: tuple[Source, ...]
    read: ReadOptions
    fingerprints: tuple[tuple[str, str], ...]

    @property
    def descriptions(self) -> list[str]:
        """A line for each source: what its columns are taken for."""
        return [source.description for source in (*self.songs, *self.metadata)]


def open_inputs(paths: Sequence[str | Path], config: BuildConfig) -> Inputs:
    """Find the sources, recognise their columns, and hash their content.

    Raises:
        ConfigError: A file that the settings name is missing.
        DataError: A source is missing, or its columns are not understood.
    """
    genres = config.read.genres
    read = ReadOptions(columns=config.read.columns, genres=load_genres(Path(genres) if genres else None))
    songs = tuple(open_sources(paths, read))
    metadata = tuple(open_sources(config.read.metadata, ReadOptions(genres=read.genres), needs_lyrics=False))
    named = [Path(name) for name in (*([genres] if genres else []), *config.task_files)]
    for path in named:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; the settings name it")
    fingerprints = [(PurePath(source.name).name, source.fingerprint()) for source in (*songs, *metadata)]
    fingerprints += [(path.name, hash_files([(path.name, path)])) for path in named]
    return Inputs(songs, metadata, read, (*fingerprints,))


def scan_inputs(
    inputs: Inputs, config: BuildConfig, work: Work, cache: Path | None, workers: Workers, console: Console
) -> ScanResult:
    """Read, clean and judge all songs, or find them as an earlier scan of the same content left them.

    Args:
        inputs: What to read.
        config: The build's settings.
        work: Where stages leave what they made.
        cache: Folder that keeps scans for later builds, or None.
        workers: Processes to share the work out to.
        console: For progress.

    Raises:
        DataError: A source is damaged, holds no song, or too many rows that are none.
        NoSpaceError: The disk is full.
    """
    key = make_key({"inputs": inputs.fingerprints, "settings": config.scan_settings})
    if cache is None:
        return _scan(inputs, config, work, key, workers, console)
    place = cache / key[:16]
    with hold_cache(place):
        return _scan(inputs, config, Work(place), key, workers, console)


def _scan(
    inputs: Inputs, config: BuildConfig, work: Work, key: str, workers: Workers, console: Console
) -> ScanResult:
    metadata = None
    if inputs.metadata:
        metadata = work.open("metadata", key)
        if not (metadata / "index.json").is_file():  # written last
            build_metadata_index(inputs.metadata, metadata)
    max_rejected = config.read.max_rejected_kept
    options = ScanOptions(inputs.read, config.clean, metadata, max_rejected)
    spool = scan_songs(inputs.songs, options, work.open("scan", key), workers, console)
    result = gather_scan(spool, max_rejected, config.read.max_bad_fraction)
    if metadata is not None:
        console.print(_describe_metadata(metadata, result), highlight=False, soft_wrap=True)
    return result


def _describe_metadata(folder: Path, result: ScanResult) -> str:
    """What the metadata files gave, for a wrong column would give nothing in silence."""
    counts = MetadataIndex.open(folder).counts
    told = ", ".join(f"{fact} of {result.filled[fact]:,}" for fact in FILLED_FACTS if result.filled[fact])
    return (
        f"metadata: {counts.num_rows:,} rows, {counts.num_rejected:,} of them unusable, {counts.num_ambiguous:,} keys "
        f"whose rows contradict each other and fill nothing; filled in: {told or 'nothing'}"
    )
