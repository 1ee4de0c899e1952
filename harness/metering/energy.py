"""Energy that a run takes, where the driver counts it: NVML on a GPU, RAPL on a CPU.

NVML's counter is the card's own, in millijoules since the driver was loaded (Volta and later;
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html). RAPL's are those of the host's processor
packages, in microjoules, of everything that runs there; they begin again at 0 from time to time
(https://docs.kernel.org/power/powercap/powercap.html).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from harness.dist import World

POWERCAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"


class EnergyCounter(Protocol):
    """A counter of energy."""

    def read_joules(self) -> float | None:
        """Joules since some moment; None where it cannot be read."""


class EnergyMeter:
    """Energy between its start and now, on what this rank counts.

    Args:
        counter: None where there is none.
    """

    def __init__(self, counter: EnergyCounter | None) -> None:
        self._counter = counter
        self._start_j: float | None = None

    def start(self) -> None:
        """Begin, at the first call."""
        if self._counter is not None and self._start_j is None:
            self._start_j = self._counter.read_joules()

    def look(self) -> None:
        """Read the counter, which is due before it has begun again at 0 twice: every few minutes."""
        if self._counter is not None:
            self._counter.read_joules()

    def joules(self) -> float | None:
        """Since the start; None where nothing can be read."""
        now_j = None if self._counter is None else self._counter.read_joules()
        return None if now_j is None or self._start_j is None else now_j - self._start_j


class RaplCounter:
    """The processor packages of a host; wraps around unseen if it is not read for a full turn of a counter.

    Args:
        zones: Folders of the packages, see `find_packages`.
    """

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = list(zones)
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last: list[int] | None = None
        self._total_uj = 0

    def read_joules(self) -> float | None:
        """Joules since the first reading."""
        try:
            now = [int((zone / "energy_uj").read_text()) for zone in self._zones]
        except (OSError, ValueError):
            return None
        if self._last is not None:
            for before, after, span in zip(self._last, now, self._ranges, strict=True):
                self._total_uj += after - before if after >= before else after - before + span
        self._last = now
        return self._total_uj / 1e6


def find_packages(folder: Path = POWERCAP) -> list[Path]:
    """RAPL's zones of whole processor packages that can be read; their parts (cores, memory) count in them."""
    found = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        try:
            is_package = (zone / "name").read_text().startswith("package")
            if is_package and int((zone / "energy_uj").read_text()) >= 0:
                found.append(zone)
        except (OSError, ValueError):  # readable to root alone, as a rule
            continue
    return found


class NvmlCounter:
    """One card's counter.

    Args:
        library: NVML, as `ctypes.CDLL` loads it.
        uuid: Of the card, as in "GPU-8f6c…".

    Raises:
        OSError: NVML does not start, or does not know the card.
    """

    def __init__(self, library: Any, uuid: str) -> None:  # noqa: ANN401 - a library's functions have no types
        self._library = library
        self._handle = ctypes.c_void_p()
        if library.nvmlInit_v2():
            raise OSError("NVML does not start")
        if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._handle)):
            raise OSError(f"NVML does not know {uuid}")

    def read_joules(self) -> float | None:
        """Joules since the driver was loaded; None on a card that does not count."""
        millijoules = ctypes.c_ulonglong()
        failed = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1e3


def find_counter(world: World) -> EnergyCounter | None:
    """What counts this rank's energy: its card, or on the first rank of a host of CPUs the host's packages."""
    if world.device.type == "cuda":
        uuid = f"GPU-{torch.cuda.get_device_properties(world.device).uuid}"
        try:
            return NvmlCounter(ctypes.CDLL(NVML_LIBRARY), uuid)
        except (OSError, AttributeError):  # no such library, or an older one
            return None
    packages = find_packages() if world.local_rank == 0 else []
    return RaplCounter(packages) if packages else None


def add_up_energy(
    joules: Sequence[float | None], devices: Sequence[str], local_ranks: Sequence[int]
) -> float | None:
    """Joules of all ranks; None where some device's are not known.

    Args:
        joules: Of each rank.
        devices: Of each rank, as in "cuda:0" or "cpu".
        local_ranks: Of each rank; on a host of CPUs the first one counts for all.
    """
    counted = [
        one
        for one, device, local in zip(joules, devices, local_ranks, strict=True)
        if device != "cpu" or local == 0
    ]
    known = [one for one in counted if one is not None]
    return sum(known) if len(known) == len(counted) else None
