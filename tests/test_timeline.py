"""Memory within one step: where its points lie, and that what a layer takes shows at that layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.memory.profile import MemoryProfile
from harness.memory.timeline import (
    MAX_POINTS,
    MemoryTimeline,
    TimelinePoint,
    TimelineRecorder,
    read_timelines,
    write_timelines,
)
from preprocess.errors import DataError

MIB = 2**20
PLANTED = 64 * MIB


class Layers(nn.Module):
    """Layers in a row, each run again in the backward pass where it is asked for."""

    def __init__(self, count: int, *, recompute: bool = False, around_call: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))
        self.recompute = recompute
        self.around_call = around_call

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            if not self.recompute:
                hidden = layer(hidden)
            elif self.around_call:  # hooks run again in the backward pass
                hidden = checkpoint(layer, hidden, use_reentrant=False, early_stop=False)
            else:
                hidden = checkpoint_inside(layer, hidden)
        return hidden


def checkpoint_inside(layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """As transformers does it: module hooks stay outside."""
    forward = layer.forward
    layer.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    try:
        return cast("torch.Tensor", layer(hidden))
    finally:
        layer.forward = forward


def run_step(recorder: TimelineRecorder, model: Layers, step: int = 1) -> list[str]:
    recorder.start(step, list(model.layers))
    recorder.enter("forward")
    output = model(torch.ones(2, 8))
    recorder.leave("forward")
    recorder.enter("backward")
    output.sum().backward()
    recorder.leave("backward")
    recorder.stop()
    assert recorder.last is not None
    return [point.where for point in recorder.last.points]


IN_ORDER = [
    "forward begins",
    "layer 0 forward",
    "layer 1 forward",
    "layer 2 forward",
    "forward ends",
    "backward begins",
    "head backward",
    "layer 2 backward",
    "layer 1 backward",
    "backward ends",
]


def test_the_points_are_the_layers_boundaries_in_order() -> None:
    assert run_step(TimelineRecorder(0, lambda: 1), Layers(3)) == IN_ORDER


def test_recomputation_inside_the_layer_changes_no_point() -> None:
    assert run_step(TimelineRecorder(0, lambda: 1), Layers(3, recompute=True)) == IN_ORDER


def test_a_forward_hook_that_runs_again_in_backward_is_told_from_the_first() -> None:
    found = run_step(TimelineRecorder(0, lambda: 1), Layers(3, recompute=True, around_call=True))
    again = [where for where in found if where.endswith("recomputed")]
    assert again == ["layer 2 recomputed", "layer 1 recomputed", "layer 0 recomputed"]
    assert [where for where in found if where not in again] == IN_ORDER


def test_no_hook_is_left_and_a_step_that_is_not_looked_at_has_no_point() -> None:
    recorder, model = TimelineRecorder(0, lambda: 1), Layers(2)
    run_step(recorder, model, step=7)
    assert not any(layer._forward_hooks for layer in model.layers)
    last = recorder.last
    recorder.enter("forward")
    model(torch.ones(2, 8)).sum().backward()
    recorder.leave("forward")
    assert recorder.last is last
    assert last is not None
    assert last.step == 7


def test_a_step_that_failed_leaves_neither_hooks_nor_points() -> None:
    recorder, model = TimelineRecorder(0, lambda: 1), Layers(2)
    recorder.start(1, list(model.layers))
    recorder.enter("forward")
    assert run_step(recorder, model, step=1)[0] == "forward begins"
    assert recorder.last is not None
    assert len(recorder.last.points) == 8
    assert not any(layer._forward_hooks for layer in model.layers)


def test_a_step_of_many_micro_steps_keeps_the_ends_of_phases() -> None:
    recorder = TimelineRecorder(0, lambda: 1)
    recorder.start(1, [])
    for _ in range(MAX_POINTS):
        recorder.enter("forward")
        recorder._add_layer("layer 0 forward")
        recorder.leave("forward")
    recorder.stop()
    assert recorder.last is not None
    places = [point.where for point in recorder.last.points]
    assert places.count("forward ends") == MAX_POINTS
    assert places.count("layer 0 forward") < MAX_POINTS / 2


def plant(model: Layers, index: int) -> list[torch.Tensor]:
    """Let a layer take 64 MiB in its forward pass and keep them."""
    kept: list[torch.Tensor] = []
    layer = model.layers[index]
    forward = layer.forward

    def greedy(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(torch.zeros(PLANTED, dtype=torch.uint8))
        return cast("torch.Tensor", forward(hidden))

    layer.forward = greedy
    return kept


def rises(timeline: MemoryTimeline) -> dict[str, int]:
    """Bytes that each point lies above the one before."""
    points = timeline.points
    return {after.where: after.allocated - before.allocated for before, after in pairwise(points)}


def profile_step(model: Layers) -> MemoryTimeline:
    profile = MemoryProfile(rank=0, device="cpu")
    profile.watch(list(model.layers), dict)
    profile.start_step(1, closely=True)
    with profile.phase("forward"):
        output = model(torch.ones(2, 8))
    with profile.phase("backward"):
        output.sum().backward()
    profile.end_step()
    assert profile.timeline is not None
    return profile.timeline


def test_what_layer_3_takes_shows_at_layer_3_and_nowhere_else() -> None:
    model = Layers(6)
    profile_step(model)  # libraries make what they need once
    kept = plant(model, 3)
    found = rises(profile_step(model))
    assert len(kept) == 1
    assert found.pop("layer 3 forward") == pytest.approx(PLANTED, abs=MIB)
    assert all(abs(rise) < MIB for rise in found.values()), found


def test_without_the_plant_no_point_rises() -> None:
    model = Layers(6)
    profile_step(model)
    assert all(abs(rise) < MIB for rise in rises(profile_step(model)).values())


def test_compiled_layers_get_no_hook() -> None:
    model = Layers(2)
    cast("Any", model.layers[0])._compiled_call_impl = object()
    recorder = TimelineRecorder(0, lambda: 1)
    recorder.start(1, list(model.layers))
    assert [len(layer._forward_hooks) for layer in model.layers] == [0, 1]
    recorder.stop()


def test_timelines_travel_through_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory_timeline.jsonl"
    lines = [
        MemoryTimeline(rank, 3, (TimelinePoint(0.5, "forward begins", 10), TimelinePoint(0.75, "x", 30)))
        for rank in range(2)
    ]
    write_timelines(path, lines)
    assert read_timelines(path) == lines
    assert lines[0].peak.where == "x"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.pop("points"),
        lambda line: line.update(points=[]),
        lambda line: line["points"][0].pop("allocated"),
        lambda line: line["points"][0].update(allocated="much"),
        lambda line: line.update(rank=None),
    ],
)
def test_a_damaged_timeline_is_refused(spoil: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    path = tmp_path / "memory_timeline.jsonl"
    line = MemoryTimeline(0, 3, (TimelinePoint(0.5, "forward begins", 10),)).to_dict()
    spoil(line)
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="not a timeline"):
        read_timelines(path)
