"""The tables of a run's end that show how well its devices were used, and which rank waited for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.metering.ceilings import TERA, Ceilings, name_ceiling


def print_efficiency(measured: Mapping[str, Any], ceilings: Ceilings, console: Console) -> None:
    """Print FLOPs, their shares of peak and ceiling, and energy; nothing of what is not known.

    Args:
        measured: The summary's further fields, see `harness.metering.run_meter.RunMeter.finish`.
        ceilings: Of the run's devices.
        console: Where to.
    """
    table = Table("measure", title="Use of the devices, after warm-up")
    table.add_column("value", justify="right")
    for name, value in _describe(measured, ceilings):
        table.add_row(name, value)
    console.print(table)


def _describe(measured: Mapping[str, Any], ceilings: Ceilings) -> list[tuple[str, str]]:
    share = measured["mfu_of_ceiling"]
    rows = [
        ("matrix products, measured on the spot", f"{ceilings.matmul_flops_per_s / TERA:,.3g} TFLOP/s"),
        ("model FLOPs", _format(measured["model_flops"], ".3g")),
        ("hardware FLOPs", _format(measured["hardware_flops"], ".3g")),
        ("model FLOPs, the share " + name_ceiling(share or 0.0), _format(share, ".1%")),
        ("MFU, of the cards' dense peak", _format(measured["mfu"], ".1%")),
        ("HFU, of the cards' dense peak", _format(measured["hfu"], ".1%")),
        ("energy, the whole run", _format(measured["energy_j"], ",.0f", " J")),
        ("energy an example", _format(measured["joules_per_example"], ",.3g", " J")),
    ]
    return [(name, value) for name, value in rows if value]


def _format(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def print_time_by_rank(by_rank: Mapping[str, Any], console: Console) -> None:
    """Print the mean seconds of a step by part and rank; evaluation, saving and stalls are the whole run's.

    Args:
        by_rank: See `harness.metering.ranks.total_by_rank`.
        console: Where to.
    """
    parts: Mapping[str, list[float]] = by_rank["parts_s"]
    num_ranks = len(next(iter(parts.values()), []))
    if num_ranks < 2 or not by_rank["steps"]:
        return
    table = Table(
        "part", title=f"Seconds of a step, mean of {by_rank['steps']:,} (the last three: of the run)"
    )
    for rank in range(num_ranks):
        table.add_column(f"rank {rank}", justify="right")
    for part, seconds in parts.items():
        by = 1 if part in ("eval", "save", "stalls") else by_rank["steps"]
        table.add_row(part, *(f"{one / by:,.3f}" for one in seconds))
    console.print(table)
