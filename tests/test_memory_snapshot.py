"""torch's snapshot of a GPU's memory, with a stand-in for the GPU, and the plan's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.memory.case import MemoryPlan, PhaseMemory
from harness.memory.plan_file import read_plan, write_plan
from harness.memory.snapshot import record_snapshot, snapshot_file
from preprocess.errors import DataError


class FakeMemory:
    """Stands for torch.cuda.memory: what was asked of it, and files where it was told to write."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.recording: list[object] = []
        self.breaks = breaks

    def _record_memory_history(self, enabled: object = "all", max_entries: int = 0) -> None:
        assert enabled is None or max_entries > 0
        self.recording.append(enabled)

    def _dump_snapshot(self, filename: str) -> None:
        if self.breaks:
            raise RuntimeError("the device is gone")
        Path(filename).write_bytes(b"snapshot")


@pytest.fixture
def observers(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[int, int, int, int], None]]:
    """What torch was given to call when memory runs out."""
    found: list[Callable[[int, int, int, int], None]] = []
    monkeypatch.setattr(torch._C, "_cuda_attach_out_of_memory_observer", found.append, raising=False)
    return found


def use_memory(monkeypatch: pytest.MonkeyPatch, memory: FakeMemory) -> FakeMemory:
    monkeypatch.setattr(torch.cuda, "memory", memory)
    return memory


GPU = torch.device("cuda:0")


def test_the_snapshot_is_written_at_the_end_and_recording_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, observers: list[Any]
) -> None:
    memory, said = use_memory(monkeypatch, FakeMemory()), list[str]()
    with record_snapshot(tmp_path, 2, GPU, said.append):
        assert memory.recording == ["all"]
        assert not list(tmp_path.iterdir())
    assert memory.recording == ["all", None]
    assert [path.name for path in tmp_path.iterdir()] == ["memory-rank2.pickle"]
    assert "https://pytorch.org/memory_viz" in said[0]
    assert len(observers) == 1


def test_the_snapshot_is_written_when_memory_runs_out_then_and_there_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, observers: list[Callable[[int, int, int, int], None]]
) -> None:
    use_memory(monkeypatch, FakeMemory())

    def run_out() -> None:
        observers[0](0, 100, 200, 50)
        assert [path.name for path in tmp_path.iterdir()] == ["memory-rank0-oom.pickle"]
        raise torch.OutOfMemoryError("no room")

    with (
        pytest.raises(torch.OutOfMemoryError, match="no room"),
        record_snapshot(tmp_path, 0, GPU, lambda line: None),
    ):
        run_out()
    assert snapshot_file(tmp_path, 0).is_file()


def test_a_snapshot_that_fails_does_not_hide_what_the_run_ended_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, observers: list[Any]
) -> None:
    use_memory(monkeypatch, FakeMemory(breaks=True))
    said = list[str]()
    with (
        pytest.raises(torch.OutOfMemoryError, match="no room"),
        record_snapshot(tmp_path, 0, GPU, said.append),
    ):
        raise torch.OutOfMemoryError("no room")
    assert said == ["no snapshot of memory: the device is gone"]


def test_on_the_cpu_one_line_says_where_to_look_instead(tmp_path: Path) -> None:
    said = list[str]()
    with record_snapshot(tmp_path, 0, torch.device("cpu"), said.append):
        pass
    assert len(said) == 1
    assert "no snapshot of CPU memory" in said[0]
    assert "memory_timeline.jsonl" in said[0]
    assert not list(tmp_path.iterdir())


PLANS = [
    MemoryPlan((PhaseMemory("loss", {"logits": 5 + rank}), PhaseMemory("backward", {})), {"pinned": 7})
    for rank in range(2)
]


def test_a_plan_travels_through_the_file(tmp_path: Path) -> None:
    write_plan(tmp_path / "memory_plan.json", PLANS)
    assert read_plan(tmp_path / "memory_plan.json") == PLANS


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content.update(format_version=9), "format 9"),
        (lambda content: content["ranks"].pop("0"), "KeyError"),
        (lambda content: content["ranks"]["0"]["phases"][0].update(phase="nap"), "'nap'"),
        (lambda content: content["ranks"]["0"]["phases"][0]["parts"].update(dust=1), "'dust'"),
        (lambda content: content["ranks"]["0"].pop("phases"), "phases"),
    ],
)
def test_a_damaged_plan_is_refused_with_the_reason(
    change: Callable[[dict[str, Any]], object], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "memory_plan.json"
    write_plan(path, PLANS)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=why):
        read_plan(path)


def test_a_plan_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory_plan.json").write_text("{")
    with pytest.raises(DataError, match="not a plan"):
        read_plan(tmp_path / "memory_plan.json")
