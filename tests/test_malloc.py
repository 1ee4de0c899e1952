"""malloc's own count, against tensors made in this and other threads, and where there is none."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from harness.memory import malloc, readers
from harness.memory.malloc import find_malloc_count, follows_tensors
from harness.memory.profile import NO_COUNT, MemoryProfile

MIB = 2**20
COUNT = find_malloc_count()
needs_count = pytest.mark.skipif(COUNT is None, reason="this C library has no mallinfo2")


@needs_count
@pytest.mark.parametrize(("num_tensors", "mib"), [(1, 64), (256, 0.25)], ids=["mapped", "from arenas"])
def test_the_count_follows_tensors_large_and_small(num_tensors: int, mib: float) -> None:
    assert COUNT is not None
    total = num_tensors * int(mib * MIB)
    gc.collect()  # or what other tests have left ends in between
    before = COUNT()
    held = [torch.empty(int(mib * MIB), dtype=torch.uint8) for _ in range(num_tensors)]
    during = COUNT()
    held.clear()
    after = COUNT()
    assert during - before == pytest.approx(total, rel=0.02)
    assert after - before == pytest.approx(0, abs=total * 0.02)


@needs_count
def test_the_count_follows_tensors_of_another_thread_as_backward_makes_them() -> None:
    assert COUNT is not None
    held: list[torch.Tensor] = []
    gc.collect()
    before = COUNT()
    thread = threading.Thread(
        target=lambda: held.extend(torch.empty(100_000, dtype=torch.uint8) for _ in range(200))
    )
    thread.start()
    thread.join()
    assert COUNT() - before == pytest.approx(200 * 100_000, rel=0.05)


def test_a_library_without_a_count_gives_none() -> None:
    assert find_malloc_count(cast("Any", object())) is None


class Idle:
    """The C library's call where another allocator stands in malloc's place: it tells of nothing."""

    def __call__(self) -> malloc._Mallinfo2:
        return malloc._Mallinfo2()


def test_a_count_that_does_not_follow_tensors_is_refused() -> None:
    assert find_malloc_count(cast("Any", SimpleNamespace(mallinfo2=Idle()))) is None
    assert not follows_tensors(lambda: 5)


def test_without_a_count_allocated_and_the_timeline_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "find_malloc_count", lambda: None)
    profile = MemoryProfile(rank=0, device="cpu")
    profile.start_step(1, closely=True)
    with profile.phase("forward"):
        pass
    profile.end_step()
    assert "allocated" not in profile.records()[0].last
    assert profile.timeline is None
    assert "mallinfo2" in NO_COUNT
