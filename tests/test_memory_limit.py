"""What a rank may use and uses, and how exhaustion is told: real on the CPU, with a simulated card for CUDA."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.config import MemorySettings
from harness.memory.limit import (
    GIB,
    CpuMemory,
    CudaMemory,
    check_target,
    find_host_limit,
    is_out_of_memory,
    open_memory,
    read_status,
)
from preprocess.errors import OutOfMemoryError
from tests.dist_ranks import run_ranks

CARD = torch.device("cuda:0")
MIB = 2**20


@dataclass
class Card:
    """What torch.cuda says of a card of 48 GiB."""

    others: int = 0
    context: int = GIB // 2
    reserved: int = 0
    highest: int = 0
    share: float | None = None
    emptied: int = 0

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 48 * GIB - self.others - self.context - self.reserved, 48 * GIB

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.highest

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.highest = self.reserved

    def set_per_process_memory_fraction(self, share: float, device: torch.device) -> None:
        self.share = share

    def empty_cache(self) -> None:
        self.emptied += 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a memory object"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_exhausted_memory_is_told_from_other_errors(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError(12, "x")]
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_an_allocation_that_cannot_be_had_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_card_of_its_own_has_no_other_process_and_the_context_counts() -> None:
    card = Card()
    memory = CudaMemory(None, CARD, card)
    card.reserved = card.highest = 10 * GIB
    assert memory.limit_bytes == memory.available() == 48 * GIB
    assert memory.used() == memory.peak() == int(10.5 * GIB)
    check_target(memory, 0.94, 0)
    memory.enforce()
    assert card.share is None


def test_a_peak_is_that_since_its_start() -> None:
    card = Card(reserved=3 * GIB, highest=9 * GIB)
    memory = CudaMemory(None, CARD, card)
    memory.start_peak()
    assert memory.peak() == int(3.5 * GIB)
    memory.release()
    assert card.emptied == 1


def test_a_target_above_what_another_process_leaves_is_refused_with_the_figures() -> None:
    memory = CudaMemory(None, CARD, Card(others=10 * GIB))
    with pytest.raises(OutOfMemoryError) as caught:
        check_target(memory, 0.94, 2)
    text = str(caught.value)
    for part in ("45.12 GiB", "rank 2", "38.50 GiB", "memory.target to 0.8"):
        assert part in text
    assert caught.value.exit_code == 8
    check_target(memory, 0.8, 2)


def test_a_limit_below_the_card_is_kept_by_the_allocator_and_leaves_others_alone() -> None:
    card = Card(others=10 * GIB)
    memory = CudaMemory(24 * GIB, CARD, card)
    check_target(memory, 1.0, 0)
    memory.enforce()
    assert card.share == pytest.approx((24 - 0.5) / 48, abs=0.02)


def test_a_cpu_rank_has_what_is_set_or_its_share_of_the_host() -> None:
    cpu = torch.device("cpu")
    assert open_memory(MemorySettings(limit_gib=2), cpu, 3).limit_bytes == 2 * GIB
    whole, shared = (open_memory(MemorySettings(), cpu, ranks) for ranks in (1, 3))
    assert shared.limit_bytes == whole.limit_bytes // 3
    with pytest.raises(OutOfMemoryError, match="Another process"):
        check_target(CpuMemory(2**50, 1), 0.9, 0)


def test_a_peak_of_the_resident_set_is_seen_and_forgotten() -> None:
    memory = CpuMemory(4 * GIB, 1)
    if not memory.resets_peak:
        pytest.skip("this kernel does not let a process reset its peak")
    before = memory.used()
    block = torch.ones(64 * MIB, dtype=torch.uint8)
    assert memory.peak() >= before + 60 * MIB
    del block
    memory.release()
    memory.start_peak()
    assert memory.peak() < before + 30 * MIB


def allocate_under_limit(room: int, *, enforced: bool) -> list[bool]:
    """Whether allocations of a half and of twice the room fail."""
    memory = CpuMemory(read_status("VmRSS") + room, 1)
    if enforced:
        memory.enforce()
    failed = []
    for size in (room // 2, 2 * room):
        try:
            torch.ones(size, dtype=torch.uint8)
            failed.append(False)
        except RuntimeError as error:
            failed.append(is_out_of_memory(error))
        gc.collect()
    return failed


def test_a_limit_on_the_cpu_is_real() -> None:
    assert run_ranks(allocate_under_limit_both, 1)[0] == ([False, False], [False, True])


def allocate_under_limit_both() -> tuple[list[bool], list[bool]]:
    room = 200 * MIB
    return allocate_under_limit(room, enforced=False), allocate_under_limit(room, enforced=True)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/app/run\n", {"app/memory.max": "300000000", "app/run/memory.max": "max"}, 300_000_000),
        ("0::/\n", {"memory.max": "200000000"}, 200_000_000),
        ("0::/gone\n", {"memory.max": "200000000"}, 200_000_000),
        ("5:memory:/a\n4:cpu:/b\n", {"memory/a/memory.limit_in_bytes": "100000000"}, 100_000_000),
    ],
)
def test_the_lowest_limit_of_the_control_groups_counts(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "self").write_text(membership)
    assert find_host_limit(tmp_path, tmp_path / "self") == (expected, "the control group's limit")


def test_without_a_control_group_the_machine_is_the_limit(tmp_path: Path) -> None:
    total, source = find_host_limit(tmp_path, tmp_path / "none")
    assert source == "the machine's memory"
    assert total > GIB // 2
