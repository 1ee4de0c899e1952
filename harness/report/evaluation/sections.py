"""The sections of a report that tell of its evaluation, of whatever version it is."""

from __future__ import annotations

from harness.report.charts import chart_accuracy
from harness.report.evaluation.charts import chart_reliability, chart_slices, chart_systems, chart_truth
from harness.report.evaluation.confusion import chart_confusion
from harness.report.evaluation.learning import chart_curve, tabulate_curve
from harness.report.evaluation.tables import (
    tabulate_calibration,
    tabulate_leads,
    tabulate_leakage,
    tabulate_marks,
    tabulate_overlap,
    tabulate_slices,
    tabulate_subject,
    tabulate_systems,
    tabulate_truth,
)
from harness.report.page import Section
from harness.report.records import RunRecords
from harness.report.tables import tabulate_accuracy

UNSEEN = "Artists that training never saw"


def list_evaluation_sections(run: RunRecords) -> list[Section]:
    """Accuracy first; then what version 2 adds, each section only where the run has something of it."""
    scores, unseen = run.scores, run.unseen
    if scores.measurements:
        charts = chart_systems(scores)
        tables = [*tabulate_marks(scores), *tabulate_systems(scores), *tabulate_leads(scores)]
        tables += tabulate_subject(run.evaluation)
    else:
        charts, tables = chart_accuracy(run.tasks), tabulate_accuracy(run)
    of_unseen = [*tabulate_marks(unseen), *tabulate_systems(unseen), *tabulate_leads(unseen)]
    of_unseen += [*tabulate_truth(unseen), *tabulate_overlap(unseen), *tabulate_leakage(unseen)]
    return [
        Section("accuracy", "Accuracy", charts, [*tables, *tabulate_leakage(scores)]),
        Section("learning", "Learning", chart_curve(run.curve, scores.marks), tabulate_curve(run.curve)),
        Section("unseen", UNSEEN, chart_systems(unseen, "unseen-"), of_unseen),
        Section("truth", "Truth", chart_truth(scores), [*tabulate_truth(scores), *tabulate_overlap(scores)]),
        Section("slices", "Slices", chart_slices(scores), tabulate_slices(scores)),
        Section("confusion", "Confusions", chart_confusion(scores), []),
        Section("calibration", "Calibration", chart_reliability(scores), tabulate_calibration(scores)),
    ]
