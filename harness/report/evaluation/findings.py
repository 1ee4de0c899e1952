"""What a reader of an evaluation must not overlook."""

from __future__ import annotations

import math

from harness.report.evaluation.records import Scores
from harness.report.findings import Finding
from harness.report.tables import format_percent


def find_in_scores(scores: Scores) -> list[Finding]:
    """Answers that became less true in training, and questions that gave their answer away."""
    return _find_untruth(scores) + _find_leaks(scores)


def _find_untruth(scores: Scores) -> list[Finding]:
    rates = {one.system: one.hallucination_rate for one in scores.truth if not one.task}
    before, after = rates.get("before"), rates.get("after")
    if before is None or after is None or after <= before:
        return []
    return [
        Finding(
            f"Truth: of the checkable claims {format_percent(after)} are contradicted after training, "
            f"{format_percent(before)} before.",
            "Look at the claims by task, and at the training answers of the task that is worst.",
            cost=math.inf,
        )
    ]


def _find_leaks(scores: Scores) -> list[Finding]:
    audit = scores.leakage
    if audit is None or not (audit.findings or audit.num_excluded):
        return []
    return [
        Finding(
            f"Leakage: {len(audit.findings):,} leaks in {audit.num_checked:,} questions; {audit.num_excluded:,} "
            "questions are left out of every score.",
            is_note=True,
        )
    ]
