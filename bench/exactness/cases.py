"""Which runs are compared with the reference: every rank, stage and accumulation, other choices in all pairs.

The full product would be thousands of runs. Ranks x ZeRO stage x micro-steps is taken whole, since there the gradients
are summed; the other choices are spread over those runs so that any two values of any two choices meet in one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.batch_plan import BatchPlan, StepTarget
from harness.config import OptimizerSettings
from harness.row_sizes import RowSizes
from preprocess.forest import PackedRow

Float64Array = npt.NDArray[np.float64]
Data = Literal["uneven", "unlabeled", "short", "last_partial"]
Precision = Literal["float64", "float32", "bf16"]
Sabotage = Literal[
    "leaking mask",
    "run-on positions",
    "mean of means",
    "dropped micro-step",
    "ranks not counted",
    "dropout by place",
    "float32",
]

DESCENT = OptimizerSettings(learning_rate=0.25, max_grad_norm=1e9)
"""Of plain gradient descent without clipping, whose steps are large enough that later steps notice."""

ADAMW = OptimizerSettings(learning_rate=0.02, max_grad_norm=0.5, weight_decay=0.1)
"""Of the harness's own optimizer, with gradients that are clipped."""

SEED = 5
"""Of dropout."""

NUM_TASKS = 6
"""Tasks that the rows' examples are of, and one without examples."""

RANKS = (1, 2, 3)
STAGES = (0, 1, 2, 3)
MICRO_STEPS = (1, 2, 3, 4)

CHOICES: dict[str, Sequence[Any]] = {
    "data": ("uneven", "unlabeled", "short", "last_partial"),
    "attention": ("flash", "sdpa", "eager"),
    "lora_kernel": ("lean", "peft"),
    "dropout": (0.0, 0.2),
    "recompute": (0, 1, "all"),
    "flat": (True, False),
}
"""The values of every other choice."""


@dataclass(frozen=True, slots=True)
class Case:
    """One training run of one or two steps.

    Attributes:
        ranks: Processes.
        stage: ZeRO stage.
        micro_steps: Micro-steps of an optimizer step.
        data: `uneven`: supervised tokens from 1 to dozens a row; `unlabeled`: every third row has none;
            `short`: the only step lacks a row, so that the last rank's last micro-batch is short or empty;
            `last_partial`: after a whole step, one of a single row, where the other ranks have nothing.
        attention: The kernel.
        lora_kernel: Whose forward pass the adapters take.
        dropout: On the adapters' inputs.
        flat: Whether a micro-batch is one long row, without padding.
        recompute: Layers that recompute their activations.
        optimizer: `descent`: weights move against their gradient, which can then be read from them; `adamw`: the
            harness's own, with clipping and decay.
        precision: Of model and engine.
        sabotage: What is done wrong on purpose, in a negative control.
    """

    ranks: int
    stage: int
    micro_steps: int
    data: Data = "uneven"
    attention: Literal["flash", "sdpa", "eager"] = "flash"
    lora_kernel: Literal["lean", "peft"] = "lean"
    dropout: float = 0.0
    recompute: int | Literal["all"] = 0
    flat: bool = True
    optimizer: Literal["descent", "adamw"] = "descent"
    precision: Precision = "float64"
    sabotage: Sabotage | None = None

    @property
    def settings(self) -> OptimizerSettings:
        """Of the optimizer."""
        return DESCENT if self.optimizer == "descent" else ADAMW

    @property
    def micro_batch_size(self) -> int:
        """Rows of a forward pass on one rank, so that a step has twelve rows (nine where that does not divide)."""
        return 12 // (self.micro_steps * self.ranks)

    @property
    def rows_per_step(self) -> int:
        """Rows of a whole step."""
        return self.micro_batch_size * self.micro_steps * self.ranks

    @property
    def num_rows(self) -> int:
        """Rows that there are."""
        return {"short": self.rows_per_step - 1, "last_partial": self.rows_per_step + 1}.get(
            self.data, 2 * self.rows_per_step
        )

    @property
    def steps(self) -> range:
        """The steps that are compared: all; in reduced precision the last alone, which starts from known weights."""
        num_steps = -(-self.num_rows // self.rows_per_step)
        return range(num_steps) if self.precision == "float64" else range(num_steps - 1, num_steps)

    def plan(self, rows: Sequence[PackedRow]) -> BatchPlan:
        """Which of the rows each step takes on each rank."""
        target = StepTarget("rows", self.rows_per_step)
        return BatchPlan(RowSizes.of(rows), target, self.micro_batch_size, self.ranks, seed=None)


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step gave.

    Attributes:
        loss: Mean over the step's supervised tokens, in nats.
        grad_norm: Of the whole gradient.
        eval_losses: Mean over the same rows' supervised tokens, evaluated before the step: of all, and of each task
            (NaN for one without tokens).
        gradients: What moved the weights, by parameter name: how far they went, over the learning rate.
    """

    loss: float
    grad_norm: float
    eval_losses: list[float]
    gradients: dict[str, Float64Array]


def make_matrix() -> list[Case]:
    """The runs in float64, one in bf16 for each number of ranks and stage, and one with AdamW for each stage."""
    whole = [
        Case(ranks, stage, micro_steps) for ranks, stage, micro_steps in product(RANKS, STAGES, MICRO_STEPS)
    ]
    lower = [
        Case(ranks, stage, 1 + (ranks + stage) % 4, precision="bf16")
        for ranks, stage in product(RANKS, STAGES)
    ]
    return [*spread(whole, CHOICES), *spread(lower, CHOICES), *make_adamw()]


def make_adamw() -> list[Case]:
    """A run with the harness's own optimizer for each stage."""
    return [Case(2, stage, 1 + stage, "last_partial", optimizer="adamw") for stage in STAGES]


def make_quick_matrix() -> list[Case]:
    """Each stage and accumulation once, on two ranks."""
    whole = [Case(2, stage, micro_steps) for stage, micro_steps in zip(STAGES, MICRO_STEPS, strict=True)]
    whole += [Case(2, stage, micro_steps) for stage, micro_steps in zip(STAGES, (3, 4, 1, 2), strict=True)]
    return [*spread(whole, CHOICES), *spread([Case(2, 2, 2, precision="bf16")], CHOICES), make_adamw()[1]]


def make_controls() -> list[Case]:
    """Runs with one thing wrong each, which must be found out."""
    case = Case(2, 1, 3)
    return [
        replace(case, sabotage="leaking mask"),
        replace(case, sabotage="leaking mask", attention="sdpa", lora_kernel="peft"),
        replace(case, sabotage="run-on positions"),
        replace(case, stage=2, data="unlabeled", sabotage="mean of means"),
        replace(case, stage=3, sabotage="dropped micro-step"),
        replace(case, stage=0, data="last_partial", sabotage="ranks not counted"),
        replace(case, dropout=0.2, lora_kernel="peft", sabotage="dropout by place"),
        replace(case, precision="float32", sabotage="float32"),
    ]


def spread(cases: Sequence[Case], choices: Mapping[str, Sequence[Any]]) -> list[Case]:
    """Give each run values of the other choices, so that pairs of values that have not met yet do.

    Greedy: every run takes the combination with the most new pairs, and of those one whose pairs have met least often.
    The result is the same each time.
    """
    met: Counter[Pair] = Counter()
    result = []
    for case in cases:
        options = [
            replace(case, **dict(zip(choices, values, strict=True))) for values in product(*choices.values())
        ]
        best = max(options, key=lambda option: rank_option([met[pair] for pair in pairs_of(option)]))
        met.update(pairs_of(best))
        result.append(best)
    return result


def rank_option(times_met: list[int]) -> tuple[int, int]:
    """Higher is better: the pairs that have never met; how seldom the others have."""
    return times_met.count(0), -sum(times_met)


Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(case: Case) -> set[Pair]:
    """Every pair of values that meet in a run."""
    values = [(field.name, getattr(case, field.name)) for field in fields(case)]
    return set(combinations(values, 2))
