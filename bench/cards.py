"""The card that a benchmark runs on: its peak, its memory, what it reaches. Every call of torch.cuda is here.

On a CPU the same calls answer as well as they can, so that everything else runs there too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from harness.cards import find_peak
from harness.metering.measure import measure_matmul

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """What computes.

    Attributes:
        name: As the driver calls it; "cpu" for a CPU.
        memory_gib: In all; the machine's for a CPU.
        driver: Version of the driver, None on a CPU.
        cuda: Version that torch was built for, None on a CPU.
        capability: Compute capability as in "9.0", None on a CPU.
        peak_tflops: Dense bfloat16 peak of the data sheet, None for a card that is not in the table.
        ceiling_tflops: Rate of one large matrix product in the precision that is trained in, measured.
    """

    name: str
    memory_gib: float
    driver: str | None
    cuda: str | None
    capability: str | None
    peak_tflops: float | None
    ceiling_tflops: float


def find_device() -> torch.device:
    """The first CUDA card, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def describe_card(device: torch.device, dtype: torch.dtype) -> Card:
    """Name, memory, versions, peak; measures the ceiling, which takes a second."""
    ceiling = measure_matmul(device, dtype)
    if device.type != "cuda":
        return Card("cpu", psutil.virtual_memory().total / GIB, None, None, None, None, ceiling)
    properties = torch.cuda.get_device_properties(device)
    return Card(
        name=properties.name,
        memory_gib=properties.total_memory / GIB,
        driver=read_driver(),
        cuda=torch.version.cuda,
        capability=f"{properties.major}.{properties.minor}",
        peak_tflops=find_peak(properties.name),
        ceiling_tflops=ceiling,
    )


def read_driver() -> str | None:
    """The driver's version as nvidia-smi tells it, or None."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def synchronize(device: torch.device) -> None:
    """Wait for all work of a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cap_memory(device: torch.device, gib: float | None) -> float:
    """Let torch's allocator take no more than so much of a card.

    Returns:
        The limit in GiB: what was asked for, or all of the device's memory where that is less. A CPU has no cap.
    """
    if device.type != "cuda":
        return psutil.virtual_memory().total / GIB
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    limit = total if gib is None else min(gib, total)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    return limit


def free_memory(device: torch.device) -> None:
    """Give cached blocks back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def supports_fp8(device: torch.device) -> bool:
    """Whether the card multiplies float8 (Ada, Hopper and later)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def is_poisoned(error: BaseException) -> bool:
    """Whether an error leaves the process without a usable CUDA context."""
    fatal = (
        "illegal memory access",
        "device-side assert",
        "unspecified launch failure",
        "misaligned address",
    )
    return any(text in str(error) for text in fatal)


class PhaseMemory:
    """The highest memory of each phase over all times that it ran, in bytes.

    On CUDA it is what torch's allocator had given out at the phase's peak. A CPU has no such peak: there it is what the
    process holds (resident) at the phase's end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peaks: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block."""
        self.start()
        yield
        self.end(name)

    def start(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def end(self, name: str) -> None:
        """Note a phase's peak."""
        if self.device.type == "cuda":
            found = torch.cuda.max_memory_allocated(self.device)
        else:
            found = psutil.Process().memory_info().rss
        self.peaks[name] = max(found, self.peaks.get(name, 0))
