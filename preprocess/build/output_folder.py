"""Where a data set is built: beside its place, into which it moves when it is whole.

    DIR.building   the unfinished build; a build that was killed leaves it, the next one removes it
    DIR            the data set: the old one until the new one is whole
    DIR.old        the old one, for the moment between the two renames and while its files are removed

Nothing is removed but an unfinished build and the files of a data set that its manifest names.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocess.errors import ConfigError, DataError
from preprocess.shards import SIDE_FILES, no_space, read_manifest

MANIFEST = "manifest.json"


@contextmanager
def open_output(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to build in; it becomes `output` at the end, or is removed when the build fails.

    Args:
        output: Where the data set belongs: a new or an empty folder, or with `overwrite` one of ours.
        overwrite: Replace a data set that is already there.

    Raises:
        ConfigError: Something is in the way; nothing has been touched then.
        NoSpaceError: The disk is full.
        DataError: The folder cannot be written.
    """
    place = output.resolve()
    old, building = (place.with_name(place.name + suffix) for suffix in (".old", ".building"))
    try:
        _restore(place, old)
        _check_place(output, place, overwrite=overwrite)
        if building.exists():
            shutil.rmtree(building)
        building.mkdir(parents=True)
    except OSError as error:
        raise no_space(output, error) from error
    try:
        yield building
        try:
            _move(building, place, old)
        except OSError as error:
            raise no_space(output, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_inputs(files: list[Path], output: Path) -> None:
    """Refuse to read songs out of the folder that is to be written.

    Raises:
        ConfigError: One of the files lies in it.
    """
    place = output.resolve()
    inside = [file for file in files if file.resolve().is_relative_to(place)]
    if inside:
        raise ConfigError(
            f"--input {inside[0]} lies in --output {output}, which the build writes; name another output folder"
        )


def _restore(place: Path, old: Path) -> None:
    """Mend what a build that was killed between its renames, or while it removed the old data set, left."""
    if not (old / MANIFEST).is_file():
        return
    if place.exists():
        _check_ours(old)
        _remove_dataset(old)
    else:
        old.rename(place)


def _check_place(output: Path, place: Path, *, overwrite: bool) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise ConfigError(f"{output} is a file; --output names a folder")
    if (place / MANIFEST).exists():
        if not overwrite:
            raise ConfigError(
                f"{output} already holds a data set. Pass --overwrite to replace it, or name another folder"
            )
        _check_ours(place)
    elif any(place.iterdir()):
        raise ConfigError(
            f"{output} holds files but no data set (no {MANIFEST}), and a build replaces the whole folder. Name a "
            "new or an empty folder"
        )


def _check_ours(folder: Path) -> None:
    """Refuse a folder with files that are not of its data set."""
    try:
        named = _named_files(folder)
    except DataError as error:
        raise ConfigError(f"{error}. It cannot be replaced; remove it or name another folder") from error
    foreign = sorted(_files(folder) - named)
    if foreign:
        raise ConfigError(
            f"{folder} holds {len(foreign)} files that its data set does not name ({', '.join(foreign[:3])}), and a "
            "build replaces the whole folder. Move them away, or name another folder"
        )


def _files(folder: Path) -> set[str]:
    """Everything in a folder that is no folder; a link is not followed."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in paths}


def _named_files(folder: Path) -> set[str]:
    splits = read_manifest(folder).splits
    names = {MANIFEST, "dataset_dict.json", *SIDE_FILES}
    for split, info in splits.items():
        files = ("state.json", "dataset_info.json", *(shard.file for shard in info.shards))
        names |= {f"{split}/{file}" for file in files}
    return names


def _move(building: Path, place: Path, old: Path) -> None:
    if not place.exists():
        building.rename(place)
        return
    if not (place / MANIFEST).exists():
        place.rmdir()  # empty when the build began; refuses if it no longer is
        building.rename(place)
        return
    place.rename(old)
    try:
        building.rename(place)
    except OSError:
        old.rename(place)
        raise
    _remove_dataset(old)


def _remove_dataset(folder: Path) -> None:
    """Remove the files that the manifest names, the manifest last, and the folders that this leaves empty."""
    files = _files(folder) & _named_files(folder)
    for name in sorted(files, key=lambda name: (name == MANIFEST, name)):
        (folder / name).unlink()
    folders = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in [*folders, folder]:
        with suppress(OSError):  # a file that came meanwhile stays
            path.rmdir()
