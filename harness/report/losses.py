"""The report's table of losses: by task, at the first and the last evaluation."""

from __future__ import annotations

import math

import numpy as np

from harness.report.charts import take
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table

LAST_SHARE = 0.1
"""Share of the steps at the end that a last train loss is the mean of."""


def tabulate_losses(run: RunRecords) -> list[Table]:
    """Tabulate the eval loss, whole and by task, of the first and the last evaluation, and the last train loss."""
    tasks = dict.fromkeys(task for line in [*run.evals, *run.train] for task in (line.get("by_task") or {}))
    if not tasks and not run.evals:
        return []
    whole = ["all", *_evals([line.get("loss") for line in run.evals]), _last(take(run.train, "loss"))]
    rows = [whole]
    for task in tasks:
        evals = [(line.get("by_task") or {}).get(task) for line in run.evals]
        train = [(line.get("by_task") or {}).get(task) or {} for line in run.train]
        rows.append([task, *_evals(evals), _last(take(train, "loss"))])
    columns = ["", "eval, first", "eval, last", "train, last"]
    note = f"Nats a supervised token. Train: mean of the last {LAST_SHARE:.0%} of steps."
    return [Table("Loss by task", columns, rows, note=note)]


def _evals(losses: list[float | None]) -> list[str]:
    """The first loss, where there are two or more, and the last."""
    known = [loss for loss in losses if loss is not None]
    first = f"{known[0]:.3f}" if len(known) > 1 else NOTHING
    return [first, f"{known[-1]:.3f}" if known else NOTHING]


def last_mean(losses: list[float]) -> float | None:
    """Mean of the last tenth of the finite losses; None without any."""
    known = [loss for loss in losses if math.isfinite(loss)]
    return float(np.mean(known[-max(1, round(LAST_SHARE * len(known))) :])) if known else None


def _last(losses: list[float]) -> str:
    mean = last_mean(losses)
    return NOTHING if mean is None else f"{mean:.3f}"
