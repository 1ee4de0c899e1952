"""Train in legs on ranks that are started once, note every step to the bit, and break what checkpoints rest on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console

from harness.checkpoints import restore, writing
from harness.checkpoints.part_file import Part, open_part, write_part
from harness.checkpoints.places import KINDS, find_places
from harness.checkpoints.snapshot import Piece, Snapshot, read_values
from harness.config import load_run_config
from harness.dist import Engine, barrier
from harness.engine import train_step
from harness.lora import trainable_parameters
from harness.step import StepResult
from harness.train import train
from preprocess.durable import HashedFile
from preprocess.errors import UserError
from tests.engine_ranks import fp16_on_cpu


@dataclass(frozen=True, slots=True)
class Leg:
    """One training.

    Attributes:
        config: Its file.
        overrides: Settings besides.
        source: Folder of the run whose checkpoint it goes on from, or None. It is copied.
        step: Of that checkpoint.
        breaks: Name of a break in `BREAKS`, or None.
    """

    config: Path
    overrides: tuple[str, ...] = ()
    source: Path | None = None
    step: int = 0
    breaks: str | None = None


def run_legs(legs: Sequence[Leg]) -> list[tuple[int, str]]:
    """Run trainings one after another. Returns for each the exit code and the error."""
    torch.use_deterministic_algorithms(mode=True)
    return [run_leg(leg) for leg in legs]


def run_leg(leg: Leg) -> tuple[int, str]:
    """Run one training in this rank's process group."""
    given = [*leg.overrides, *(["resume=true"] if leg.source else [])]
    config = load_run_config(leg.config, given)
    rank = int(os.environ["RANK"])
    if leg.source is not None and rank == 0 and leg.source != config.output_dir:
        copy_until(leg.source, config.output_dir, leg.step)
    barrier()
    fp16 = fp16_on_cpu() if config.model.precision == "fp16" else nullcontext()
    try:
        with fp16, recorded(config.output_dir / f"record-{rank}.jsonl"), broken(leg.breaks, rank):
            train(config, Console(quiet=True))
    except UserError as error:
        return error.exit_code, str(error)
    return 0, ""


def copy_until(source: Path, target: Path, step: int) -> None:
    """A run's folder as it was when a checkpoint had just been written."""
    target.mkdir()
    shutil.copyfile(source / "metrics.jsonl", target / "metrics.jsonl")
    for folder in source.glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) <= step:
            shutil.copytree(folder, target / folder.name)


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Note of each step the rows, the loss, the rate, and digests of all state after it."""

    def step_and_note(engine: Engine, batches: Sequence[Any], *args: Any, **kwargs: Any) -> StepResult:
        result = train_step(engine, batches, *args, **kwargs)
        line = {
            "step": kwargs["step"] + 1,
            "rows": [digest_of([one.token_keys[one.token_keys != 0]]) for one in batches if one.counts.rows],
            "loss": result.loss,
            "learning_rate": kwargs["learning_rate"],
            **digests_of(engine),
        }
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return result

    with patch("harness.redo.train_step", step_and_note):
        yield


def digests_of(engine: Engine) -> dict[str, str]:
    """Digests of this rank's weights, masters and moments."""
    places = find_places(engine, int(os.environ["RANK"]))
    weights = [getattr(one, "ds_tensor", one) for _, one in trainable_parameters(engine.module)]
    found = {kind: [read_values(engine, place, kind) for place in places] for kind in KINDS}
    return {"weights": digest_of(weights)} | {
        kind: digest_of([one for one in values if one is not None]) for kind, values in found.items()
    }


def digest_of(tensors: Sequence[torch.Tensor]) -> str:
    """A short digest of tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def forget_moments(stack: ExitStack, rank: int) -> None:
    """A build that restores the weights alone."""
    stack.enter_context(patch.object(restore, "KINDS", ("master",)))


def shift_by_one(stack: ExitStack, rank: int) -> None:
    """A build that takes the value beside the one that it should take."""
    values = Part.values

    def shifted(part: Part, piece: Piece, kind: str) -> Any:
        found = values(part, piece, kind)
        return [*found[1:], *found[:1]]

    stack.enter_context(patch.object(Part, "values", shifted))


def drop_a_part(stack: ExitStack, rank: int) -> None:
    """A build that forgets what rank 1 has written."""
    read = open_part

    def read_some(path: Path, entry: dict[str, Any]) -> Part:
        part = read(path, entry)
        return Part((), part._values, {}) if "part-1-of" in path.name else part

    stack.enter_context(patch.object(restore, "open_part", read_some))


def fill_disk_of_rank_1(stack: ExitStack, rank: int) -> None:
    """A disk of one rank that is full from its second checkpoint on."""
    calls = iter(range(1, 100))

    def write(file: HashedFile, snapshot: Snapshot) -> None:
        if rank == 1 and next(calls) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_part(file, snapshot)

    stack.enter_context(patch.object(writing, "write_part", write))


BREAKS: dict[str, Callable[[ExitStack, int], None]] = {
    "forget_moments": forget_moments,
    "shift_by_one": shift_by_one,
    "drop_a_part": drop_a_part,
    "fill_disk_of_rank_1": fill_disk_of_rank_1,
}


@contextmanager
def broken(name: str | None, rank: int) -> Iterator[None]:
    """Run with one thing broken."""
    with ExitStack() as stack:
        if name is not None:
            BREAKS[name](stack, rank)
        yield
