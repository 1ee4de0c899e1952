"""Put saved state back into an engine of any ZeRO stage on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.part_file import Part, open_part
from harness.checkpoints.places import KINDS, Place, adam_of, find_places
from harness.checkpoints.snapshot import Piece, read_values
from harness.dist import Engine
from harness.lora import trainable_parameters
from preprocess.errors import CheckpointError


def restore_places(engine: Engine, rank: int, folder: Path, entries: dict[str, Any]) -> None:
    """Fill what this rank holds of weights and moments from a checkpoint's part files.

    Args:
        engine: The DeepSpeed engine.
        rank: This rank.
        folder: The checkpoint.
        entries: Size and sha256 of each part file, by its name in the folder.

    Raises:
        CheckpointError: A file is damaged, or the parts do not hold each value of this model once.
    """
    places = find_places(engine, rank)
    with torch.no_grad():
        _make_moments(engine, places)
        found, steps = list[Piece](), dict[int, float]()
        for name in sorted(entries):
            part = open_part(folder / name, entries[name])
            found += part.pieces
            _fill(engine, places, part, steps)
        check_cover(folder, found, _whole_shapes(engine))
        _set_steps(engine, places, steps)


def _make_moments(engine: Engine, places: Sequence[Place]) -> None:
    """Make Adam's state, where it does not make it before its first update."""
    states = adam_of(engine).state
    for tensor in {id(place.tensor): place.tensor for place in places}.values():
        if "exp_avg" not in states[tensor]:
            states[tensor]["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device)
            states[tensor]["exp_avg"] = torch.zeros_like(tensor, requires_grad=False)
            states[tensor]["exp_avg_sq"] = torch.zeros_like(tensor, requires_grad=False)


def _fill(engine: Engine, places: Sequence[Place], part: Part, steps: dict[int, float]) -> None:
    """Copy what a part has of each place, and note how often the tensors were updated."""
    by_name = {place.name: place for place in places}
    for piece in part.pieces:
        place = by_name.get(piece.name)
        if place is None or place.shape != piece.shape:
            continue
        start = max(place.start, piece.start)
        count = min(place.start + place.count, piece.start + piece.count) - start
        if count <= 0:
            continue
        for kind in KINDS:
            target = read_values(engine, place, kind)
            assert target is not None, "the moments have been made"
            source = part.values(piece, kind)[start - piece.start :][:count]
            target.narrow(0, start - place.start, count).copy_(torch.tensor(source))
        key = id(place.tensor)
        steps[key] = max(steps.get(key, 0.0), piece.step)


def _set_steps(engine: Engine, places: Sequence[Place], steps: dict[int, float]) -> None:
    states = adam_of(engine).state
    for tensor in {id(place.tensor): place.tensor for place in places}.values():
        states[tensor]["step"].fill_(steps[id(tensor)])


def _whole_shapes(engine: Engine) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in trainable_parameters(engine.module)
    }


def check_cover(folder: Path, pieces: Iterable[Piece], shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse parts that lack a value of the model, have one twice, or are of another model.

    Args:
        folder: The checkpoint, for the message.
        pieces: Of all part files.
        shapes: Of the model's trained parameters.

    Raises:
        CheckpointError: They do.
    """
    runs: dict[str, list[tuple[int, int]]] = {name: [] for name in shapes}
    for piece in pieces:
        if shapes.get(piece.name) != piece.shape:
            raise CheckpointError(
                f"{folder}: holds {piece.name} of shape {piece.shape}, but this model has "
                f"{shapes.get(piece.name, 'no such trained weight')}"
            )
        runs[piece.name].append((piece.start, piece.start + piece.count))
    for name, shape in shapes.items():
        end = 0
        for start, stop in sorted(runs[name]):
            if start != end:
                break
            end = stop
        if end != prod(shape) or sum(stop - start for start, stop in runs[name]) != end:
            raise CheckpointError(
                f"{folder}: its parts do not hold each value of {name} once, so a rank's part is missing or wrong"
            )
