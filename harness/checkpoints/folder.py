"""The checkpoints of a run, as one rank sees them: save, wait, load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checkpoints.agreement import agree
from harness.checkpoints.background import BackgroundSave
from harness.checkpoints.commit import PREFIX, list_steps, with_ending
from harness.checkpoints.finding import Found, choose, find_newest, spread
from harness.checkpoints.manifest import digest_of, find_damage, parts_of, read_manifest, read_state
from harness.checkpoints.places import refresh_weights
from harness.checkpoints.restore import restore_places
from harness.checkpoints.run_state import RunState
from harness.checkpoints.snapshot import SnapshotTaker, restore_engine_state
from harness.checkpoints.storage import find_storage
from harness.checkpoints.writing import Save
from harness.dist import Engine, World, gather_objects, host_group
from preprocess.errors import CheckpointError


class CheckpointFolder:
    """The checkpoints of one run folder, as seen from one rank. Every rank must make every call.

    Args:
        run_dir: The run's folder on this host.
        world: This rank's place.
        fingerprint: What must be the same for a resumed run to be the same run.
        keep: Newest checkpoints to keep, besides the best.
        async_save: Whether `save` returns as soon as the state is copied, and the rest goes on in a thread.
    """

    def __init__(
        self,
        run_dir: Path,
        world: World,
        fingerprint: dict[str, Any],
        keep: int,
        *,
        async_save: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self.world = world
        self.fingerprint = fingerprint
        self.keep = keep
        self.async_save = async_save
        self.storage = find_storage(run_dir, world)
        self._group = host_group("saving")
        self._asking = host_group("asking")
        self._taker = SnapshotTaker(world.rank)
        self._pending: BackgroundSave | None = None

    @property
    def shared_storage(self) -> bool:
        """Whether every host sees what every other writes."""
        return self.storage.is_shared

    @property
    def commits(self) -> bool:
        """Whether this rank renames and prunes: one rank for each separate file system."""
        return self.storage.commits

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
        """Write a checkpoint, or begin to: then `check` and `wait` tell how it went.

        Args:
            engine: The DeepSpeed engine.
            state: Where the run stands.
            write_adapter: Called with a folder on each committing rank, perhaps from another thread, later: it must
                not read what training changes.
            prunes: Whether older checkpoints than the newest `keep` go.

        Raises:
            UserError: This save, or the one before, failed.
        """
        self.wait()
        snapshot, keep = self._taker.take(engine), self.keep if prunes else None
        save = Save(self.storage, self._group, snapshot, state, self.fingerprint, write_adapter, keep)
        if self.async_save:
            self._pending = BackgroundSave(save.run, self._asking)
        else:
            save.run()

    def check(self) -> None:
        """Hear of a save that goes on, if it has ended on all ranks; to be called after each step.

        Raises:
            UserError: It failed; raised on all ranks after the same step.
        """
        if self._pending is not None and self._pending.has_ended_everywhere():
            self.wait()

    def wait(self) -> None:
        """Wait for a save that goes on.

        Raises:
            UserError: It failed; raised on all ranks.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.join()

    def load_newest(self, engine: Engine, warn: Callable[[str], None]) -> RunState:
        """Load the newest checkpoint that is whole; hosts that lack it get it from one that has it.

        Args:
            engine: A DeepSpeed engine of any ZeRO stage, on any number of ranks.
            warn: Called on each rank with a line for every damaged checkpoint that is passed over.

        Raises:
            CheckpointError: There is none, or it belongs to another run.
        """
        self.wait()
        found, problems = find_newest(self.storage, self._group)
        for line in problems:
            warn(line)
        chosen = choose(found)
        saved = json.loads(agree(self._group, self.run_dir, lambda: self._read(chosen))[chosen.rank])
        self._check_fingerprint(saved["fingerprint"], chosen.step)
        spread(self.storage, self._group, chosen)
        folder = self.path_of(chosen.step)
        agree(self._group, folder, lambda: self._restore(engine, folder, saved["engine"]))
        refresh_weights(engine)
        agree(self._group, folder, lambda: self._set_aside_after(chosen.step))
        return self._with_best(RunState(**saved["state"]))

    def _read(self, chosen: Found) -> str:
        if self.world.rank != chosen.rank:
            return ""
        folder = self.path_of(chosen.step)
        return read_state(folder, read_manifest(folder)).decode("utf-8")

    def _restore(self, engine: Engine, folder: Path, engine_state: dict[str, Any]) -> None:
        restore_places(engine, self.world.rank, folder, parts_of(read_manifest(folder)))
        restore_engine_state(engine, engine_state)

    def _set_aside_after(self, step: int) -> None:
        """Rename later checkpoints: they are damaged, and pruning counts the newest."""
        if not self.commits:
            return
        for later in list_steps(self.run_dir):
            if later > step:
                aside = with_ending(self.path_of(later), ".set-aside")
                shutil.rmtree(aside, ignore_errors=True)
                self.path_of(later).rename(aside)

    def _with_best(self, state: RunState) -> RunState:
        """The state, whose best checkpoint is whole wherever it must be; else one without any."""
        best, own = state.best_step, None
        if best is None:
            return state
        folder = self.path_of(best)
        if self.commits and find_damage(folder) is None:
            own = Found(best, digest_of(read_manifest(folder)), self.world.rank)
        found = gather_objects(own, self._group)
        if all(one is None for one in found):
            return replace(state, best_step=None, best_eval_loss=None)
        spread(self.storage, self._group, choose(found))
        return state

    def _check_fingerprint(self, saved: dict[str, Any], step: int) -> None:
        now = json.loads(json.dumps(self.fingerprint))
        differing = [key for key in now if now[key] != saved.get(key)]
        if differing:
            details = "; ".join(f"{key} was {saved.get(key)!r} and is {now[key]!r}" for key in differing)
            raise CheckpointError(
                f"{self.path_of(step)}: made by another run: {details}. Restore the settings to go on"
            )
