"""Where a data set is built: beside its place, into which it moves when it is whole.

    DIR.building   the unfinished build; a build that was killed or failed leaves it, and the same command goes on there
      lock           held while a build runs
      work/          what finished stages left; see `Work`
      data/          the data set that is being written
      old/           the old data set, for the moment between the two renames and while its files are removed
    DIR            the data set: the old one until the new one is whole

Nothing is removed but an unfinished build and the files of a data set that its manifest names.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preprocess.durable import no_space, write_text_durably
from preprocess.errors import ConfigError, DataError, PreflightError
from preprocess.manifest import named_files, read_manifest
from preprocess.read.files import find_files, is_hub_id

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Work:
    """A folder for what stages leave, each under the key of all that decides it.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def open(self, stage: str, key: str) -> Path:
        """The folder of one stage: as an interrupted build left it under the same key, else empty.

        Raises:
            NoSpaceError: The disk is full.
            DataError: The folder cannot be written.
        """
        place = self.folder / stage
        key_file = place / "key"
        try:
            if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
                if place.exists():
                    shutil.rmtree(place)
                place.mkdir(parents=True)
                write_text_durably(key_file, key)
        except OSError as error:
            raise no_space(place, error) from error
        return place


class OutputFolder:
    """Where a data set belongs, and the unfinished build beside it.

    Args:
        output: A new or an empty folder, or one of our data sets.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.place = output.resolve()
        if not self.place.name:
            raise ConfigError(
                f"--output {output} is no folder that a data set could replace; name one below it"
            )
        self.building = self.place.with_name(self.place.name + ".building")
        self.old = self.building / "old"
        self.is_done = False
        self.data = self.building / "data"
        self.work = Work(self.building / "work")

    def key(self) -> str | None:
        """The key of the data set that is there, or None."""
        if not (self.place / MANIFEST).is_file():
            return None
        try:
            key = read_manifest(self.place).extra.get("key")
        except DataError:
            return None
        return key if isinstance(key, str) else None

    def mend(self) -> None:
        """Finish or undo what a build that was killed between its renames left."""
        try:
            _restore(self.place, self.old)
        except OSError as error:
            raise no_space(self.output, error) from error

    def check(self, *, overwrite: bool) -> None:
        """Refuse to write over what is no data set of ours, or over one that is to stay.

        Raises:
            ConfigError: Something is in the way; nothing has been touched.
        """
        try:
            _check_place(self.output, self.place, overwrite=overwrite)
        except OSError as error:
            raise no_space(self.output, error) from error

    def start(self) -> Path:
        """An empty folder to write the data set in."""
        try:
            if self.data.exists():
                shutil.rmtree(self.data)
            self.data.mkdir(parents=True)
        except OSError as error:
            raise no_space(self.output, error) from error
        return self.data

    def has_work(self) -> bool:
        """Whether a stage has left something that another build can go on with."""
        return any(self.work.folder.glob("*/*.arrow"))

    def finish(self) -> None:
        """Move the data set into its place, and remove the unfinished build."""
        try:
            _move(self.data, self.place, self.old)
        except OSError as error:
            raise no_space(self.output, error) from error
        self.discard()
        self.is_done = True

    def discard(self) -> None:
        """Remove the unfinished build."""
        shutil.rmtree(self.building, ignore_errors=True)


@contextmanager
def open_output(output: Path) -> Iterator[OutputFolder]:
    """The output folder, held so that no other build writes it, and mended if a killed build left it half moved.

    What the build leaves unfinished stays for the next one, unless no stage has left anything yet.

    Args:
        output: Where the data set belongs.

    Raises:
        PreflightError: Another build is running there.
        NoSpaceError: The disk is full.
        DataError: The folder cannot be written.
    """
    folder = OutputFolder(output)
    try:
        folder.building.mkdir(parents=True, exist_ok=True)
        lock = (folder.building / "lock").open("wb")
    except OSError as error:
        raise no_space(output, error) from error
    with lock:
        _hold(lock, output)
        try:
            folder.mend()
            yield folder
        finally:
            if not folder.is_done and not folder.has_work():
                folder.discard()


@contextmanager
def hold_cache(folder: Path) -> Iterator[None]:
    """Keep other builds out of a cache folder while this one fills it.

    Raises:
        PreflightError: Another build is at it.
        NoSpaceError: The disk is full.
        DataError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise no_space(folder, error) from error
    with lock:
        _hold(lock, folder)
        yield


def _hold(lock: BinaryIO, output: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PreflightError(
            f"another build is writing {output} at this moment; wait for it, or name another folder"
        ) from None
    except OSError as error:
        # Some network file systems have no locks: then nothing watches over two builds at once.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def check_inputs(paths: Iterable[str | Path], output: Path, cache: Path | None) -> None:
    """Refuse to read songs out of the folders that are written, and folders that hold one another.

    Args:
        paths: Files, folders, glob patterns; hub ids are passed over.
        output: Where the data set goes.
        cache: Where cleaned songs are kept, or None.

    Raises:
        ConfigError: A source lies in a folder that is written, or the other way round.
        DataError: A path matches nothing.
    """
    place = output.resolve()
    building = place.with_name(place.name + ".building")
    written = {"--output": place, "the unfinished build": building}
    if cache is not None:
        for other in (place, building):
            if cache.resolve().is_relative_to(other):
                raise ConfigError(
                    f"--cache {cache} lies in {other}, which the build replaces; name another folder"
                )
        written["--cache"] = cache.resolve()
    local = [path for path in paths if not is_hub_id(path)]
    for file in find_files(local):
        for name, folder in written.items():
            if file.resolve().is_relative_to(folder):
                raise ConfigError(
                    f"--input {file} lies in {name} {folder}, which the build writes; name another folder"
                )
    for path in map(Path, local):
        for name, folder in written.items():
            if path.is_dir() and folder.is_relative_to(path.resolve()):
                raise ConfigError(
                    f"{name} {folder} lies in --input {path}: the next build would read the files of this one. Name a "
                    "folder elsewhere, or the song files themselves"
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
        named = named_files(read_manifest(folder))
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
    files = _files(folder) & named_files(read_manifest(folder))
    for name in sorted(files, key=lambda name: (name == MANIFEST, name)):
        (folder / name).unlink()
    folders = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in [*folders, folder]:
        with suppress(OSError):  # a file that came meanwhile stays
            path.rmdir()
