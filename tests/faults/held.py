"""A rank of the harness that holds still, or signals itself, at a chosen moment: for faults that must hit a phase.

It is `harness.train` with its events wrapped; nothing in the harness knows of it. The variables:

    HELD_AT      PHASE:STEP, PHASE one of load, step, backward, eval, save, between; STEP the steps done before it
                 (ignored for load)
    HELD_DO      signal:NAME  send itself that signal there, as signal:SIGSTOP
                 wait         wait there until the file HELD_FILE.go exists
    HELD_FILE    HELD_FILE.<rank> is written on arrival
    HELD_RANKS   ranks that do it, as 0,2; all ranks where it is missing
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from harness import building
from harness.config import RunConfig
from harness.run import Run
from harness.train import main as train_main
from harness.vocabulary import NewTokens
from preprocess.manifest import Manifest

PHASES = ("load", "step", "backward", "eval", "save", "between")
WAIT_S = 600.0


def is_meant() -> bool:
    """Whether this rank is one of those that hold."""
    ranks = os.environ.get("HELD_RANKS", "")
    return not ranks or os.environ.get("RANK", "0") in ranks.split(",")


def hold() -> None:
    """Say that the moment has come, and do what was asked for."""
    marker = Path(os.environ["HELD_FILE"])
    marker.with_name(f"{marker.name}.{os.environ.get('RANK', '0')}").touch()
    action, _, name = os.environ["HELD_DO"].partition(":")
    if action == "signal":
        os.kill(os.getpid(), getattr(signal, name))
        return
    deadline_s = time.monotonic() + WAIT_S
    while not marker.with_name(f"{marker.name}.go").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)


def wrap(name: str, phase: str, *, after: bool = False) -> None:
    """Hold before (or after) a method of `Run`, at the wanted step."""
    original: Callable[..., Any] = getattr(Run, name)

    def held(self: Run, *args: Any, **kwargs: Any) -> Any:
        if wanted_step() == self.state.step and not after:
            hold()
        result = original(self, *args, **kwargs)
        if after and wanted_step() == self.state.step:
            hold()
        return result

    setattr(Run, name, held)


def hold_in_backward() -> None:
    """Hold in the middle of a step: when a backward pass reaches the first adapter matrix."""
    original = Run.build

    def build(self: Run) -> None:
        original(self)
        done = False

        def hook(grad: torch.Tensor) -> torch.Tensor:
            nonlocal done
            if not done and self.state.step == wanted_step():
                done = True
                hold()
            return grad

        next(p for p in self.engine.module.parameters() if p.requires_grad).register_hook(hook)

    Run.build = build  # type: ignore[method-assign]


def hold_in_load() -> None:
    """Hold before the base model is read."""
    original = building._load_base

    def load(config: RunConfig, manifest: Manifest) -> tuple[torch.nn.Module, NewTokens | None]:
        hold()
        return original(config, manifest)

    building._load_base = load


def wanted_step() -> int:
    """STEP of HELD_AT."""
    return int(os.environ["HELD_AT"].partition(":")[2] or -1)


def arrange() -> None:
    """Wrap what HELD_AT names."""
    phase = os.environ["HELD_AT"].partition(":")[0]
    if phase not in PHASES:
        raise SystemExit(f"HELD_AT: got {phase!r}, expected one of {', '.join(PHASES)}")
    if not is_meant():
        return
    if phase in ("load", "backward"):
        hold_in_load() if phase == "load" else hold_in_backward()
        return
    methods = {"step": "take_step", "eval": "evaluate", "save": "save"}
    wrap("save" if phase == "between" else methods[phase], phase, after=phase == "between")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point, as of `harness.train`."""
    if "HELD_AT" in os.environ:
        arrange()
    return train_main(arguments)


if __name__ == "__main__":
    sys.exit(main())
