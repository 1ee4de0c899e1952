"""Memory by phase, measured on this process and, for CUDA, on a stand-in for torch's allocator."""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from harness.memory import readers
from harness.memory.case import Phase
from harness.memory.malloc import find_malloc_count
from harness.memory.profile import (
    GIB,
    MemoryProfile,
    MemoryRecord,
    print_memory,
    read_memory,
    write_memory,
)
from preprocess.errors import DataError

MIB = 2**20


def record_of(profile: MemoryProfile, phase: str) -> MemoryRecord:
    return next(record for record in profile.records() if record.phase == phase)


def allocate(num_mib: int) -> None:
    """Touch pages and give them back, past malloc: in a process that ran long it has room enough of its own."""
    with mmap.mmap(-1, num_mib * MIB) as pages:
        pages.write(b"x" * len(pages))


def can_reset_peak() -> bool:
    return readers.CpuMemory().is_peak_by_phase


def test_a_peak_inside_a_phase_is_seen_though_it_is_gone_at_the_end() -> None:
    profile = MemoryProfile(rank=0, device="cpu")
    with profile.phase("load"):
        allocate(200)
    memory = record_of(profile, "load").last
    assert memory["peak_rss"] >= memory["rss"] + 150 * MIB


@pytest.mark.skipif(not can_reset_peak(), reason="the kernel does not permit resetting the peak")
def test_each_phase_has_its_own_peak() -> None:
    profile = MemoryProfile(rank=0, device=torch.device("cpu"))
    with profile.phase("forward"):
        allocate(200)
    with profile.phase("backward"):
        pass
    big, small = (record_of(profile, phase) for phase in ("forward", "backward"))
    assert big.peak_bytes >= small.peak_bytes + 150 * MIB
    assert (big.peak_scope, big.device) == ("phase", "cpu")


def test_where_the_peak_cannot_be_reset_the_record_says_it_is_the_process_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_file = os.open

    def refuse_clear_refs(path: str, flags: int) -> int:
        if path.endswith("clear_refs"):
            raise PermissionError(path)
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", refuse_clear_refs)
    profile = MemoryProfile(rank=0, device="cpu")
    with profile.phase("forward"):
        allocate(200)
    with profile.phase("backward"):
        pass
    big, small = (record_of(profile, phase) for phase in ("forward", "backward"))
    assert small.peak_bytes >= big.peak_bytes - 50 * MIB
    assert small.peak_scope == "process"
    assert "high-water mark" in print_to_text([small])


def test_the_highest_and_the_last_of_many_runs_are_kept() -> None:
    profile = MemoryProfile(rank=3, device="cpu")
    with mmap.mmap(-1, 200 * MIB) as held:
        with profile.phase("optimizer"):
            held.write(b"x" * len(held))
        assert held[0] == ord("x")
    with profile.phase("optimizer"):
        pass
    record = record_of(profile, "optimizer")
    assert (record.rank, record.num_runs) == (3, 2)
    assert record.max["rss"] >= record.last["rss"] + 150 * MIB
    assert record.peak_bytes == record.max["peak_rss"]


def test_pss_is_read_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    num_reads = 0

    def count_reads() -> dict[str, int]:
        nonlocal num_reads
        num_reads += 1
        return {"pss": 1}

    monkeypatch.setattr(readers, "read_pss", count_reads)
    profile = MemoryProfile(rank=0, device="cpu")
    for _ in range(readers.PSS_EVERY):
        with profile.phase("forward"):
            pass
    assert num_reads == 1
    with profile.phase("forward"):
        pass
    assert num_reads == 2
    assert record_of(profile, "forward").last["pss"] == 1


@pytest.mark.skipif(not readers.read_pss(), reason="the kernel does not tell the PSS")
def test_pss_is_a_part_of_rss() -> None:
    profile = MemoryProfile(rank=0, device="cpu")
    with profile.phase("load"):
        pass
    memory = record_of(profile, "load").last
    assert 0 < memory["pss"] <= memory["rss"] + 16 * MIB


def test_phases_do_not_nest_and_a_phase_that_fails_is_recorded() -> None:
    profile = MemoryProfile(rank=0, device="cpu")
    with (
        profile.phase("load"),
        pytest.raises(RuntimeError, match="'lora' was opened inside 'load'"),
        profile.phase("lora"),
    ):
        pass
    with pytest.raises(MemoryError), profile.phase("backward"):
        raise MemoryError
    with pytest.raises(ValueError, match="'nap'"), profile.phase(cast(Phase, "nap")):
        pass
    assert [record.phase for record in profile.records()] == ["load", "backward"]


class FakeCuda:
    """Stands for torch.cuda: the figures that a phase should read, and whether the peak was reset."""

    def __init__(self) -> None:
        self.peak = 50 * MIB
        self.num_resets = 0

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        assert device == torch.device("cuda:1")
        self.num_resets += 1
        self.peak = 10 * MIB

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 60 * MIB, 100 * MIB

    def memory_allocated(self, device: torch.device) -> int:
        return 10 * MIB

    def memory_reserved(self, device: torch.device) -> int:
        return 30 * MIB

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.peak

    def max_memory_reserved(self, device: torch.device) -> int:
        return 32 * MIB


def test_cuda_is_read_from_the_allocator_and_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    profile = MemoryProfile(rank=1, device="cuda:1")
    with profile.phase("forward"):
        cuda.peak = 25 * MIB
    with profile.phase("forward"):
        cuda.peak = 15 * MIB
    record = record_of(profile, "forward")
    assert cuda.num_resets == 2
    assert record.peak_bytes == 25 * MIB
    assert record.last == {
        "allocated": 10 * MIB,
        "reserved": 30 * MIB,
        "peak_allocated": 15 * MIB,
        "peak_reserved": 32 * MIB,
        "driver_used": 40 * MIB,
    }
    assert record.base_bytes == 10 * MIB
    assert "allocated on the device" in print_to_text([record])


def make_record(rank: int, phase: str, peak_gib: float) -> MemoryRecord:
    num_bytes = int(peak_gib * GIB)
    return MemoryRecord(rank, phase, "cuda:0", 1, num_bytes, "phase", {"allocated": 1}, {"allocated": 2})


def test_records_travel_between_ranks_and_to_the_file(tmp_path: Path) -> None:
    records = [make_record(rank, "backward", 1.0 + rank) for rank in range(3)]
    assert pickle.loads(pickle.dumps(records)) == records
    write_memory(tmp_path / "memory.jsonl", records)
    assert read_memory(tmp_path / "memory.jsonl") == records
    (tmp_path / "memory.jsonl").write_text('{"rank": 0}\n')
    with pytest.raises(DataError, match="not a memory record"):
        read_memory(tmp_path / "memory.jsonl")


def print_to_text(records: list[MemoryRecord]) -> str:
    out = io.StringIO()
    print_memory(records, Console(file=out, width=120))
    return out.getvalue()


def test_the_table_is_phases_by_ranks_with_the_highest_marked() -> None:
    records = [make_record(1, "backward", 3.5), make_record(0, "backward", 3.25), make_record(0, "load", 1.0)]
    text = print_to_text(records)
    lines = [line for line in text.splitlines() if "load" in line or "backward" in line]
    assert [line.split()[1] for line in lines] == ["load", "backward"]
    assert "1.00" in lines[0]
    assert "-" in lines[0]
    assert lines[1].index("3.25") < lines[1].index("3.50 *")
    assert text.count("*") == 2  # the mark and its legend
    assert print_to_text([]) == ""


@pytest.mark.skipif(find_malloc_count() is None, reason="this C library has no mallinfo2")
def test_a_tensor_made_in_one_phase_shows_in_that_phase() -> None:
    profile = MemoryProfile(rank=0, device="cpu")
    held: list[torch.Tensor] = []
    phases: list[Phase] = ["forward", "loss", "backward"]
    for phase in phases:
        with profile.phase(phase):
            if phase == "loss":
                held.append(torch.empty(64 * MIB, dtype=torch.uint8))
        if phase == "loss":
            held.clear()
    ends = {phase: record_of(profile, phase).last["allocated"] for phase in phases}
    assert ends["loss"] - ends["forward"] == pytest.approx(64 * MIB, abs=MIB)
    assert ends["backward"] - ends["forward"] == pytest.approx(0, abs=MIB)


def test_figures_that_take_long_are_left_out_of_a_step_that_is_not_looked_at_closely() -> None:
    profile = MemoryProfile(rank=0, device="cpu")
    profile.start_step(1, closely=False)
    with profile.phase("forward"):
        pass
    profile.end_step()
    with profile.phase("eval"):
        pass
    assert "allocated" not in record_of(profile, "forward").last
    assert profile.timeline is None
    assert ("allocated" in record_of(profile, "eval").last) == (find_malloc_count() is not None)


def test_parts_are_measured_ever_more_rarely_and_late_enough() -> None:
    profile, runs = MemoryProfile(rank=0, device="cpu"), list[int]()
    with profile.phase("forward"):
        pass
    assert record_of(profile, "forward").parts == {}
    profile.watch([], lambda: {"gradients": runs.append(0) or len(runs)})  # type: ignore[func-returns-value]
    for _ in range(100):
        with profile.phase("backward"):
            pass
    assert len(runs) == 8  # 0, 1, 2, 4, 8, 16, 32, 64
    assert record_of(profile, "backward").parts == {"gradients": 8}


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "nap"},
        {"parts": {"dust": 1}},
        {"parts": [1]},
        {"parts": {"gradients": "many"}},
        {"last": {"rss": None}},
        {"surplus": 1},
    ],
)
def test_a_line_that_is_no_record_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    record = make_record(0, "backward", 1.0)
    write_memory(path, [replace(record, base_bytes=5, parts={"gradients": 3})])
    assert read_memory(path)[0].parts == {"gradients": 3}
    path.write_text(json.dumps({**record.to_dict(), **change}) + "\n")
    with pytest.raises(DataError, match="not a memory record"):
        read_memory(path)
