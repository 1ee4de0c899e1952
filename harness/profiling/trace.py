"""Read a trace that torch.profiler wrote: the steps, their parts, and what ran when. No torch is needed.

On a CPU operators run on the thread that trains, and collectives (`gloo:all_reduce`) on threads of their own. On CUDA
what counts is what runs on the device: kernels and copies, each belonging to the part in which the host launched it.

Source of the format: https://github.com/pytorch/kineto, output_json.cpp; times are microseconds.
"""

from __future__ import annotations

import gzip
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from preprocess.errors import DataError

STEP_RANGE = "ProfilerStep#"
"""Before a step's number; TensorBoard's plugin finds steps by this name."""

PART_RANGE = "part "
"""Before a part's name."""

OTHER = "other"
"""What lies in a step and in none of its parts."""

DEVICE_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")

_BACKENDS = re.compile(r"^(?:gloo:|nccl:|c10d::|ncclDevKernel_|ncclKernel_)_?")
_NAMES = (
    *("all_reduce", "all_gather", "all_to_all", "reduce_scatter", "send_recv", "broadcast", "barrier"),
    *("reduce", "gather", "scatter", "send", "recv"),
)
_COLLECTIVES = {name.replace("_", ""): name for name in _NAMES}
_BYTES = {
    "double": 8, "float": 4, "c10::half": 2, "c10::bfloat16": 2, "long int": 8, "int": 4, "short int": 2,
    "signed char": 1, "unsigned char": 1, "bool": 1,
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
"""Bytes of a number, by torch's names for its type in C++ and elsewhere."""


@dataclass(frozen=True, slots=True)
class Span:
    """A named time, in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that runs.

    Attributes:
        name: The operator, kernel or collective.
        start: Microseconds.
        end: Microseconds.
        collective: As in "all_reduce", or None of what computes.
        is_call: Whether it counts as a call: of the two entries of a collective on a CPU only one does.
        num_bytes: Of a collective, what this rank puts in, where that is known.
        part: The part that it belongs to, or None for the one in which it runs.
    """

    name: str
    start: float
    end: float
    collective: str | None = None
    is_call: bool = True
    num_bytes: int | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What a breakdown needs of a trace.

    Attributes:
        steps: Whose names are the steps' numbers, in order of time.
        parts: Of all steps, in order of time; they do not overlap: where one lies in another, the inner one counts.
        activities: In any order.
        on_device: Whether they are those of a GPU.
    """

    steps: tuple[Span, ...]
    parts: tuple[Span, ...]
    activities: tuple[Activity, ...]
    on_device: bool


def read_trace(path: Path) -> Trace:
    """Read a trace, compressed or not.

    Raises:
        DataError: It is not a trace, or has no step.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            events = json.load(file)["traceEvents"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a whole trace ({type(error).__name__}: {error})") from error
    return parse_trace(events, str(path))


def parse_trace(events: Sequence[dict[str, Any]], where: str = "trace") -> Trace:
    """Take the events of a trace apart.

    Raises:
        DataError: It has no step.
    """
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    ranges = [event for event in whole if event.get("cat") == "user_annotation"]
    steps = [event for event in ranges if event["name"].startswith(STEP_RANGE)]
    if not steps:
        raise DataError(f"{where}: no step in this trace")
    thread = steps[0]["tid"]
    parts = [event for event in ranges if event["name"].startswith(PART_RANGE) and event["tid"] == thread]
    part_spans = flatten(_spans(parts, PART_RANGE))
    on_device = any(event.get("cat") in DEVICE_CATEGORIES for event in whole)
    activities = _read_device(whole, part_spans) if on_device else _read_host(whole, thread)
    return Trace(_spans(steps, STEP_RANGE), part_spans, tuple(activities), on_device)


def _spans(events: Iterable[dict[str, Any]], prefix: str) -> tuple[Span, ...]:
    spans = (Span(e["name"].removeprefix(prefix), e["ts"], e["ts"] + e["dur"]) for e in events)
    return tuple(sorted(spans, key=lambda span: span.start))


def flatten(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Nested spans as ones that do not overlap, the innermost at each instant."""
    result, opened, since = list[Span](), list[Span](), 0.0

    def close_until(time: float) -> None:
        nonlocal since
        while opened and opened[-1].end <= time:
            last = opened.pop()
            if last.end > since:
                result.append(Span(last.name, since, last.end))
            since = max(since, last.end)

    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        close_until(span.start)
        if opened and span.start > since:
            result.append(Span(opened[-1].name, since, span.start))
        since = span.start
        opened.append(span)
    close_until(float("inf"))
    return tuple(result)


def _read_host(events: Iterable[dict[str, Any]], thread: object) -> Iterable[Activity]:
    for event in events:
        name, start = event["name"], event["ts"]
        if event.get("cat") == "cpu_op" and event["tid"] == thread:
            yield Activity(
                name,
                start,
                start + event["dur"],
                name_collective(name),
                is_call=not name.startswith("c10d::"),
            )
        elif name.startswith("gloo:"):
            yield Activity(
                name,
                start,
                start + event["dur"],
                name_collective(name),
                num_bytes=count_bytes(event.get("args", {})),
            )


def _read_device(events: Sequence[dict[str, Any]], parts: Sequence[Span]) -> Iterable[Activity]:
    launched = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event.get("args", {})
    }
    starts = [part.start for part in parts]
    for event in events:
        if event.get("cat") not in DEVICE_CATEGORIES:
            continue
        args, start = event.get("args", {}), event["ts"]
        launch = launched.get(args.get("correlation"))
        name = event["name"]
        yield Activity(
            name,
            start,
            start + event["dur"],
            name_collective(name) if name.startswith("nccl") else None,
            num_bytes=count_bytes(args),
            part=None if launch is None else part_at(parts, starts, launch),
        )


def part_at(parts: Sequence[Span], starts: Sequence[float], time: float) -> str:
    """The part in which a moment lies; `starts` are theirs."""
    index = bisect_right(starts, time) - 1
    return parts[index].name if index >= 0 and time < parts[index].end else OTHER


def name_collective(name: str) -> str | None:
    """A collective's kind as torch.distributed spells it, "all_reduce", whatever the backend calls it; or None."""
    backend = _BACKENDS.match(name)
    if backend is None:
        return None
    own = name[backend.end() :]
    squeezed = own.replace("_", "").lower()
    return next((kind for start, kind in _COLLECTIVES.items() if squeezed.startswith(start)), own)


def count_bytes(args: dict[str, Any]) -> int | None:
    """The bytes that a rank puts into a collective, from the arguments of its event; None where they do not tell."""
    if "In msg nelems" in args and args.get("dtype") in _BYTES:
        return int(args["In msg nelems"]) * _BYTES[args["dtype"]]
    kinds, shapes = args.get("Input type"), args.get("Input Dims")
    if not kinds or not shapes or kinds[0] not in _BYTES:
        return None
    return _BYTES[kinds[0]] * _count_numbers(shapes[0])


def _count_numbers(shape: Sequence[Any]) -> int:
    """Numbers in a tensor of a shape, or in a list of such."""
    if shape and isinstance(shape[0], list):
        return sum(_count_numbers(one) for one in shape)
    return prod(shape)
