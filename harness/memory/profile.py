"""Memory by phase of a run on one rank: what each phase holds at its end, and its peak.

On CUDA the figures are the caching allocator's (allocated, reserved, peak of both within the phase) and the
driver's (used on the whole device, by every process on it). On the CPU they are the process's: resident set
(RSS), its share of pages that others map too (PSS), and the highest RSS within the phase. All in bytes.

Source of the CPU figures: proc(5). Writing 5 to /proc/self/clear_refs resets VmHWM, the peak; where that is
not permitted the peak is the highest since the process began, and the record says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from harness.json_lines import read_json_lines, write_json_lines
from harness.memory.case import PHASES, Phase
from preprocess.errors import DataError

if TYPE_CHECKING:
    import torch

MEMORY_FILE = "memory.jsonl"
PSS_EVERY = 500
"""PSS walks every mapping, 2 to 3 milliseconds in a process with torch. It is read at a phase's first end and
then this rarely: about 5 microseconds a phase on average."""

GIB = 2**30


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Memory of one phase on one rank, over all the times that the phase ran.

    Attributes:
        rank: Global rank.
        phase: Which phase.
        device: "cpu", or the CUDA device as in "cuda:0".
        num_runs: How often the phase ended.
        peak_bytes: The highest peak: allocated on CUDA, RSS on the CPU.
        peak_scope: "phase" when the peak was reset at every start; "process" when it could not be, and the
            figure is the process's high-water mark.
        last: Bytes by measure at the last end. CUDA: allocated, reserved, peak_allocated, peak_reserved,
            driver_used; CPU: rss, peak_rss, and pss where it can be read.
        max: The highest of each measure over all ends.
    """

    rank: int
    phase: str
    device: str
    num_runs: int
    peak_bytes: int
    peak_scope: Literal["phase", "process"]
    last: dict[str, int]
    max: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: a line of memory.jsonl."""
        return asdict(self)


class _CpuMemory:
    """Reads the process's memory from /proc."""

    peak = "peak_rss"

    def __init__(self) -> None:
        self.is_peak_by_phase = self.reset_peak()

    def reset_peak(self) -> bool:
        """Set the high-water mark to what is resident now; False when the kernel does not let us."""
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

    def read(self, run: int) -> dict[str, int]:
        # Unbuffered: half the cost of a Python file object, and this runs several times a micro-step.
        file = os.open("/proc/self/status", os.O_RDONLY)
        status = os.read(file, 1 << 14)
        os.close(file)
        memory = {"rss": _find_kib(status, b"VmRSS:"), "peak_rss": _find_kib(status, b"VmHWM:")}
        if run % PSS_EVERY == 0:
            memory |= _read_pss()
        return memory


def _find_kib(text: bytes, key: bytes) -> int:
    """Return the bytes that a line "Key:  123 kB" of a /proc file tells."""
    start = text.index(key) + len(key)
    return int(text[start : text.index(b"kB", start)]) * 1024


def _read_pss() -> dict[str, int]:
    try:
        return {"pss": _find_kib(Path("/proc/self/smaps_rollup").read_bytes(), b"\nPss:")}
    except OSError:
        return {}


class _CudaMemory:
    """Reads torch's caching allocator and the driver."""

    peak = "peak_allocated"
    is_peak_by_phase = True

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.cuda
        self._device = torch.device(device)

    def reset_peak(self) -> bool:
        self._cuda.reset_peak_memory_stats(self._device)
        return True

    def read(self, run: int) -> dict[str, int]:
        free, total = self._cuda.mem_get_info(self._device)
        return {
            "allocated": self._cuda.memory_allocated(self._device),
            "reserved": self._cuda.memory_reserved(self._device),
            "peak_allocated": self._cuda.max_memory_allocated(self._device),
            "peak_reserved": self._cuda.max_memory_reserved(self._device),
            "driver_used": total - free,
        }


class MemoryProfile:
    """Records memory at the end of every phase. Some 30 microseconds a phase on the CPU."""

    def __init__(self, rank: int, device: str | torch.device) -> None:
        """Create a profile.

        Args:
            rank: Global rank, for the records.
            device: Where the rank computes; CUDA is measured through torch, anything else as the process.
        """
        self._rank = rank
        self._device = str(device)
        self._memory = _CudaMemory(self._device) if self._device.startswith("cuda") else _CpuMemory()
        self._open_phase: Phase | None = None
        self._num_runs: dict[Phase, int] = {}
        self._last: dict[Phase, dict[str, int]] = {}
        self._max: dict[Phase, dict[str, int]] = {}

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Measure the block. Phases do not nest, since each resets the peak.

        Raises:
            ValueError: There is no such phase.
            RuntimeError: Another phase is open.
        """
        if name not in PHASES:
            raise ValueError(f"got the phase {name!r}, expected one of {', '.join(PHASES)}")
        if self._open_phase is not None:
            raise RuntimeError(f"phase {name!r} was opened inside {self._open_phase!r}; phases do not nest")
        self._open_phase = name
        self._memory.reset_peak()
        try:
            yield
        finally:
            self._open_phase = None
            self._record(name)

    def _record(self, name: Phase) -> None:
        run = self._num_runs.get(name, 0)
        memory = self._memory.read(run)
        self._num_runs[name] = run + 1
        self._last.setdefault(name, {}).update(memory)
        highest = self._max.setdefault(name, {})
        for measure, num_bytes in memory.items():
            if num_bytes > highest.get(measure, -1):
                highest[measure] = num_bytes

    def records(self) -> list[MemoryRecord]:
        """Return one record for every phase that ran, in the order of `PHASES`."""
        return [
            MemoryRecord(
                rank=self._rank,
                phase=phase,
                device=self._device,
                num_runs=self._num_runs[phase],
                peak_bytes=self._max[phase][self._memory.peak],
                peak_scope="phase" if self._memory.is_peak_by_phase else "process",
                last=dict(self._last[phase]),
                max=dict(self._max[phase]),
            )
            for phase in PHASES
            if phase in self._num_runs
        ]


def write_memory(path: Path, records: Iterable[MemoryRecord]) -> None:
    """Write the records of all ranks to a file (memory.jsonl), replacing it in one step."""
    write_json_lines(path, (record.to_dict() for record in records))


def read_memory(path: Path) -> list[MemoryRecord]:
    """Read what `write_memory` wrote.

    Raises:
        DataError: A line is not a memory record.
    """
    try:
        return [MemoryRecord(**line) for line in read_json_lines(path)]
    except TypeError as error:
        raise DataError(
            f"{path}: a line is not a memory record ({error}). Write the file again with a new run."
        ) from error


def print_memory(records: Sequence[MemoryRecord], console: Console) -> None:
    """Print the peaks as a table of phases by ranks, in GiB, the highest marked with a star."""
    if not records:
        return
    peaks = {(record.phase, record.rank): record.peak_bytes for record in records}
    ranks = sorted({record.rank for record in records})
    highest = max(peaks.values())
    table = Table("phase", title="Peak memory, GiB")
    for rank in ranks:
        table.add_column(f"rank {rank}", justify="right")
    for phase in PHASES:
        row = [peaks.get((phase, rank)) for rank in ranks]
        if any(peak is not None for peak in row):
            table.add_row(phase, *(_format_peak(peak, highest) for peak in row))
    console.print(table)
    console.print(f"Peak: {describe_peaks(records)}. The highest is marked *.")


def _format_peak(peak: int | None, highest: int) -> str:
    if peak is None:
        return "-"
    return f"[bold]{peak / GIB:.2f} *[/bold]" if peak == highest else f"{peak / GIB:.2f}"


def describe_peaks(records: Sequence[MemoryRecord]) -> str:
    """Say in words what the peaks of these records are peaks of."""
    if all(record.device.startswith("cuda") for record in records):
        return "allocated on the device within the phase"
    if all(record.peak_scope == "phase" for record in records):
        return "resident memory of the process within the phase"
    return "the process's high-water mark since its start"
