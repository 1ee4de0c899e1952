"""What a reader of an evaluation must not overlook."""

from __future__ import annotations

import math

from harness.report.evaluation.records import Scores, TruthRates
from harness.report.findings import Finding
from harness.report.tables import format_percent


def find_in_scores(scores: Scores, of: str = "") -> list[Finding]:
    """Answers that became less true in training, and questions that gave their answer away.

    Args:
        scores: Of one split.
        of: Follows what is found, where the split is not the usual one; as in ", artists that training never saw".
    """
    return _find_untruth(scores, of) + _find_leaks(scores, of)


def _find_untruth(scores: Scores, of: str) -> list[Finding]:
    """A higher rate after training: an alarm where the intervals lie apart, else a note, for chance may make it."""
    whole = {one.system: one for one in scores.truth if not one.task}
    before, after = whole.get("before"), whole.get("after")
    if before is None or after is None:
        return []
    rate_before, rate_after = before.hallucination_rate, after.hallucination_rate
    if rate_before is None or rate_after is None or rate_after <= rate_before:
        return []
    is_sure = _lies_above(after, before)
    doubt = "" if is_sure else " The 95 % intervals do not lie apart, so it may be chance."
    return [
        Finding(
            f"Truth{of}: of the checkable claims {format_percent(rate_after)} are contradicted after training, "
            f"{format_percent(rate_before)} before.{doubt}",
            "Look at the claims by task, and at the training answers of the task that is worst.",
            cost=math.inf if is_sure else 0.0,
            is_note=not is_sure,
        )
    ]


def _lies_above(higher: TruthRates, lower: TruthRates) -> bool:
    """Whether the whole of one interval is above the other; not where one is unknown."""
    return higher.low is not None and lower.high is not None and higher.low > lower.high


def _find_leaks(scores: Scores, of: str) -> list[Finding]:
    audit = scores.leakage
    if audit is None or not (audit.findings or audit.num_excluded):
        return []
    return [
        Finding(
            f"Leakage{of}: {len(audit.findings):,} leaks in {audit.num_checked:,} questions; {audit.num_excluded:,} "
            "questions are left out of every score.",
            is_note=True,
        )
    ]
