"""The ranges of a profile on a GPU, with stand-ins for it: NVTX, Nsight Systems, and nothing outside of the steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.config import ProfileSettings
from harness.dist import World
from harness.profiling.recorder import StepRecorder
from harness.profiling.run_profile import open_recorder
from preprocess.errors import ConfigError

GPU, CPU = (World(0, 1, 0, torch.device(name)) for name in ("cuda:0", "cpu"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a GPU was told."""
    told: list[str] = []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", lambda name: told.append(f"+{name}"))
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: told.append("-"))
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: told.append("start"))
    monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: told.append("stop"))
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: told.append("wait"))
    return told


def take_steps(recorder: StepRecorder, count: int, layer: nn.Module) -> None:
    for step in range(1, count + 1):
        with recorder.step(step, [layer]), recorder.part("forward"):
            layer(torch.ones(1, 2))


def test_on_a_gpu_steps_parts_and_layers_are_nvtx_ranges_and_nsys_records_the_chosen_steps_alone(
    calls: list[str],
) -> None:
    recorder = StepRecorder(ProfileSettings(steps="2:3", tool="nsys"), GPU)
    take_steps(recorder, 3, nn.Linear(2, 2))
    recorder.stop()
    inner = ["+ProfilerStep#2", "+part forward", "+layer 0", "-", "-", "wait", "-"]
    # Between the steps the parts are still named: an evaluation may lie there.
    assert calls == ["wait", "start", *inner, "+part forward", "-", "stop"]
    assert recorder.taken == [2]


def test_without_a_profile_nothing_is_told_and_no_hook_is_left(calls: list[str]) -> None:
    layer = nn.Linear(2, 2)
    for settings in (ProfileSettings(), ProfileSettings(steps="9:10", tool="nsys")):
        take_steps(StepRecorder(settings, GPU), 3, layer)
    take_steps(StepRecorder(ProfileSettings(steps="1:2", tool="nsys"), GPU), 1, layer)
    assert calls.count("start") == 1
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_a_step_that_fails_closes_its_ranges_and_does_not_count(calls: list[str]) -> None:
    recorder = StepRecorder(ProfileSettings(steps="1:3", tool="nsys"), GPU)
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), recorder.step(1, [layer]), recorder.part("forward"):
        layer(torch.ones(1, 3))
    assert sum(call.startswith("+") for call in calls) == calls.count("-") == 3
    assert recorder.taken == []
    assert not layer._forward_hooks


def test_nsight_systems_without_a_gpu_is_refused() -> None:
    class Config:
        profile = ProfileSettings(steps="1:2", tool="nsys")

    with pytest.raises(ConfigError, match="there is none here"):
        open_recorder(Config, CPU)  # type: ignore[arg-type] # a stand-in
    assert open_recorder(Config, GPU).steps == range(1, 2)  # type: ignore[arg-type] # likewise
