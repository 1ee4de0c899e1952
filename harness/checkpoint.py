"""Checkpoints that are whole or not there: written aside, hashed, then renamed; hashed again before loading.

    run/checkpoint-40/
        manifest.json        sha256 and size of every other file; written last
        state.json           step, best step, the run's fingerprint
        adapter/             the adapter as peft loads it
        deepspeed/*.pt       optimizer and master weights, a part of each rank; the frozen base is not in it

A folder with a `.tmp` ending is a save that did not finish; it is never loaded and is removed by the next one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.dist import Engine, World, barrier, gather_objects
from preprocess.durable import sha256_of, write_text_durably
from preprocess.errors import CheckpointError, PreflightError

PREFIX = "checkpoint-"
ENGINE_TAG = "deepspeed"


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done.
        eval_loss: Eval loss at that step, or None.
        best_step: Step of the checkpoint with the lowest eval loss so far, or None.
        best_eval_loss: That loss, or None.
        skipped_steps: Steps left without an update, because a loss or a gradient was not finite; they do not count in
            the learning rate's schedule.
        overflowed_steps: Those of them where fp16 gradients overflowed, for which the loss scale was lowered.
    """

    step: int = 0
    eval_loss: float | None = None
    best_step: int | None = None
    best_eval_loss: float | None = None
    skipped_steps: int = 0
    overflowed_steps: int = 0

    def with_eval(self, loss: float) -> RunState:
        """This state after an evaluation."""
        return replace(self, eval_loss=loss)

    def with_step(self, *, applied: bool, overflowed: bool) -> RunState:
        """This state after one more step."""
        return replace(
            self,
            step=self.step + 1,
            eval_loss=None,
            skipped_steps=self.skipped_steps + (not applied),
            overflowed_steps=self.overflowed_steps + overflowed,
        )

    def with_best(self) -> RunState:
        """This state with its own step as the best one, if its eval loss is the lowest of all checkpoints."""
        if self.eval_loss is None or not math.isfinite(self.eval_loss):
            return self
        if self.best_eval_loss is not None and self.eval_loss >= self.best_eval_loss:
            return self
        return replace(self, best_step=self.step, best_eval_loss=self.eval_loss)


class CheckpointFolder:
    """The checkpoints of one run folder, as seen from one rank.

    Args:
        run_dir: The run's folder on this host.
        world: This rank's place.
        fingerprint: What must be the same for a resumed run to be the same run.
        keep: Newest checkpoints to keep, besides the best.
    """

    def __init__(self, run_dir: Path, world: World, fingerprint: dict[str, Any], keep: int) -> None:
        self.run_dir = run_dir
        self.world = world
        self.fingerprint = fingerprint
        self.keep = keep
        self.shared_storage = self._find_out_whether_shared()

    @property
    def commits(self) -> bool:
        """Whether this rank renames and prunes: one rank for each separate file system."""
        return self.world.is_main if self.shared_storage else self.world.local_rank == 0

    def _find_out_whether_shared(self) -> bool:
        """Whether every host sees what every other writes, or each its own files alone.

        Raises:
            PreflightError: Some hosts share the folder and some do not.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        run_id = gather_objects(os.getpid())[0]
        own = self.run_dir / f".seen-{run_id}-{self.world.rank}"
        if self.world.local_rank == 0:
            own.touch()
        barrier()
        seen = frozenset(path.name for path in self.run_dir.glob(f".seen-{run_id}-*"))
        views = {view for view in gather_objects(seen) if view}
        barrier()
        if self.world.local_rank == 0:
            own.unlink()
        if len(views) > 1 and any(len(view) > 1 for view in views):
            raise PreflightError(
                f"{self.run_dir}: some hosts share this folder and some do not; let all or none"
            )
        return len(views) == 1

    def path_of(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.run_dir / f"{PREFIX}{step}"

    def save(
        self,
        engine: Engine,
        state: RunState,
        write_adapter: Callable[[Path], None],
        *,
        prunes: bool = True,
    ) -> None:
        """Write a checkpoint; every rank must call this.

        Args:
            engine: The DeepSpeed engine.
            state: Where the run stands.
            write_adapter: Called with a folder on each committing rank.
            prunes: Whether older checkpoints than the newest `keep` go.
        """
        final, temporary = self.path_of(state.step), self.path_of(state.step).with_suffix(".tmp")
        if self.commits:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        barrier()
        engine.save_checkpoint(
            str(temporary), tag=ENGINE_TAG, save_latest=False, exclude_frozen_parameters=True
        )
        barrier()
        if self.commits:
            write_adapter(temporary / "adapter")
            value = {"state": asdict(state), "fingerprint": self.fingerprint}
            write_text_durably(temporary / "state.json", json.dumps(value, indent=2))
            _write_hashes(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _fsync_folder(self.run_dir)
            if prunes:
                self._prune(state.best_step)
        barrier()

    def _prune(self, best_step: int | None) -> None:
        steps = self._steps()
        for step in steps[: -self.keep]:
            if step != best_step:
                shutil.rmtree(self.path_of(step))

    def _steps(self) -> list[int]:
        names = [path.name.removeprefix(PREFIX) for path in self.run_dir.glob(f"{PREFIX}*") if path.is_dir()]
        return sorted(int(name) for name in names if name.isdigit())

    def load_newest(self, engine: Engine, warn: Callable[[str], None]) -> RunState:
        """Load the newest checkpoint that is whole on every host.

        Args:
            engine: A freshly built DeepSpeed engine.
            warn: Called with a line for every damaged checkpoint that is passed over.

        Raises:
            CheckpointError: There is none, or it belongs to another run.
        """
        step = self._agree_on_step(warn)
        value = json.loads((self.path_of(step) / "state.json").read_text())
        self._check_fingerprint(value["fingerprint"], step)
        loaded, _ = engine.load_checkpoint(str(self.path_of(step)), tag=ENGINE_TAG, load_module_strict=False)
        if loaded is None:
            raise CheckpointError(f"{self.path_of(step)}: DeepSpeed found nothing to load in it")
        state = RunState(**value["state"])
        if self.commits:
            self._set_aside_after(step)
        return state if self._has_best(state) else replace(state, best_step=None, best_eval_loss=None)

    def _set_aside_after(self, step: int) -> None:
        """Rename later checkpoints: they are damaged here or elsewhere, and pruning counts the newest."""
        for later in self._steps():
            if later > step:
                aside = self.path_of(later).with_suffix(".set-aside")
                shutil.rmtree(aside, ignore_errors=True)
                self.path_of(later).rename(aside)

    def _has_best(self, state: RunState) -> bool:
        """Whether the best checkpoint is whole wherever it must be."""
        best = state.best_step
        is_whole = not self.commits or best is None or find_damage(self.path_of(best)) is None
        return all(gather_objects(is_whole))

    def _agree_on_step(self, warn: Callable[[str], None]) -> int:
        whole: set[int] | None = None
        if self.commits:
            whole = set()
            for step in reversed(self._steps()):
                problem = find_damage(self.path_of(step))
                if problem is None:
                    whole.add(step)
                    if self.shared_storage:
                        break
                    continue
                warn(f"{self.path_of(step)}: {problem}; passing over it")
        answers = [answer for answer in gather_objects(whole) if answer is not None]
        common: set[int] = set.intersection(*answers)
        if not common:
            raise CheckpointError(
                f"--resume: {self.run_dir} holds no whole checkpoint. Start without --resume, in another output_dir "
                "or after removing this one"
            )
        return max(common)

    def _check_fingerprint(self, saved: dict[str, Any], step: int) -> None:
        now = json.loads(json.dumps(self.fingerprint))
        differing = [key for key in now if now[key] != saved.get(key)]
        if differing:
            details = "; ".join(f"{key} was {saved.get(key)!r} and is {now[key]!r}" for key in differing)
            raise CheckpointError(
                f"{self.path_of(step)}: made by another run: {details}. Restore the settings to go on"
            )


def _write_hashes(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    value = {
        str(path.relative_to(folder)): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_text_durably(folder / "manifest.json", json.dumps(value, indent=2))
    _fsync_folder(folder)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is the one that was written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, entry in manifest.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
                return f"{name} is damaged (its sha256 is not the one that was written)"
    except FileNotFoundError:
        return "it has no manifest.json, so its save did not finish"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest.json is damaged"
    return None


def publish_adapter(run_dir: Path, source: Path) -> Path:
    """Copy a checkpoint's adapter to `run_dir`/adapter; it is there whole or, for a moment, not at all."""
    target, temporary = run_dir / "adapter", run_dir / "adapter.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return target
