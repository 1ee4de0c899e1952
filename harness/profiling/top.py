"""The table of what took how long, as text: `<run>/profile/top.txt`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.profiling.summary import FlopsCheck, Profile, RankProfile

NUM_OPERATORS = 25
NUM_GAPS = 10
NAME_WIDTH = 64


def format_top(profile: Profile) -> str:
    """The tables of all ranks, rank 0's operators first."""
    steps = ", ".join(map(str, profile.steps))
    lines = [
        f"Steps {steps} (asked for: {profile.asked}), {profile.world_size} ranks. Seconds over all of these steps."
    ]
    lines += [f"Note: {note}" for note in profile.notes]
    for rank in profile.ranks:
        lines += ["", *_format_rank(rank)]
    if profile.flops is not None:
        lines += ["", *_format_flops(profile.flops)]
    return "\n".join(lines) + "\n"


def _format_rank(rank: RankProfile) -> Iterator[str]:
    trace = rank.trace or f"no trace here: {rank.trace_note}"
    yield f"== rank {rank.rank} on {rank.host}, {rank.device} ({trace}) =="
    whole = rank.step_time_s
    yield from _align(
        [("time", "s", "share")]
        + [
            (name, f"{seconds:.6f}", _percent(seconds, whole))
            for name, seconds in (
                ("steps", whole),
                ("operators", rank.operator_s),
                ("communication, exposed", rank.communication_exposed_s),
                ("gaps", rank.gap_s),
            )
        ]
    )
    yield ""
    yield from _align(
        [("part", "s", "share", "operators s", "exposed s", "gaps s")]
        + [
            (
                one.part,
                f"{one.time_s:.6f}",
                _percent(one.time_s, whole),
                f"{one.operator_s:.6f}",
                f"{one.communication_exposed_s:.6f}",
                f"{one.gap_s:.6f}",
            )
            for one in rank.parts
        ]
    )
    yield ""
    yield from _align(
        [("operator", "self s", "share", "calls", "most of it in")]
        + [
            (_shorten(one.name), f"{one.self_s:.6f}", _percent(one.self_s, whole), f"{one.calls}", one.part)
            for one in rank.operators[:NUM_OPERATORS]
        ]
        + _rest(rank)
    )
    yield ""
    yield from _align(
        [("collective", "calls", "s", "exposed s", "MB in")]
        + [
            (
                one.collective,
                f"{one.calls}",
                f"{one.time_s:.6f}",
                f"{one.exposed_s:.6f}",
                "unknown" if one.bytes is None else f"{one.bytes / 1e6:.3f}",
            )
            for one in rank.communication
        ]
    )
    yield ""
    yield from _align(
        [("longest gaps", "ms", "step", "starts at ms", "after", "before")]
        + [
            (
                one.part,
                f"{1e3 * one.time_s:.3f}",
                f"{one.step}",
                f"{1e3 * one.start_s:.3f}",
                _shorten(one.after or "-", 40),
                _shorten(one.before or "-", 40),
            )
            for one in rank.gaps[:NUM_GAPS]
        ]
    )


def _rest(rank: RankProfile) -> list[tuple[str, str, str, str, str]]:
    rest = rank.operators[NUM_OPERATORS:]
    if not rest:
        return []
    seconds, calls = sum(one.self_s for one in rest), sum(one.calls for one in rest)
    return [("all others", f"{seconds:.6f}", _percent(seconds, rank.step_time_s), f"{calls}", "")]


def _format_flops(flops: FlopsCheck) -> Iterator[str]:
    yield f"== FLOPs of one forward pass: step {flops.step}, first micro-batch of rank 0 =="
    yield from _align(
        [
            ("counted by", "GFLOP"),
            ("harness, matrix products", f"{flops.ours / 1e9:.6f}"),
            ("DeepSpeed, matrix products", f"{flops.deepspeed_products / 1e9:.6f}"),
            ("DeepSpeed, all", f"{flops.deepspeed / 1e9:.6f}"),
        ]
    )
    yield f"DeepSpeed's products are {flops.ratio:.3f} times ours: {flops.reason}"


def _percent(seconds: float, whole: float) -> str:
    return f"{100 * seconds / whole:.1f} %" if whole else "-"


def _shorten(name: str, width: int = NAME_WIDTH) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as columns: numbers to the right, the first column and words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_text = [
        column == 0 or rows[0][column] in ("most of it in", "after", "before")
        for column in range(len(widths))
    ]
    for row in rows:
        cells = (
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        )
        yield "  ".join(cells).rstrip()
