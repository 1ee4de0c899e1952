"""The report's table of systems: what is known, what is estimated, and who can be best."""

from __future__ import annotations

from dataclasses import replace

from harness.report.evaluation.records import Measurement
from harness.report.evaluation.tables import find_best, write_measurement


def test_chance_alone_is_known_and_the_taught_answer_is_no_contestant() -> None:
    tfidf = Measurement("similar", "near", "baseline", "tfidf", 0.5, 0.5, 0.5, 1)
    assert write_measurement(tfidf) == "50.0%\n50.0 to 50.0"
    assert write_measurement(replace(tfidf, system="chance")) == "50.0%"
    expected = replace(tfidf, system="expected", value=0.6)
    assert find_best("near", [replace(tfidf, value=0.4), tfidf, expected, None]) == [1]
