"""A copy in host memory of the state that this rank owns: what a save writes while training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from harness.checkpoints.places import KINDS, Place, adam_of, owned_places, steps_of
from harness.dist import Engine, Optimizer

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What a dynamic loss scale goes on from; DeepSpeed's scaler at ZeRO-0 has no hysteresis."""

COUNTERS = ("global_steps", "global_samples", "skipped_steps", "micro_steps")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a parameter's values in a part file.

    Attributes:
        name: Of the parameter.
        shape: Of the whole parameter.
        start: Index of the first value in the parameter, flattened.
        count: Values.
        step: Updates that Adam has counted.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    count: int
    step: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one rank owns of the state.

    Attributes:
        pieces: In the order in which their values lie in `values`.
        values: float32[3 · sum of counts] in host memory: each piece's values for each of `KINDS`, piece by piece.
        engine_state: The loss scale and DeepSpeed's counters; the same on all ranks.
    """

    pieces: tuple[Piece, ...]
    values: torch.Tensor
    engine_state: dict[str, Any]


class SnapshotTaker:
    """Takes snapshots into the same memory, which is pinned where the state lies on a GPU."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._buffer: torch.Tensor | None = None

    def take(self, engine: Engine) -> Snapshot:
        """Copy what this rank owns; the snapshot before must not be in use any more."""
        places = owned_places(engine, self.rank)
        values = self._reserve(places)
        at = 0
        for place in places:
            for kind in KINDS:
                target = values.narrow(0, at, place.count)
                source = read_values(engine, place, kind)
                if source is None:
                    target.zero_()
                else:
                    target.copy_(source, non_blocking=True)
                at += place.count
        if any(place.tensor.is_cuda for place in places):
            torch.cuda.synchronize()
        pieces = tuple(
            Piece(place.name, place.shape, place.start, place.count, step)
            for place, step in zip(places, steps_of(engine, places), strict=True)
        )
        return Snapshot(pieces, values, read_engine_state(engine))

    def _reserve(self, places: list[Place]) -> torch.Tensor:
        size = len(KINDS) * sum(place.count for place in places)
        if self._buffer is None or self._buffer.numel() != size:
            on_gpu = any(place.tensor.is_cuda for place in places)
            self._buffer = torch.empty(size, dtype=torch.float32, pin_memory=on_gpu)
        return self._buffer


def read_values(engine: Engine, place: Place, kind: str) -> torch.Tensor | None:
    """float32[count]: a place's values, or None where Adam has made no moments yet, which count as zeros."""
    if kind == "master":
        return place.of(place.tensor)
    moments = adam_of(engine).state.get(place.tensor, {}).get(kind)
    return None if moments is None else place.of(moments)


def scaler_of(engine: Engine) -> Optimizer | None:
    """What of the optimizer holds a dynamic loss scale, or None."""
    config = getattr(engine.optimizer, "loss_scale_config", None)
    if config is not None:
        return config if config.dynamic_loss_scale else None
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return scaler if scaler is not None and scaler.dynamic else None


def read_engine_state(engine: Engine) -> dict[str, Any]:
    """The loss scale and the counters, as plain values."""
    scaler = scaler_of(engine)
    scale = {name: getattr(scaler, name) for name in SCALER if hasattr(scaler, name)}
    return {"loss_scale": scale, "counters": {name: int(getattr(engine, name)) for name in COUNTERS}}


def restore_engine_state(engine: Engine, saved: dict[str, Any]) -> None:
    """Put the loss scale and the counters back. What the engine's scaler has and the saved one had not stays."""
    scaler = scaler_of(engine)
    for name, value in saved["loss_scale"].items():
        if hasattr(scaler, name):
            setattr(scaler, name, value)
    for name, value in saved["counters"].items():
        setattr(engine, name, value)
