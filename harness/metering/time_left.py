"""How long a run has still to go, its evaluations and checkpoints included."""

from __future__ import annotations

import math
import statistics
from collections import deque

from harness.meters import SMOOTHING_STEPS


class TimeLeft:
    """Adds up what is still to come: steps, evaluations, checkpoints, each as long as the last ones of its kind.

    Before the first evaluation its time is taken to be what the tokens of the eval split take forward in a training
    step. A checkpoint counts from the first one on that was measured.

    Args:
        num_steps: Of the whole run.
        eval_every: Steps between evaluations, or None.
        save_every: Steps between checkpoints, each of which has an evaluation, or None.
        eval_tokens: Of the eval split, 0 without one.
    """

    def __init__(
        self, num_steps: int, eval_every: int | None, save_every: int | None, eval_tokens: int
    ) -> None:
        self._num_steps = num_steps
        self._save_every = save_every
        self._eval_every = eval_every
        self._eval_tokens = eval_tokens
        self._steps_s: deque[float] = deque(maxlen=SMOOTHING_STEPS)
        self._has_measured = False
        self._forward_s_per_token: float | None = None
        self._eval_s: float | None = None
        self._save_s = 0.0

    def note_step(self, seconds: float, *, is_warmup: bool) -> None:
        """A step took so long, with the stall before it. Steps of warm-up count until there are others."""
        if not is_warmup and not self._has_measured:
            self._steps_s.clear()
            self._has_measured = True
        if not (is_warmup and self._has_measured):
            self._steps_s.append(seconds)

    def note_forward(self, seconds: float, tokens: int) -> None:
        """A step's forward passes, loss included, took so long for so many tokens over all ranks."""
        self._forward_s_per_token = seconds / tokens if tokens else None

    def note_eval(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._eval_s = seconds

    def note_save(self, seconds: float) -> None:
        """Training stood still so long for a checkpoint."""
        self._save_s = seconds

    def estimate(self, step: int) -> float | None:
        """Seconds from the end of a step to the end of the run; None before the first step.

        Args:
            step: Steps done; what is due after it is still to come.
        """
        if not self._steps_s:
            return None
        eval_s = self._eval_s
        if eval_s is None:
            eval_s = self._eval_tokens * (self._forward_s_per_token or 0.0)
        return (
            (self._num_steps - step) * statistics.median(self._steps_s)
            + count_due(step, self._num_steps, self._eval_every, self._save_every) * eval_s
            + count_due(step, self._num_steps, self._save_every) * self._save_s
        )


def count_due(step: int, num_steps: int, *every: int | None) -> int:
    """Steps from `step` to the last one at which something is due: at each multiple of an interval, and at the last."""
    intervals = [one for one in every if one]
    first = max(step, 1)

    def multiples(of: int) -> int:
        return num_steps // of - (first - 1) // of

    count = sum(multiples(one) for one in intervals)
    if len(intervals) == 2:
        count -= multiples(math.lcm(*intervals))
    return count + all(num_steps % one for one in intervals)
