"""Find the rows of a micro-batch and the recomputed layers that are fastest within a memory target, by few trials.

What a choice takes is predicted, and the prediction is corrected by what trials measured::

    bytes(rows, layers) = b0 + b1 * predicted with all layers recomputed
                             + b2 * what the kept layers are predicted to add
                             + what neighbours measured beyond that

The coefficients start at (0, 1, 1), each as uncertain as a prediction is, and follow the measurements (Bayesian linear
regression; the last term is a Gaussian process: Rasmussen and Williams 2006, section 2.7). So is the time: seconds in
proportion to the predicted ones, a factor of its own for recomputation, and a fixed time for each micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

MAX_TRIALS = 8
"""Trials of one search, at most."""

NEARLY_AS_FAST = 0.01
"""Choices whose predicted step is at most this share longer than the fastest one's count as equally fast."""

OFFSET_SHARE = 0.05
"""How far a prediction may be off by a fixed amount, as a share of the target: one standard deviation."""

SLOPE_SHARE = 0.3
"""How far it may be off in proportion: one standard deviation."""

LOCAL_SHARE = 0.008
"""What neighbouring choices may have in common that no line explains, as a share of the target."""

NOISE_SHARE = 0.003
"""How much a measured peak varies, as a share of the target: one standard deviation."""

TIME_NOISE = 0.04
"""How much a measured time varies, as a share of it."""

FIXED_SHARE = 0.1
"""A micro-batch's fixed time as a share of a row's, before trials of several sizes tell it: some, so that more rows
are tried at all."""


class Choice(NamedTuple):
    """What a search chooses.

    Attributes:
        rows: Of a micro-batch on one rank, from 1.
        layers: Decoder layers that run again in the backward pass, from 0.
    """

    rows: int
    layers: int

    def __str__(self) -> str:
        """As in "micro_batch_size 8, recompute_layers 4"."""
        return f"micro_batch_size {self.rows}, recompute_layers {self.layers}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial found.

    Attributes:
        peak_bytes: The highest use of memory; None where it ran out.
        seconds: Of one micro-batch's forward and backward pass; None where memory ran out.
    """

    peak_bytes: float | None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice that was tried, and what was found."""

    choice: Choice
    measured: Measured


@dataclass(frozen=True, slots=True)
class Found:
    """How a search ended.

    Attributes:
        choice: The fastest one that was measured within the target; None where not even the smallest is.
        trials: All that were tried, in order.
    """

    choice: Choice | None
    trials: tuple[Trial, ...]

    @property
    def peak_bytes(self) -> float | None:
        """What was measured of the choice."""
        peaks = {trial.choice: trial.measured.peak_bytes for trial in self.trials}
        return None if self.choice is None else peaks[self.choice]


Predict = Callable[[int, int], float]
"""From rows and recomputed layers to bytes at the peak, or to seconds of a micro-batch."""


def search(
    trial: Callable[[Choice], Measured],
    predict_bytes: Predict,
    predict_seconds: Predict,
    rows: int,
    layers: int,
    target_bytes: float,
    *,
    micro_steps: Callable[[int], float] | None = None,
    cautious: bool = False,
) -> Found:
    """Find the fastest choice whose measured peak is not above the target.

    Among choices that are nearly as fast as the fastest, the one whose peak is nearest under the target is taken.

    Args:
        trial: Measures a choice.
        predict_bytes: The peak of a choice, state and all.
        predict_seconds: Seconds of one micro-batch, in any unit, for they are scaled to what trials take.
        rows: The most that a micro-batch can have: those of a rank in its largest step.
        layers: Of the model.
        target_bytes: What a peak must not be above.
        micro_steps: Forward passes of a step with so many rows in each, on average; `rows` over them if not given.
        cautious: Whether memory must not run out in a trial either.
    """
    grid = _Grid(rows, layers, predict_bytes, predict_seconds, micro_steps or (lambda one: -(-rows // one)))
    trials: list[Trial] = []
    while len(trials) < MAX_TRIALS:
        choice = _next_choice(grid, trials, target_bytes, caution=3.0 if cautious else 1.0)
        if choice is None:
            break
        trials.append(Trial(choice, trial(choice)))
    return Found(_best_of_tried(grid, trials, target_bytes), tuple(trials))


@dataclass(frozen=True)
class _Grid:
    """All choices, and what is predicted for each."""

    rows: int
    layers: int
    predict_bytes: Predict
    predict_seconds: Predict
    micro_steps: Callable[[int], float]

    @cached_property
    def choices(self) -> list[Choice]:
        return [Choice(row, layer) for row in range(1, self.rows + 1) for layer in range(self.layers + 1)]

    @cached_property
    def places(self) -> dict[Choice, int]:
        return {choice: at for at, choice in enumerate(self.choices)}

    @cached_property
    def memory_features(self) -> Float64Array:
        """float64[choices, 3]: one, bytes with every layer recomputed, what the kept layers add."""
        lean = [self.predict_bytes(choice.rows, self.layers) for choice in self.choices]
        whole = [self.predict_bytes(*choice) for choice in self.choices]
        return np.column_stack([np.ones(len(lean)), lean, np.subtract(whole, lean)])

    @cached_property
    def time_features(self) -> Float64Array:
        """float64[choices, 3]: seconds without recomputation, what recomputation adds, one."""
        plain = [self.predict_seconds(choice.rows, 0) for choice in self.choices]
        whole = [self.predict_seconds(*choice) for choice in self.choices]
        return np.column_stack([plain, np.subtract(whole, plain), np.ones(len(plain))])

    @cached_property
    def passes(self) -> Float64Array:
        """float64[choices]: micro-batches of a step."""
        of_rows = [self.micro_steps(row) for row in range(1, self.rows + 1)]
        return np.array([of_rows[choice.rows - 1] for choice in self.choices], dtype=np.float64)

    @cached_property
    def coordinates(self) -> Float64Array:
        """float64[choices, 2]: rows and layers as shares of their ranges."""
        ranges = np.array([self.rows, max(self.layers, 1)], dtype=np.float64)
        return np.array(self.choices, dtype=np.float64) / ranges

    def step_seconds(self, trials: Sequence[Trial]) -> Float64Array:
        """float64[choices]: a step's time as the trials have it: its rows' work, and a fixed time a micro-batch."""
        plain, repeated, fixed = _fit_seconds(self, trials)
        a_row = self.time_features[:, 0] / np.array([choice.rows for choice in self.choices])
        share = self.time_features[:, 1] / self.time_features[:, 0]
        work = self.rows * a_row * (plain + repeated * share)
        return np.asarray(work + fixed * self.passes)


def _next_choice(
    grid: _Grid, trials: Sequence[Trial], target_bytes: float, *, caution: float
) -> Choice | None:
    """What to try: the best choice that is likely to fit. None where that was tried, or nothing is left to try."""
    peaks, doubts = _fit_bytes(grid, trials, target_bytes)
    fits = peaks + caution * doubts <= target_bytes
    for trial in trials:
        fits[grid.places[trial.choice]] = _is_within(trial, target_bytes)
    if not fits.any():
        smallest = Choice(1, grid.layers)
        return None if any(trial.choice == smallest for trial in trials) else smallest
    choice = grid.choices[_fastest(grid, grid.step_seconds(trials), fits, peaks)]
    return None if any(trial.choice == choice for trial in trials) else choice


def _best_of_tried(grid: _Grid, trials: Sequence[Trial], target_bytes: float) -> Choice | None:
    fits = np.zeros(len(grid.choices), dtype=bool)
    peaks = np.zeros(len(grid.choices))
    for trial in trials:
        if _is_within(trial, target_bytes):
            at = grid.places[trial.choice]
            fits[at], peaks[at] = True, trial.measured.peak_bytes
    if not fits.any():
        return None
    return grid.choices[_fastest(grid, grid.step_seconds(trials), fits, peaks)]


def _is_within(trial: Trial, target_bytes: float) -> bool:
    peak = trial.measured.peak_bytes
    return peak is not None and peak <= target_bytes


def _fastest(grid: _Grid, seconds: Float64Array, fits: npt.NDArray[np.bool_], peaks: Float64Array) -> int:
    """Of the choices that fit, the place of the one with the highest peak among the nearly fastest."""
    near = fits & (seconds <= seconds[fits].min() * (1 + NEARLY_AS_FAST))
    return int(np.argmax(np.where(near, peaks, -np.inf)))


def _fit_bytes(
    grid: _Grid, trials: Sequence[Trial], target_bytes: float
) -> tuple[Float64Array, Float64Array]:
    """float64[choices] twice: the peak that is expected of each choice, and its standard deviation."""
    features = grid.memory_features / np.array([1, target_bytes, target_bytes])
    variances = np.array([OFFSET_SHARE, SLOPE_SHARE, SLOPE_SHARE]) ** 2
    prior = features @ np.array([0.0, 1.0, 1.0])
    where = [grid.places[trial.choice] for trial in trials]

    def covariance(
        left: Float64Array, right: Float64Array, one: Float64Array, other: Float64Array
    ) -> Float64Array:
        apart = ((one[:, None] - other[None]) ** 2).sum(-1)
        return np.asarray((left * variances) @ right.T + LOCAL_SHARE**2 * np.exp(-apart / (2 * 0.3**2)))

    own = (features**2 * variances).sum(1) + LOCAL_SHARE**2
    if not trials:
        return prior * target_bytes, np.sqrt(own) * target_bytes
    measured, noise = _read_peaks(trials, prior[where], target_bytes)
    here, there = features[where], grid.coordinates[where]
    between = covariance(features, here, grid.coordinates, there)
    known = covariance(here, here, there, there) + np.diag(noise**2)
    weights = np.linalg.solve(known, between.T).T
    expected = prior + weights @ (measured - prior[where])
    doubts = np.sqrt(np.maximum(own - (weights * between).sum(1), 0) + NOISE_SHARE**2)
    return expected * target_bytes, doubts * target_bytes


def _read_peaks(
    trials: Sequence[Trial], predicted: Float64Array, target_bytes: float
) -> tuple[Float64Array, Float64Array]:
    """float64[trials] twice: peaks as shares of the target, and how sure they are.

    Where memory ran out the peak is above the target by an unknown amount, and no less than was predicted.
    """
    peaks = [trial.measured.peak_bytes for trial in trials]
    ran_out = np.array([peak is None for peak in peaks])
    shares = np.array([0.0 if peak is None else peak / target_bytes for peak in peaks])
    return np.where(ran_out, np.maximum(predicted, 1.1), shares), np.where(ran_out, 0.06, NOISE_SHARE)


def _fit_seconds(grid: _Grid, trials: Sequence[Trial]) -> Float64Array:
    """float64[3]: what a predicted second takes, what a repeated one takes, and a micro-batch's fixed time.

    Least squares of the shares by which times are missed; recomputation is held near the rest, the fixed time near
    its share.
    """
    timed = [trial for trial in trials if trial.measured.seconds is not None]
    a_row = float(grid.time_features[0, 0])
    if not timed:
        return np.array([1.0, 1.0, FIXED_SHARE * a_row])
    features = grid.time_features[[grid.places[trial.choice] for trial in timed]]
    times = np.array([trial.measured.seconds for trial in timed], dtype=np.float64)
    scale = float(np.median(times / features[:, :2].sum(1)))
    ties = np.array([[-1 / (0.2 * scale), 1 / (0.2 * scale), 0], [0, 0, 1 / (0.3 * scale * a_row)]])
    left = np.vstack([features / times[:, None] / TIME_NOISE, ties])
    right = np.append(np.full(len(timed), 1 / TIME_NOISE), [0.0, FIXED_SHARE / 0.3])
    found = np.linalg.lstsq(left, right)[0]
    if found[2] < 0:
        found = np.append(np.linalg.lstsq(left[:, :2], right)[0], 0.0)
    return np.asarray(np.maximum(found, [1e-3 * scale, 0, 0]))
