"""Where figures of memory come from: a CUDA device's allocator and driver, or the process itself on the CPU.

All in bytes. Source of the CPU figures: proc(5). Writing 5 to /proc/self/clear_refs resets VmHWM, the peak; where that
is not permitted the peak is the highest since the process began.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from harness.memory.malloc import find_malloc_count

PSS_EVERY = 500
"""PSS walks every mapping, 2 to 3 milliseconds in a process with torch. It is read at a phase's first end and
then this rarely: about 5 microseconds a phase on average."""


class MemoryReader(Protocol):
    """Reads one rank's memory.

    Attributes:
        peak: The measure that is the peak.
        is_peak_by_phase: Whether the peak can be reset.
    """

    peak: str
    is_peak_by_phase: bool

    def reset_peak(self) -> bool:
        """Set the peak to what is taken now; False where that is not permitted."""

    def read(self, run: int, *, closely: bool) -> dict[str, int]:
        """Bytes by measure.

        Args:
            run: How often this was read before in the same phase.
            closely: Whether measures that take long are worth it.
        """

    def read_allocated(self) -> int | None:
        """Bytes of tensors (on the CPU of all that malloc handed out), or None where that cannot be told."""


def open_memory(device: str) -> MemoryReader:
    """The reader of a device: CUDA through torch, anything else as the process."""
    return CudaMemory(device) if device.startswith("cuda") else CpuMemory()


class CpuMemory:
    """Reads the process's memory from /proc and from malloc."""

    peak = "peak_rss"

    def __init__(self) -> None:
        self.is_peak_by_phase = self.reset_peak()
        self._count = find_malloc_count()

    def reset_peak(self) -> bool:
        """Set the high-water mark to what is resident now; False when the kernel does not let us."""
        return reset_peak()

    def read(self, run: int, *, closely: bool) -> dict[str, int]:
        """Bytes by measure: rss, peak_rss, at times pss, and allocated where it is known and looked at closely."""
        # Unbuffered: half the cost of a Python file object, and this runs several times a micro-step.
        file = os.open("/proc/self/status", os.O_RDONLY)
        status = os.read(file, 1 << 14)
        os.close(file)
        memory = {"rss": find_kib(status, b"VmRSS:"), "peak_rss": find_kib(status, b"VmHWM:")}
        if run % PSS_EVERY == 0:
            memory |= read_pss()
        if closely and self._count is not None:
            memory["allocated"] = self._count()
        return memory

    def read_allocated(self) -> int | None:
        """Bytes that malloc has handed out."""
        return None if self._count is None else self._count()


def reset_peak() -> bool:
    """Set the process's high-water mark to what is resident now; False where the kernel forbids it."""
    try:
        file = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(file, b"5")
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def find_kib(text: bytes, key: bytes) -> int:
    """Return the bytes that a line "Key:  123 kB" of a /proc file tells."""
    start = text.index(key) + len(key)
    return int(text[start : text.index(b"kB", start)]) * 1024


def read_pss() -> dict[str, int]:
    """The process's memory with shared pages counted in part, or nothing where the kernel does not tell."""
    try:
        return {"pss": find_kib(Path("/proc/self/smaps_rollup").read_bytes(), b"\nPss:")}
    except OSError:
        return {}


class CudaMemory:
    """Reads torch's caching allocator and the driver."""

    peak = "peak_allocated"
    is_peak_by_phase = True

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.cuda
        self._device = torch.device(device)

    def reset_peak(self) -> bool:
        """Set the allocator's peaks to what is taken now."""
        self._cuda.reset_peak_memory_stats(self._device)
        return True

    def read(self, run: int, *, closely: bool) -> dict[str, int]:
        """Bytes by measure: allocated, reserved, the peaks of both, and what the driver has given to all processes."""
        free, total = self._cuda.mem_get_info(self._device)
        return {
            "allocated": self._cuda.memory_allocated(self._device),
            "reserved": self._cuda.memory_reserved(self._device),
            "peak_allocated": self._cuda.max_memory_allocated(self._device),
            "peak_reserved": self._cuda.max_memory_reserved(self._device),
            "driver_used": total - free,
        }

    def read_allocated(self) -> int:
        """Bytes of tensors."""
        return self._cuda.memory_allocated(self._device)
