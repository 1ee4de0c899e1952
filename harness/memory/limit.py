"""What memory one rank may use, how much it uses, and how to tell that it ran out.

On CUDA the limit is the card's memory, or what `memory.limit_gib` leaves of it, which the caching allocator then keeps
to. Used is what the driver counts, without what other processes have on the card.

On the CPU it is the resident set (proc(5): VmRSS, and VmHWM for the peak). The limit is `memory.limit_gib`, or this
rank's share of the control group's limit or of the machine's memory. It is kept to by RLIMIT_DATA (getrlimit(2)), so
that an allocation fails and can be answered, instead of the kernel ending the process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness.config import MemorySettings
from harness.memory.readers import find_kib, reset_peak
from preprocess.errors import OutOfMemoryError

GIB = 2**30

CONTEXT_BYTES = GIB
"""What a process takes of a card beside tensors, at most: context, kernels, communicators."""

SIGNS_OF_EXHAUSTION = (
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
)
"""Parts of messages of torch's CPU allocator, CUDA and its libraries, the C++ library, and oneDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS_OF_EXHAUSTION)


@contextmanager
def tell_out_of_memory(advice: str) -> Iterator[None]:
    """Tell memory that runs out inside as the user's error, with what to do about it.

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutOfMemoryError(f"out of memory ({text}); {advice}") from error


class RankMemory(ABC):
    """A rank's memory.

    Attributes:
        limit_bytes: What the rank may use.
        source: What sets that limit, in words.
        enforced: Whether an allocation beyond it fails.
    """

    limit_bytes: int
    source: str
    enforced: bool = False

    @abstractmethod
    def used(self) -> int:
        """Bytes that this rank uses now."""

    @abstractmethod
    def start_peak(self) -> None:
        """Forget the peak so far."""

    @abstractmethod
    def peak(self) -> int:
        """The most bytes used since `start_peak`."""

    @abstractmethod
    def available(self) -> int:
        """Bytes that this rank could use in all, at most: what it has and what is free."""

    @abstractmethod
    def enforce(self, untouched_bytes: int = 0) -> None:
        """Let allocations beyond the limit fail from now on.

        Args:
            untouched_bytes: Of buffers to come that are larger than what is written into them.
        """

    @abstractmethod
    def release(self) -> None:
        """Give back what is held and not used."""


def open_memory(settings: MemorySettings, device: torch.device, ranks_here: int) -> RankMemory:
    """The memory of this rank.

    Args:
        settings: The run's.
        device: Where the rank computes.
        ranks_here: Ranks on this host, which share a CPU's memory.
    """
    limit = None if settings.limit_gib is None else int(settings.limit_gib * GIB)
    return CudaMemory(limit, device) if device.type == "cuda" else CpuMemory(limit, ranks_here)


def check_target(memory: RankMemory, target: float, rank: int) -> None:
    """Refuse a target that is not to be had, because another process has the memory.

    Raises:
        OutOfMemoryError: It is above what is free.
    """
    wanted, available = int(target * memory.limit_bytes), memory.available()
    if wanted > available:
        raise OutOfMemoryError(
            f"memory.target {target:g} of {spell(memory.limit_bytes)} ({memory.source}) wants {spell(wanted)}, but "
            f"rank {rank} can have {spell(available)}: {spell(max(memory.limit_bytes - available, 0))} less than its "
            f"limit is free. Another process may hold it; end that, or set memory.target to "
            f"{int(100 * available / memory.limit_bytes) / 100:g} or lower, or memory.limit_gib"
        )


def spell(num_bytes: float) -> str:
    """Bytes in GiB, or below one in MiB, as in "43.28 GiB"."""
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"


class CudaMemory(RankMemory):
    """A card's memory.

    Args:
        limit_bytes: What the rank may use of it; all if None.
        device: Which card.
        cuda: `torch.cuda`, or what stands for it.
    """

    def __init__(self, limit_bytes: int | None, device: torch.device, cuda: Any = torch.cuda) -> None:  # noqa: ANN401 - a module
        self._cuda, self._device = cuda, device
        _, self._total = cuda.mem_get_info(device)
        self.limit_bytes = min(limit_bytes or self._total, self._total)
        self.source = f"{device}'s memory" if limit_bytes is None else "memory.limit_gib"
        self._others = max(0, self._outside_allocator() - CONTEXT_BYTES)

    def _outside_allocator(self) -> int:
        free, total = self._cuda.mem_get_info(self._device)
        return int(total - free - self._cuda.memory_reserved(self._device))

    def _overhead(self) -> int:
        return max(0, self._outside_allocator() - self._others)

    def used(self) -> int:
        """The allocator's memory, and this process's context."""
        return int(self._cuda.memory_reserved(self._device)) + self._overhead()

    def start_peak(self) -> None:
        """Forget the peak so far."""
        self._cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """The most that the allocator has held, and this process's context."""
        return int(self._cuda.max_memory_reserved(self._device)) + self._overhead()

    def available(self) -> int:
        """What other processes leave of the card."""
        return int(self._total) - max(0, self._outside_allocator() - CONTEXT_BYTES)

    def enforce(self, untouched_bytes: int = 0) -> None:
        """Let the allocator fail beyond the limit, where that is less than the card."""
        if self.limit_bytes < self._total:
            share = max(self.limit_bytes - self._overhead(), 1) / self._total
            self._cuda.set_per_process_memory_fraction(share, self._device)
        self.enforced = True

    def release(self) -> None:
        """Give free blocks back to the driver."""
        gc.collect()
        self._cuda.empty_cache()


class CpuMemory(RankMemory):
    """A process's memory.

    Args:
        limit_bytes: What the rank may use; its share of what this host has if None.
        ranks_here: Ranks on this host.
    """

    def __init__(self, limit_bytes: int | None, ranks_here: int) -> None:
        if limit_bytes is None:
            total, what = find_host_limit()
            limit_bytes, self.source = total // ranks_here, f"{what} / {ranks_here} ranks of this host"
        else:
            self.source = "memory.limit_gib"
        self.limit_bytes = limit_bytes
        self._ranks_here = ranks_here
        self.resets_peak = reset_peak()

    def used(self) -> int:
        """The resident set."""
        return read_status("VmRSS")

    def start_peak(self) -> None:
        """Forget the peak so far; where the kernel forbids it, the peak is the process's."""
        reset_peak()

    def peak(self) -> int:
        """The highest resident set."""
        return read_status("VmHWM")

    def available(self) -> int:
        """What this process has, and what the host has free (shared out among the ranks here)."""
        return self.used() + read_meminfo("MemAvailable") // self._ranks_here

    def enforce(self, untouched_bytes: int = 0) -> None:
        """Let an allocation fail that would take the process beyond its limit.

        RLIMIT_DATA counts private writable memory, whether it is resident or not; so it is set to what there is of that
        now, what is left of the limit, and what is to be allocated and never touched.
        """
        self.release()
        room = max(self.limit_bytes - self.used(), 0)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (read_status("VmData") + room + untouched_bytes, hard))
        self.enforced = True

    def release(self) -> None:
        """Give free memory back to the kernel (malloc_trim(3), where the C library has it)."""
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def read_status(key: str) -> int:
    """Bytes that a line of /proc/self/status tells."""
    return find_kib(Path("/proc/self/status").read_bytes(), f"{key}:".encode())


def read_meminfo(key: str) -> int:
    """Bytes that a line of /proc/meminfo tells."""
    return find_kib(Path("/proc/meminfo").read_bytes(), f"{key}:".encode())


def find_host_limit(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> tuple[int, str]:
    """What all processes of this host (or of this container) may use, in bytes, and what says so.

    The lowest limit of the process's control group and the groups that hold it, of either version.

    Args:
        root: Where control groups are mounted.
        membership: Names the process's groups, a line each: "number:controllers:/path".
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lowest = min(
        (limit for file in _limit_files(root, membership) if (limit := _read_limit(file))), default=machine
    )
    return (lowest, "the control group's limit") if lowest < machine else (machine, "the machine's memory")


def _limit_files(root: Path, membership: Path) -> list[Path]:
    files = []
    for line in membership.read_text().splitlines() if membership.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        own = base / path.lstrip("/")
        # In a container the path may be the host's, and the limit lies at the root.
        files += [folder / name for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return files


def _read_limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is none
