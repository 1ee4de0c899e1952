"""Where a run stands: the few numbers that go on from checkpoint to checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done.
        eval_loss: Eval loss at that step, or None.
        best_step: Step of the checkpoint with the lowest eval loss so far, or None.
        best_eval_loss: That loss, or None.
        skipped_steps: Steps left without an update, because a loss or a gradient was not finite; they do not count in
            the learning rate's schedule.
        overflowed_steps: Those of them where fp16 gradients overflowed, for which the loss scale was lowered.
    """

    step: int = 0
    eval_loss: float | None = None
    best_step: int | None = None
    best_eval_loss: float | None = None
    skipped_steps: int = 0
    overflowed_steps: int = 0

    def with_eval(self, loss: float) -> RunState:
        """This state after an evaluation."""
        return replace(self, eval_loss=loss)

    def with_step(self, *, applied: bool, overflowed: bool) -> RunState:
        """This state after one more step."""
        return replace(
            self,
            step=self.step + 1,
            eval_loss=None,
            skipped_steps=self.skipped_steps + (not applied),
            overflowed_steps=self.overflowed_steps + overflowed,
        )

    def with_best(self) -> RunState:
        """This state with its own step as the best one, if its eval loss is the lowest of all checkpoints."""
        if self.eval_loss is None or not math.isfinite(self.eval_loss):
            return self
        if self.best_eval_loss is not None and self.eval_loss >= self.best_eval_loss:
            return self
        return replace(self, best_step=self.step, best_eval_loss=self.eval_loss)
