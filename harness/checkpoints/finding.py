"""The newest checkpoint that is whole, on any file system, and how it gets to those that lack it."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.checkpoints.agreement import agree
from harness.checkpoints.commit import (
    PREFIX,
    finish_replacing,
    list_steps,
    put_in_place,
    sync_tree,
    with_ending,
)
from harness.checkpoints.manifest import MANIFEST, digest_of, find_damage, read_manifest
from harness.checkpoints.storage import Storage, send_file
from harness.dist import HostGroup, gather_objects
from preprocess.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that is whole.

    Attributes:
        step: Its step.
        digest: Of its state; equal ones go on in the same way.
        rank: The committing rank that has it.
    """

    step: int
    digest: str
    rank: int


def find_newest(storage: Storage, group: HostGroup) -> tuple[list[Found | None], list[str]]:
    """The newest whole checkpoint of each file system, by its committing rank, and what is wrong with newer ones.

    Raises:
        CheckpointError: There is no whole one anywhere.
    """
    found, problems, is_old = None, list[str](), False
    if storage.commits:
        for path in storage.run_dir.glob(f"{PREFIX}*.old"):
            finish_replacing(path.with_suffix(""))
        for step in reversed(list_steps(storage.run_dir)):
            folder = storage.run_dir / f"{PREFIX}{step}"
            problem = find_damage(folder)
            if problem is None:
                found = Found(step, digest_of(read_manifest(folder)), storage.rank)
                break
            is_old = is_old or "earlier version" in problem
            problems.append(f"{folder}: {problem}; passing over it")
    answers = gather_objects((found, problems, is_old), group)
    lines = [line for _, lines_there, _ in answers for line in lines_there]
    if all(found_there is None for found_there, _, _ in answers):
        raise CheckpointError(
            _explain_nothing(storage.run_dir, lines, is_old=any(old for _, _, old in answers))
        )
    return [found_there for found_there, _, _ in answers], lines


def _explain_nothing(run_dir: Path, problems: list[str], *, is_old: bool) -> str:
    if is_old:
        return (
            f"--resume: {run_dir} holds checkpoints of an earlier version, in DeepSpeed's own pickled format, which "
            "this one does not read. Finish the run with that version, or start without --resume in another "
            "output_dir; an adapter in a checkpoint can be used as it is"
        )
    said = "".join(f"\n  {line}" for line in problems)
    return (
        f"--resume: {run_dir} holds no whole checkpoint. Start without --resume, in another output_dir or after "
        f"removing this one{said}"
    )


def choose(found: list[Found | None]) -> Found:
    """The newest one; of several of the same step that of the lowest rank."""
    return max((one for one in found if one is not None), key=lambda one: (one.step, -one.rank))


def spread(storage: Storage, group: HostGroup, chosen: Found) -> None:
    """Bring a checkpoint to every file system that has none of its step with the same state.

    Raises:
        UserError: It cannot be read or written.
    """
    folder = storage.run_dir / f"{PREFIX}{chosen.step}"
    lacks = storage.commits and not _has(folder, chosen.digest)
    if not any(gather_objects(lacks, group)):
        return
    files: dict[str, Any] = {}
    temporary = with_ending(folder, ".tmp")

    def prepare() -> None:
        if storage.rank == chosen.rank:
            names = [*read_manifest(folder), MANIFEST]
            files.update({name: (folder / name).stat().st_size for name in names})
        if lacks:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()

    agree(group, folder, prepare)
    files = gather_objects(files, group)[chosen.rank]
    for name, size in files.items():
        source = folder / name if storage.rank == chosen.rank else None
        target = temporary / name if lacks else None
        agree(group, folder, partial(_pass_on, group, chosen.rank, size, source, target))

    def finish() -> None:
        if lacks:
            sync_tree(temporary)
            if damage := find_damage(temporary):
                raise CheckpointError(f"{folder}: copied from rank {chosen.rank}, but {damage}")
            put_in_place(temporary, folder)

    agree(group, folder, finish)


def _has(folder: Path, digest: str) -> bool:
    return find_damage(folder) is None and digest_of(read_manifest(folder)) == digest


def _pass_on(group: HostGroup, rank: int, size: int, source: Path | None, target: Path | None) -> None:
    """Send one file; whatever this rank's disk does, it takes part to the end."""
    failure = read = write = None
    with ExitStack() as files:
        try:
            if source is not None:
                read = files.enter_context(source.open("rb")).read
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = files.enter_context(target.open("wb"))
                write = file.write
        except OSError as error:
            failure = error
        send_file(group, size, rank, read, write)
        if failure is not None:
            raise failure
        if target is not None:
            file.flush()
            os.fsync(file.fileno())
