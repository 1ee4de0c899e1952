"""Everything that an evaluation writes into its folders."""

from __future__ import annotations

import os
from collections.abc import Callable

from harness.evaluation.lm_eval.results import write_lm_eval_results
from harness.evaluation.lm_eval.tasks import make_tasks_folder, write_lm_eval_tasks
from harness.evaluation.record import Record, write_record
from harness.evaluation.settings import EvaluationSettings
from preprocess.durable import make_folder
from preprocess.errors import DataError


def open_folders(settings: EvaluationSettings) -> None:
    """Make the folders that results go into, and see that they can be written to.

    Raises:
        ConfigError: The folder of the tasks is a file.
        DataError: A folder cannot be made or written to.
        NoSpaceError: The disk is full.
    """
    if settings.output is not None:
        make_folder(settings.output)
    if settings.lm_eval_tasks is not None:
        make_tasks_folder(settings.lm_eval_tasks)
    for folder in (settings.output, settings.lm_eval_tasks):
        if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
            raise DataError(f"{folder}: cannot be written to; choose another folder for the results")


def write_results(settings: EvaluationSettings, record: Record, say: Callable[[str], None]) -> None:
    """Write a split's record, its form for the lm-evaluation-harness, and the questions as its tasks if asked for.

    Raises:
        ConfigError: The folder of the tasks is a file.
        DataError: A folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    if settings.output is not None:
        write_record(settings.output, record)
        write_lm_eval_results(settings.output, settings, record)
    if settings.lm_eval_tasks is not None:
        write_lm_eval_tasks(settings.lm_eval_tasks, settings, record.material, record.summary["split"], say)
