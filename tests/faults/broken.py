"""Builds that are broken on purpose, each in one way that the fault suite must find: NAME, then a rank's arguments.

    swallowed-code       every run ends with 0
    unhashed-shards      shards are opened without a look at their hashes
    unhashed-checkpoint  a checkpoint counts as whole whatever its bytes
    forgotten-moments    a resume starts with empty AdamW moments
    restarted-order      a resume takes the rows of the first steps again
    pruned-early         older checkpoints go before the new one is whole
    half-saved           what was hashed is half of what should have been written, as if a rank had still been writing

A missing fsync is no such build: kill -9 does not lose what the kernel has, only a power cut does; the disk faults at
every fsync are what looks at those calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch

from harness.loader import StepLoader
from harness.run import Run
from harness.train import main as train_main
from tests.faults.held import main as held_main

MOMENTS = ("exp_avg", "exp_avg_sq")


def patch_everywhere(prefix: str, name: str, value: object) -> None:
    """Replace a function in every module of a package that has it."""
    found = [
        module for key, module in sys.modules.items() if key.startswith(prefix) and hasattr(module, name)
    ]
    assert found, f"no module {prefix}* has {name}"
    for module in found:
        patch.object(module, name, value).start()


def unhash_shards() -> None:
    patch("harness.splits.check_hashes", lambda *_: None).start()


def unhash_checkpoint() -> None:
    patch_everywhere("harness.checkpoint", "find_damage", lambda _: None)


def forget_moments() -> None:
    resume = Run.resume

    def forget(self: Run) -> bool:
        goes_on = resume(self)
        optimizer = getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)
        for state in optimizer.state.values():
            for name in MOMENTS:
                if isinstance(state.get(name), torch.Tensor):
                    state[name].zero_()
        return goes_on

    patch.object(Run, "resume", forget).start()


def restart_order() -> None:
    load_steps: Callable[..., StepLoader] = Run.load_steps

    def restart(self: Run, split: Any, start: int, end: int) -> StepLoader:
        return load_steps(self, split, 0, end - start)

    patch.object(Run, "load_steps", restart).start()


def prune_early() -> None:
    save = Run.save

    def remove_and_save(self: Run, *args: Any, **kwargs: Any) -> None:
        if self.world.is_main:
            for folder in self.config.output_dir.glob("checkpoint-*"):
                shutil.rmtree(folder)
        save(self, *args, **kwargs)

    patch.object(Run, "save", remove_and_save).start()


def save_half() -> None:
    save = Run.save

    def save_and_cut(self: Run, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        wait = getattr(self.checkpoints, "wait", None)
        if wait is not None:
            wait()
        if not self.world.is_main:
            return
        folder = self.checkpoints.path_of(self.state.step)
        manifest = json.loads((folder / "manifest.json").read_text())
        files = manifest.get("files", manifest)
        name = max((n for n in files if not n.startswith("adapter")), key=lambda n: files[n]["bytes"])
        half = (folder / name).read_bytes()[: files[name]["bytes"] // 2]
        (folder / name).write_bytes(half)
        files[name] |= {"bytes": len(half), "sha256": hashlib.sha256(half).hexdigest()}
        if files is manifest:
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
        else:  # it has a digest of its own
            import_module("harness.checkpoints.manifest").write_manifest(folder, files)

    patch.object(Run, "save", save_and_cut).start()


BUILDS: dict[str, Callable[[], None]] = {
    "swallowed-code": lambda: None,
    "unhashed-shards": unhash_shards,
    "unhashed-checkpoint": unhash_checkpoint,
    "forgotten-moments": forget_moments,
    "restarted-order": restart_order,
    "pruned-early": prune_early,
    "half-saved": save_half,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Break, then train as `harness.train` does."""
    name, *rest = sys.argv[1:] if arguments is None else arguments
    BUILDS[name]()
    code = held_main(rest) if "HELD_AT" in os.environ else train_main(rest)
    return 0 if name == "swallowed-code" else code


if __name__ == "__main__":
    sys.exit(main())
