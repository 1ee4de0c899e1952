"""Errors of runs against the reference, and what is allowed.

In float64 every matrix of every step on every rank is held to 1e-10 of its own norm. In bf16 the yardstick is the
error that bf16 itself makes: that of the same examples run alone, in bf16, with their gradients summed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.exactness.cases import Case, Float64Array, Precision, Step
from bench.exactness.reference import run_alone

TOLERANCE = 1e-10
"""Relative error of loss and gradient in float64."""

NORM_TOLERANCE = 1e-6
"""Of the reported norm, which DeepSpeed keeps in float32 at stages 1 and 2, and so of steps that are clipped by it."""

BF16_FACTOR = 1.5
"""How many times the error of bf16 alone is allowed in bf16."""

BF16_LOSS_TOLERANCE = 2.0**-8
"""Relative error of the loss in bf16: the distance between neighbouring numbers."""

CONTROL_FLOOR = 1e-8
"""Least error of a negative control: a hundred times what is allowed."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a run is from the reference, the worst over steps and ranks.

    Attributes:
        loss: Relative.
        evaluation: Relative, the worst of the mean eval loss and of each task's.
        grad_norm: Relative.
        gradient: Norm of the difference over the norm, of the whole gradient.
        matrix: The same of the worst single matrix.
        alone: `gradient` of the examples alone in the run's own precision: what that precision costs. 0 for float64.
    """

    loss: float
    evaluation: float
    grad_norm: float
    gradient: float
    matrix: float
    alone: float

    def within_bounds(self, case: Case) -> bool:
        """Whether the run computed the same as the reference, as far as its precision goes."""
        if case.precision == "float64":
            allowed = TOLERANCE if case.optimizer == "descent" else NORM_TOLERANCE
            exact = all(error <= allowed for error in (self.loss, self.evaluation, self.matrix))
            return exact and self.grad_norm <= NORM_TOLERANCE
        losses_agree = self.loss <= BF16_LOSS_TOLERANCE and self.evaluation <= BF16_LOSS_TOLERANCE
        return losses_agree and self.gradient <= BF16_FACTOR * self.alone


class Reference:
    """The reference steps of cases, each computed once for all cases with the same rows in each step."""

    def __init__(self, run: Callable[[Case, Precision], list[Step]] = run_alone) -> None:
        self._run = run
        self._known: dict[object, list[Step]] = {}

    def steps(self, case: Case, precision: Precision = "float64") -> list[Step]:
        """What the case should give."""
        key = (case.data, case.rows_per_step, case.steps, case.dropout, case.optimizer, precision)
        if key not in self._known:
            self._known[key] = self._run(case, precision)
        return self._known[key]

    def judge(self, case: Case, ranks: Sequence[Sequence[Step]]) -> Errors:
        """Compare a run with the reference.

        Args:
            case: The run.
            ranks: For each rank its steps.
        """
        wanted = self.steps(case)
        found = [
            measure_step(step, right) for steps in ranks for step, right in zip(steps, wanted, strict=True)
        ]
        if case.precision != "float64":
            alone = zip(self.steps(case, case.precision), wanted, strict=True)
            cost = max(measure_step(step, right).gradient for step, right in alone)
            found = [replace(errors, alone=cost) for errors in found]
        return worst(found)


def measure_step(step: Step, right: Step) -> Errors:
    """The errors of one step on one rank."""
    assert step.gradients.keys() == right.gradients.keys()
    wanted = list(right.gradients.values())
    wrong = [step.gradients[name] - gradient for name, gradient in right.gradients.items()]
    return Errors(
        loss=abs(step.loss / right.loss - 1),
        evaluation=compare_losses(step.eval_losses, right.eval_losses),
        grad_norm=abs(step.grad_norm / right.grad_norm - 1),
        gradient=norm(wrong) / norm(wanted),
        matrix=max(
            norm([difference]) / norm([gradient]) for difference, gradient in zip(wrong, wanted, strict=True)
        ),
        alone=0.0,
    )


def compare_losses(found: Sequence[float], wanted: Sequence[float]) -> float:
    """The largest relative difference; infinite where one is a number and the other is not."""
    pairs = list(zip(found, wanted, strict=True))
    if any(math.isnan(one) != math.isnan(other) for one, other in pairs):
        return math.inf
    return max(abs(one / other - 1) for one, other in pairs if not math.isnan(other))


def norm(arrays: Sequence[Float64Array]) -> float:
    """Euclidean norm of some arrays as one vector."""
    return float(np.linalg.norm(np.concatenate([array.ravel() for array in arrays])))


def worst(found: Sequence[Errors]) -> Errors:
    """The largest of each error. A number that is none counts as the largest."""

    def largest(values: list[float]) -> float:
        return max(values, key=lambda value: float("inf") if math.isnan(value) else value)

    names = ("loss", "evaluation", "grad_norm", "gradient", "matrix", "alone")
    return Errors(*(largest([getattr(errors, name) for errors in found]) for name in names))
