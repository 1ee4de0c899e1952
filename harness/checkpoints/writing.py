"""One save, from a snapshot in memory to a checkpoint in its place: the same steps on every rank, each agreed on.

    1. the committing rank of each file system makes checkpoint-40.tmp and clears leftovers
    2. every rank writes the part that it owns, hashing what it writes, and syncs it
    3. where hosts do not share the folder, every part goes to every file system
    4. committing ranks write adapter, state.json and, last, the manifest; all is synced
    5. committing ranks rename the folder, sync its parent, and read back what they have written
    6. committing ranks delete checkpoints that are too old

After each of 1 to 5 all ranks hear whether it went well everywhere; if not, all raise the same error, the temporary
folder goes, and the checkpoints that are there stay. A failure in 6 loses nothing and is only logged.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.checkpoints.agreement import agree
from harness.checkpoints.commit import (
    PREFIX,
    clean_up,
    list_steps,
    put_in_place,
    remove,
    sync_file,
    sync_tree,
    with_ending,
)
from harness.checkpoints.manifest import PARTS, STATE, Entries, find_damage, write_manifest
from harness.checkpoints.part_file import write_part
from harness.checkpoints.run_state import RunState
from harness.checkpoints.snapshot import Snapshot
from harness.checkpoints.storage import Storage, send_file
from harness.dist import HostGroup
from preprocess.durable import HashedFile, sha256_of, write_text_durably
from preprocess.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Save:
    """What one save writes, and where.

    Attributes:
        storage: The file systems.
        group: The ranks' group for saving; nothing else may use it meanwhile.
        snapshot: What this rank owns.
        state: Where the run stands.
        fingerprint: What the run is.
        write_adapter: Called with a folder on each committing rank.
        keep: Newest checkpoints to keep, besides the best; None keeps all.
    """

    storage: Storage
    group: HostGroup
    snapshot: Snapshot
    state: RunState
    fingerprint: dict[str, Any]
    write_adapter: Callable[[Path], None]
    keep: int | None

    @property
    def final(self) -> Path:
        """Where the checkpoint will be."""
        return self.storage.run_dir / f"{PREFIX}{self.state.step}"

    @property
    def temporary(self) -> Path:
        """Where it is written."""
        return with_ending(self.final, ".tmp")

    def run(self) -> None:
        """Write the checkpoint; every rank must call this.

        Raises:
            NoSpaceError: A disk is full, on any rank.
            CheckpointError: A file cannot be written, on any rank.
        """
        try:
            agree(self.group, self.final, self._make_folder)
            written = agree(self.group, self.final, self._write_own_part)
            entries = {name: entry for found in written for name, entry in found.items()}
            if not self.storage.is_shared:
                agree(self.group, self.final, lambda: self._exchange(written))
            agree(self.group, self.final, lambda: self._seal(entries))
            agree(self.group, self.final, self._commit)
        except Exception:
            if self.storage.commits:
                shutil.rmtree(self.temporary, ignore_errors=True)
            raise
        if self.storage.commits and self.keep is not None:
            prune(self.storage.run_dir, self.keep, self.state.best_step)

    def _make_folder(self) -> None:
        if self.storage.commits:
            clean_up(self.storage.run_dir)
            (self.temporary / PARTS).mkdir(parents=True)

    def _write_own_part(self) -> Entries:
        name = f"{PARTS}/part-{self.storage.rank}-of-{len(self.storage.homes)}.safetensors"
        with (self.temporary / name).open("wb") as file:
            hashed = HashedFile(file)
            write_part(hashed, self.snapshot)
            file.flush()
            os.fsync(file.fileno())
        return {name: {"sha256": hashed.sha256, "bytes": hashed.num_bytes}}

    def _exchange(self, written: list[Entries]) -> None:
        """Bring every rank's part to the file systems that do not have it."""
        failures: list[OSError | CheckpointError] = []
        for source, entries in enumerate(written):
            for name, entry in entries.items():
                try:
                    self._pass_on(source, name, entry)
                except (OSError, CheckpointError) as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _pass_on(self, source: int, name: str, entry: dict[str, Any]) -> None:
        """Send one file. Whatever this rank's disk does, it takes part to the end."""
        storage, path, failure = self.storage, self.temporary / name, None
        wants = storage.commits and storage.homes[source] != storage.rank
        with ExitStack() as files:
            read = write = None
            try:
                if source == storage.rank:
                    read = files.enter_context(path.open("rb")).read
                elif wants:
                    file = files.enter_context(path.open("wb"))
                    hashed = HashedFile(file)
                    write = hashed.write
            except OSError as error:
                failure = error
            send_file(self.group, entry["bytes"], source, read, write)
            if failure is not None:
                raise failure
            if wants:
                file.flush()
                os.fsync(file.fileno())
                if hashed.sha256 != entry["sha256"]:
                    raise CheckpointError(f"{path}: arrived from rank {source} with another sha256")

    def _seal(self, entries: Entries) -> None:
        """Add what is not a rank's own, and last the manifest, after which the folder is complete."""
        if not self.storage.commits:
            return
        self.write_adapter(self.temporary / "adapter")
        value = {
            "state": asdict(self.state),
            "engine": self.snapshot.engine_state,
            "fingerprint": self.fingerprint,
        }
        write_text_durably(self.temporary / STATE, json.dumps(value, indent=2))
        added = [self.temporary / STATE, *sorted((self.temporary / "adapter").rglob("*"))]
        for path in filter(Path.is_file, added):
            sync_file(path)
            name = path.relative_to(self.temporary).as_posix()
            entries[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        sync_tree(self.temporary)
        write_manifest(self.temporary, entries)

    def _commit(self) -> None:
        if not self.storage.commits:
            return
        put_in_place(self.temporary, self.final)
        if damage := find_damage(self.final):
            raise CheckpointError(
                f"{self.final}: just written, and {damage}. The disk does not keep what it is given; the older "
                "checkpoints are kept"
            )


def prune(run_dir: Path, keep: int, best_step: int | None) -> None:
    """Delete checkpoints but the newest and the best. What cannot be deleted is logged, and stays.

    Args:
        run_dir: The run folder; its newest checkpoint must be whole.
        keep: Newest ones to keep, at least 1.
        best_step: Step of the best one, or None.
    """
    for step in list_steps(run_dir)[:-keep]:
        if step != best_step:
            try:
                remove(run_dir / f"{PREFIX}{step}")
            except OSError as error:
                logging.getLogger(__name__).warning("checkpoint of step %d stays: %s", step, error)
