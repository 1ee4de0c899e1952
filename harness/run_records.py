"""What a run writes down beside its checkpoints: the memory that is expected, and where time and memory went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.dist import gather_objects
from harness.hparams import write_hparams
from harness.memory.plan_file import PLAN_FILE, write_plan
from harness.memory.profile import MEMORY_FILE, print_memory, write_memory
from harness.memory.run_plan import predict_run
from harness.memory.timeline import TIMELINE_FILE, write_timelines
from harness.metering.tables import print_efficiency, print_time_by_rank
from harness.meters import name_tasks, print_throughput
from harness.metrics_file import TENSORBOARD_FOLDER
from harness.throughput import ThroughputSummary

if TYPE_CHECKING:
    from harness.metering.run_meter import StepMeasures
    from harness.run import Run
    from harness.step import StepResult


def write_prediction(run: Run) -> None:
    """Write down what each rank is expected to take, for the report to show beside what it takes."""
    if run.fit.case is None:
        return
    own = predict_run(
        run.fit.case,
        run.plan,
        run.world.rank,
        recompute_layers=run.fit.choice.layers,
        num_steps=run.num_steps,
    )
    plans = gather_objects(own)
    if run.world.is_main:
        write_plan(run.config.output_dir / PLAN_FILE, plans)


def write_step(
    run: Run,
    learning_rate: float,
    result: StepResult,
    measures: StepMeasures,
    events: Sequence[Mapping[str, Any]],
) -> None:
    """Write down the step that the run's state counts as its last, and what happened in it."""
    if run.metrics is None:
        return
    step = run.state.step
    if measures.ranks is not None:
        run.metrics.write_ranks(measures.ranks)
    run.metrics.write_train(
        step,
        run.plan.epoch_of(step),
        result.loss,
        learning_rate,
        result.grad_norm,
        result.counts,
        measures.rates,
        name_tasks(run.manifest.tasks, result.by_task, result.examples),
        skipped=result.reason,
        efficiency=measures.efficiency,
        eta_s=measures.eta_s,
    )
    for event in events:
        run.metrics.write_event(step, event)


def write_tables(run: Run, best: int | None) -> None:
    """Write and print where the time and the memory went.

    Args:
        run: The run; every rank calls this.
        best: Step of the checkpoint whose adapter is published, or None.
    """
    records = [record for records in gather_objects(run.memory.records()) for record in records]
    timelines = gather_objects(run.memory.timeline)
    summary = run.meter.clock.summary()
    measured, ranks = run.meter.finish()
    if run.metrics is None:
        return
    if ranks is not None:
        run.metrics.write_ranks(ranks)
    run.metrics.write_memory(run.state.step, records)
    extra = {
        "best_step": best,
        "skipped_steps": run.state.skipped_steps,
        "overflowed_steps": run.state.overflowed_steps,
        "world_size": run.world.size,
        **measured,
    }
    run.metrics.write_summary(run.state.step, summary, extra)
    run.metrics.close()
    if run.config.tensorboard:
        write_hparams(run.config.output_dir / TENSORBOARD_FOLDER, run.config, last_figures(run, summary))
    write_memory(run.config.output_dir / MEMORY_FILE, records)
    write_timelines(run.config.output_dir / TIMELINE_FILE, [one for one in timelines if one])
    print_throughput(summary, run.console)
    print_efficiency(measured, run.meter.ceilings, run.console)
    print_time_by_rank(measured["by_rank"], run.console)
    print_memory(records, run.console)


def last_figures(run: Run, summary: ThroughputSummary) -> dict[str, float | None]:
    """What a run ended with, for the table of settings beside it."""
    return {
        "eval_loss": run.state.eval_loss,
        "best_eval_loss": run.state.best_eval_loss,
        "samples_per_s": summary.samples_per_s,
        "tokens_per_s": summary.tokens_per_s,
    }
