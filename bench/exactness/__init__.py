"""Do packed, shared, accumulated, multi-rank steps compute what every example alone in one process computes?

::

    cases.py       which runs: ranks x ZeRO stage x micro-steps, other choices in all pairs; the negative controls
    toys.py        model and rows
    production.py  a run through harness.data, harness.loss, harness.engine and DeepSpeed, up to the moved weights
    wrong.py       what the negative controls do wrong
    reference.py   every example alone, float64, one process
    compare.py     errors and bounds
    ranks.py       starts the ranks
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from bench.exactness.cases import RANKS, Case, make_controls, make_matrix, make_quick_matrix, pairs_of
from bench.exactness.compare import (
    BF16_FACTOR,
    CONTROL_FLOOR,
    NORM_TOLERANCE,
    TOLERANCE,
    Errors,
    Reference,
)
from bench.exactness.ranks import run_on_ranks
from bench.record import Outcome, WrongResultError, summarize
from preprocess.terminal import make_console

Result = tuple[Case, Errors]


@dataclass(frozen=True, slots=True)
class ExactnessOutcome(Outcome):
    """The outcome with every run in it.

    Attributes:
        runs: Each run's choices and errors.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)


def measure(*, quick: bool) -> ExactnessOutcome:
    """Run the matrix and the negative controls, print them as a table on stderr.

    Raises:
        WrongResultError: A run differs from the reference by more than its precision explains, or a negative
            control does not.
    """
    cases = make_quick_matrix() if quick else make_matrix()
    results = run_everything([*cases, *make_controls()])
    print_results(results, make_console(error=True))
    check_results(results)
    return summarize_results(results)


def run_everything(cases: Sequence[Case]) -> list[Result]:
    """Run cases on as many ranks as each wants, started once a number, and compare them with the reference."""
    with patch.dict(
        os.environ, DS_ACCELERATOR="cpu"
    ):  # or DeepSpeed looks for another, and says that it found none
        from bench.exactness.production import run_cases

    reference, results = Reference(), []
    for world_size in RANKS:
        part = [case for case in cases if case.ranks == world_size]
        ranks = run_on_ranks(run_cases, world_size, part) if part else []
        results += [
            (case, reference.judge(case, [rank[index] for rank in ranks])) for index, case in enumerate(part)
        ]
    return results


def is_control(case: Case) -> bool:
    """Whether a run is there to be found wrong."""
    return case.sabotage is not None


def check_results(results: Sequence[Result]) -> None:
    """Refuse a matrix with a wrong run in it, or with a control that was not found out.

    Raises:
        WrongResultError: The first of them.
    """
    for case, errors in results:
        if is_control(case) and not errors.matrix > CONTROL_FLOOR:
            raise WrongResultError(f"not found out: {case}: {errors}")
        if not is_control(case) and not errors.within_bounds(case):
            raise WrongResultError(f"not the same as every example alone: {case}: {errors}")


def summarize_results(results: Sequence[Result]) -> ExactnessOutcome:
    """The worst errors as facts, their spread as figures, every run in a list."""
    right = [case for case, _ in results if not is_control(case)]
    controls = [(case, errors) for case, errors in results if is_control(case)]
    rough = [errors for case, errors in results if not is_control(case) and case.precision == "bf16"]
    clipped = [errors for case, errors in results if case.optimizer == "adamw"]
    exact = [
        errors
        for case, errors in results
        if not is_control(case) and case.precision == "float64" and case.optimizer == "descent"
    ]
    return ExactnessOutcome(
        baseline="every example alone, one process, float64",
        figures={
            "float64: gradient of the worst matrix": summarize(
                [errors.matrix for errors in exact], "relative error"
            ),
            "float64: loss": summarize([errors.loss for errors in exact], "relative error"),
            "bf16: gradient": summarize([errors.gradient for errors in rough], "relative error"),
            "bf16: gradient / the same of examples alone in bf16": summarize(
                [errors.gradient / errors.alone for errors in rough], ""
            ),
        },
        ratios={},
        facts={
            "runs in float64": len(exact),
            "runs in bf16": len(rough),
            "pairs of choices that met": len(set().union(*(pairs_of(case) for case in right))),
            "float64: largest error of a gradient matrix": max(errors.matrix for errors in exact),
            "float64: largest error of a loss": max(errors.loss for errors in exact),
            "float64: largest error of an eval loss": max(errors.evaluation for errors in exact),
            "float64: largest error of a gradient norm": max(errors.grad_norm for errors in exact),
            "float64: allowed": TOLERANCE,
            "AdamW, clipped by the norm: runs in float64": len(clipped),
            "AdamW, clipped by the norm: largest error of a matrix's way": max(
                errors.matrix for errors in clipped
            ),
            "float64: allowed of a gradient norm, and of what is clipped by it": NORM_TOLERANCE,
            "bf16: largest error / that of examples alone": max(
                errors.gradient / errors.alone for errors in rough
            ),
            "bf16: allowed": BF16_FACTOR,
            **{f"control, {case.sabotage}: error": errors.gradient for case, errors in controls},
        },
        runs=[asdict(case) | asdict(errors) for case, errors in results],
    )


def print_results(results: Sequence[Result], console: Console) -> None:
    """One line a run."""
    table = Table(title="Against every example alone, in float64: worst relative errors over steps and ranks")
    for name in ("ranks", "ZeRO", "micro", "choices"):
        table.add_column(name)
    for name in ("loss", "eval", "gradient", "matrix", "alone"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for case, errors in results:
        shape = [str(value) for value in (case.ranks, case.stage, case.micro_steps)]
        values = (errors.loss, errors.evaluation, errors.gradient, errors.matrix, errors.alone)
        numbers = [f"{value:.0e}" for value in values]
        table.add_row(*shape, describe_choices(case), *numbers, describe_verdict(case, errors))
    console.print(table)


def describe_choices(case: Case) -> str:
    """All but ranks, stage and micro-steps."""
    words = [case.precision, case.data, case.attention, case.lora_kernel, "flat" if case.flat else "padded"]
    words += [f"dropout {case.dropout}"] if case.dropout else []
    words += [f"recompute {case.recompute}"] if case.recompute else []
    words += [case.optimizer] if case.optimizer != "descent" else []
    return ", ".join(words).replace("_", " ")


def describe_verdict(case: Case, errors: Errors) -> str:
    """Equal or not; for a control, what is wrong with it and whether that shows."""
    if case.sabotage is not None:
        return f"{case.sabotage}: {'found' if errors.matrix > CONTROL_FLOOR else 'NOT FOUND'}"
    return "equal" if errors.within_bounds(case) else "NOT EQUAL"
