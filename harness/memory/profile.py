"""Memory by phase of a run on one rank: what each phase holds at its end, and its peak.

On CUDA the figures are the caching allocator's (allocated, reserved, peak of both within the phase) and the
driver's (used on the whole device, by every process on it). On the CPU they are the process's: resident set
(RSS), its share of pages that others map too (PSS), the highest RSS within the phase, and what malloc has handed out
(allocated; torch's tensors, and all else of the process). All in bytes. See `harness.memory.readers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.json_lines import read_json_lines, write_json_lines
from harness.memory.case import PARTS, PHASES, Part, Phase
from harness.memory.readers import open_memory
from harness.memory.timeline import MemoryTimeline, TimelineRecorder
from preprocess.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

MEMORY_FILE = "memory.jsonl"
GIB = 2**30

NO_COUNT = (
    "This machine's C library does not tell what malloc has handed out (mallinfo2), or another allocator stands in its "
    "place: allocated bytes and the timeline of a step are left out."
)


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
            driver_used; CPU: rss, peak_rss, and, where they can be told, allocated and pss.
        max: The highest of each measure over all ends.
        base_bytes: What was allocated before the run's first phase: nothing on CUDA, Python and its libraries on
            the CPU.
        parts: Bytes of the tensors that are state, by part, at one of the last ends; {} before there is an engine.
    """

    rank: int
    phase: str
    device: str
    num_runs: int
    peak_bytes: int
    peak_scope: Literal["phase", "process"]
    last: dict[str, int]
    max: dict[str, int]
    base_bytes: int = 0
    parts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no record.

        Raises:
            TypeError: A field is of another kind, or a phase or a part is none that there is.
        """
        measures = [self.last, self.max, self.parts]
        if self.phase not in PHASES or not all(isinstance(one, dict) for one in measures):
            raise TypeError(f"phase {self.phase!r}")
        if unknown := set(self.parts) - set(PARTS):
            raise TypeError(f"part {', '.join(sorted(unknown))}")
        if not all(type(value) is int for one in measures for value in one.values()):
            raise TypeError("bytes that are no whole number")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: a line of memory.jsonl."""
        return asdict(self)


class MemoryProfile:
    """Records memory at the end of every phase, and within the steps that are looked at closely.

    Some 30 microseconds a phase on the CPU, and where it looks closely what malloc's count takes besides.
    """

    def __init__(self, rank: int, device: str | torch.device) -> None:
        """Create a profile.

        Args:
            rank: Global rank, for the records.
            device: Where the rank computes; CUDA is measured through torch, anything else as the process.
        """
        self._rank = rank
        self._device = str(device)
        self._memory = open_memory(self._device)
        base = self._memory.read_allocated()
        self._base_bytes = base or 0
        self._timeline = None if base is None else TimelineRecorder(rank, self.read_allocated)
        self._layers: Sequence[nn.Module] = ()
        self._measure_parts: Callable[[], Mapping[Part, int]] | None = None
        self._looks_closely = True
        self._open_phase: Phase | None = None
        self._num_runs: dict[Phase, int] = {}
        self._last: dict[Phase, dict[str, int]] = {}
        self._max: dict[Phase, dict[str, int]] = {}
        self._parts: dict[Phase, Mapping[Part, int]] = {}

    def read_allocated(self) -> int:
        """Bytes that are allocated now; 0 where that cannot be told."""
        return self._memory.read_allocated() or 0

    def watch(self, layers: Sequence[nn.Module], measure_parts: Callable[[], Mapping[Part, int]]) -> None:
        """Look into an engine from now on.

        Args:
            layers: The model's decoder layers, whose boundaries are points of a timeline.
            measure_parts: Bytes of its state by part, see `harness.memory.measured`.
        """
        self._layers, self._measure_parts = layers, measure_parts

    def start_step(self, step: int, *, closely: bool) -> None:
        """Begin an optimizer step.

        Args:
            step: Its number, from 1.
            closely: Whether to take its timeline, and figures that take long; a step that failed is dropped.
        """
        self.end_step()
        self._looks_closely = closely
        if closely and self._timeline is not None:
            self._timeline.start(step, self._layers)

    def end_step(self) -> None:
        """End an optimizer step, if there is one. What comes before the next one is looked at closely."""
        self._looks_closely = True
        if self._timeline is not None:
            self._timeline.stop()

    @property
    def timeline(self) -> MemoryTimeline | None:
        """The last step that was looked at closely; None before it, and where allocated bytes cannot be told."""
        return None if self._timeline is None else self._timeline.last

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
        if self._timeline is not None:
            self._timeline.enter(name)
        try:
            yield
        finally:
            self._open_phase = None
            self._record(name)
            if self._timeline is not None:
                self._timeline.leave(name)

    def _record(self, name: Phase) -> None:
        run = self._num_runs.get(name, 0)
        memory = self._memory.read(run, closely=self._looks_closely)
        self._num_runs[name] = run + 1
        self._last.setdefault(name, {}).update(memory)
        highest = self._max.setdefault(name, {})
        for measure, num_bytes in memory.items():
            if num_bytes > highest.get(measure, -1):
                highest[measure] = num_bytes
        # At the runs 0, 1, 2, 4, 8, …: the last one lies in the second half of them, and all together cost little.
        if self._measure_parts is not None and run & (run - 1) == 0:
            self._parts[name] = self._measure_parts()

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
                base_bytes=self._base_bytes,
                parts={str(part): size for part, size in self._parts.get(phase, {}).items()},
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
    if not all("allocated" in record.last for record in records):
        console.print(NO_COUNT)


def _format_peak(peak: int | None, highest: int) -> Text:
    if peak is None:
        return Text("-")
    return Text(f"{peak / GIB:.2f} *", "bold") if peak == highest else Text(f"{peak / GIB:.2f}")


def describe_peaks(records: Sequence[MemoryRecord]) -> str:
    """Say in words what the peaks of these records are peaks of."""
    if all(record.device.startswith("cuda") for record in records):
        return "allocated on the device within the phase"
    if all(record.peak_scope == "phase" for record in records):
        return "resident memory of the process within the phase"
    return "the process's high-water mark since its start"
