"""What a profile adds up to, and the file that holds it: `<run>/profile/summary.json`.

::

    {
      "format_version": 1,
      "asked": "10:13",                  steps 10, 11, 12, as metrics.jsonl numbers them
      "steps": [10, 11, 12],             those that were profiled; a run that was stopped has fewer
      "world_size": 3,
      "ranks": [
        {
          "rank": 0, "host": "node1", "device": "cpu" | "cuda:0",
          "trace": "rank0.trace.json.gz" | null,      in the same folder; null: not here, see "trace_note"
          "trace_bytes": 1234567, "trace_note": null | "why the trace is not here, or not whole",
          "steps": [{"step": 10, "time_s": 0.5}, …],  from before its data to after its line in metrics.jsonl
          "step_time_s": 1.5,                         their sum, which the next three add up to exactly
          "operator_s": 1.2,                          an operator (on CUDA a kernel or a copy) computes
          "communication_exposed_s": 0.1,             a collective runs and nothing computes
          "gap_s": 0.2,                               neither: on CUDA the device is idle, on a CPU the thread that
                                                      trains is outside of any operator (Python, say)
          "between_steps_s": 0.1,                     from a step's end to the next one's start; not in the others
          "parts": [{"part": "forward", "time_s": 0.4, "operator_s": 0.3,
                     "communication_exposed_s": 0.0, "gap_s": 0.1}, …],    they add up to the four figures above
          "operators": [{"name": "aten::addmm", "self_s": 0.5, "share": 0.33, "calls": 120,
                         "part": "forward"}, …],      the longest first; "share" is of step_time_s, "part" the one
                                                      with most of it. They add up to operator_s; small ones are one
                                                      line, "(171 others)"
          "communication": [{"collective": "all_reduce", "calls": 6, "time_s": 0.2, "exposed_s": 0.1,
                             "bytes": 4096 | null}, …],   bytes that this rank put in. "exposed_s" adds up to
                                                          communication_exposed_s
          "gaps": [{"step": 10, "part": "data", "start_s": 0.01, "time_s": 0.05,
                    "after": "aten::copy_" | null, "before": null}, …]     the longest; start_s is since the step began
        }, …
      ],
      "notes": ["…"],                    what the profile lacks, in words
      "flops": null | {                  one forward pass of rank 0's first micro-batch
        "step": 12, "ours": 1.0e9, "deepspeed": 0.8e9, "deepspeed_products": 0.7e9, "ratio": 0.7, "reason": "…"
      }
    }

Times are seconds; within a rank `parts` and `operators` take each instant once, so they add up whatever overlaps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preprocess.durable import write_text_durably
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

PROFILE_DIR = "profile"
SUMMARY_FILE = "summary.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class StepSpan:
    """A profiled step and its seconds."""

    step: int
    time_s: float


@dataclass(frozen=True, slots=True)
class PartTimes:
    """Where the time of a part went, in seconds; `time_s` is the sum of the rest."""

    part: str
    time_s: float
    operator_s: float
    communication_exposed_s: float
    gap_s: float


@dataclass(frozen=True, slots=True)
class OperatorTimes:
    """An operator's own seconds, without those of operators that it calls.

    Attributes:
        name: As torch names it; of a kernel its function.
        self_s: Seconds.
        share: Of the time of all profiled steps.
        calls: How often.
        part: The part of the step with most of its time.
    """

    name: str
    self_s: float
    share: float
    calls: int
    part: str


@dataclass(frozen=True, slots=True)
class CollectiveTimes:
    """A kind of collective.

    Attributes:
        collective: As in "all_reduce".
        calls: How often.
        time_s: From its start to its end, the wait for other ranks included.
        exposed_s: The part of it in which nothing computes.
        bytes: What this rank put in, or None where the trace does not tell.
    """

    collective: str
    calls: int
    time_s: float
    exposed_s: float
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nothing runs.

    Attributes:
        step: In which step.
        part: In which part of it.
        start_s: Seconds since the step's start.
        time_s: How long.
        after: The operator that had run before, or None.
        before: The one that comes next, or None.
    """

    step: int
    part: str
    start_s: float
    time_s: float
    after: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class RankProfile:
    """One rank's steps; the fields are told at the head of this module."""

    rank: int
    host: str
    device: str
    trace: str | None
    trace_bytes: int
    trace_note: str | None
    steps: tuple[StepSpan, ...]
    step_time_s: float
    operator_s: float
    communication_exposed_s: float
    gap_s: float
    between_steps_s: float
    parts: tuple[PartTimes, ...]
    operators: tuple[OperatorTimes, ...]
    communication: tuple[CollectiveTimes, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class FlopsCheck:
    """Two counts of the floating-point operations of one forward pass, a multiplication with its addition being two.

    Attributes:
        step: Whose first micro-batch on rank 0 it was.
        ours: From sizes, `harness.flops`: matrix products, padding included.
        deepspeed: DeepSpeed's FLOPs profiler, all that it counts.
        deepspeed_products: Of these the matrix products.
        ratio: DeepSpeed's products over ours.
        reason: Why they differ, or that they agree.
    """

    step: int
    ours: float
    deepspeed: float
    deepspeed_products: float
    ratio: float
    reason: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What `summary.json` holds."""

    asked: str
    steps: tuple[int, ...]
    world_size: int
    ranks: tuple[RankProfile, ...]
    notes: tuple[str, ...] = ()
    flops: FlopsCheck | None = None


def write_summary(path: Path, profile: Profile) -> None:
    """Write the file, replacing it in one step.

    Raises:
        NoSpaceError: The disk is full.
        DataError: It cannot be written.
    """
    values = {"format_version": FORMAT_VERSION, **asdict(profile)}
    write_text_durably(path, json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")


def read_summary(path: Path) -> Profile:
    """Read what `write_summary` wrote.

    Raises:
        DataError: It is not a profile, or of another format.
        OSError: It cannot be read.
    """
    try:
        return _parse(parse_json(path.read_text(encoding="utf-8")))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not the summary of a profile ({type(error).__name__}: {error}). Profile the run again, or remove "
            "the file"
        ) from error


def _parse(values: dict[str, Any]) -> Profile:
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"got format {version}, expected {FORMAT_VERSION}")
    flops = values["flops"]
    return Profile(
        asked=str(values["asked"]),
        steps=tuple(int(step) for step in values["steps"]),
        world_size=int(values["world_size"]),
        ranks=tuple(_parse_rank(rank) for rank in values["ranks"]),
        notes=tuple(str(note) for note in values["notes"]),
        flops=None if flops is None else FlopsCheck(**flops),
    )


def _parse_rank(values: dict[str, Any]) -> RankProfile:
    kinds: Sequence[tuple[str, Any]] = (
        ("steps", StepSpan),
        ("parts", PartTimes),
        ("operators", OperatorTimes),
        ("communication", CollectiveTimes),
        ("gaps", Gap),
    )
    lists = {name: tuple(kind(**one) for one in values[name]) for name, kind in kinds}
    return RankProfile(**{**values, **lists})
