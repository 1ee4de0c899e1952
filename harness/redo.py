"""A run's passes over its rows, answered to where memory runs out on a rank: all ranks take them again with less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.engine import evaluate_loss, train_step
from harness.guard.marks import MARKS
from harness.loader import StepSource
from harness.splits import PlannedSplit
from harness.step import RanksOutOfMemoryError, StepResult

if TYPE_CHECKING:
    from harness.run import Run


def compute_step(run: Run, steps: StepSource, rate: float, events: list[dict[str, Any]]) -> StepResult | None:
    """Compute a step; None where memory ran out, and it is to be taken again in what takes less."""
    step = run.state.step
    with run.part("data"):
        loaded = next(steps)
    try:
        return train_step(
            run.engine,
            loaded.batches,
            run.world,
            step=step,
            global_valid_tokens=run.plan.supervised_of_step(step),
            learning_rate=rate,
            seed=run.config.seed,
            part=run.part,
            num_tasks=len(run.manifest.tasks),
            num_chunks=run.train_split.passes_through_head(step, run.config.model.loss_chunk),
            asked_to_stop=MARKS.asked_to_stop,
            has_compiled=run.meter.has_compiled,
            times=run.meter.own_times,
        )
    except RanksOutOfMemoryError as error:
        ranks, reason = error.ranks, error.reason
    rows_of_a_rank = -(-len(loaded.rows) // run.world.size)
    events.append(run.fit.take_less(rows_of_a_rank, step, ranks, reason))
    return None


def compute_eval(run: Run, split: PlannedSplit) -> tuple[float, list[float], int] | None:
    """Loss on a split; None where memory ran out, and fewer rows are to be tried.

    Raises:
        OutOfMemoryError: Memory ran out with one row.
    """
    num_steps = split.plan.num_steps(1)
    try:
        with run.part("eval"), run.load_steps(split, 0, num_steps) as steps:
            return evaluate_loss(
                run.engine,
                MARKS.beats(batch for step in steps for batch in step.batches),
                run.world,
                len(run.manifest.tasks),
                split.passes_through_head(0, run.config.model.loss_chunk) * num_steps,
                MARKS.asked_to_stop,
            )
    except RanksOutOfMemoryError as error:
        lost = str(error)
    rows = split.plan.micro_batch_size
    if rows == 1:
        raise run.fit.explain(MemoryError(lost), "evaluation")
    run.fit.memory.release()
    run.say(f"evaluation: {lost} with {rows} rows; it is done again with {rows // 2}")
    return None
