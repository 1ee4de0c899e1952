"""Everything that an evaluation writes into its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.evaluation.lm_eval.results import write_lm_eval_results
from harness.evaluation.lm_eval.tasks import write_lm_eval_tasks
from harness.evaluation.record import Record, write_record
from harness.evaluation.settings import EvaluationSettings


def write_results(
    settings: EvaluationSettings, records: Sequence[Record], say: Callable[[str], None]
) -> None:
    """Write the records, their form for the lm-evaluation-harness, and the questions as its tasks if asked for.

    Raises:
        DataError: A folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    for record in records:
        if settings.output is not None:
            write_record(settings.output, record)
            write_lm_eval_results(settings.output, settings, record)
        if settings.lm_eval_tasks is not None:
            write_lm_eval_tasks(
                settings.lm_eval_tasks, settings, record.material, record.summary["split"], say
            )
