"""The report's table of systems: what is known, what is estimated, and who can be best."""

from __future__ import annotations

from dataclasses import replace

from harness.report.evaluation.records import Measurement
from harness.report.evaluation.tables import find_best, tabulate_cut_answers, write_measurement


def test_chance_alone_is_known_and_the_taught_answer_is_no_contestant() -> None:
    tfidf = Measurement("similar", "near", "baseline", "tfidf", 0.5, 0.5, 0.5, 1)
    assert write_measurement(tfidf) == "50.0%\n50.0 to 50.0"
    assert write_measurement(replace(tfidf, system="chance")) == "50.0%"
    expected = replace(tfidf, system="expected", value=0.6)
    assert find_best("near", [replace(tfidf, value=0.4), tfidf, expected, None]) == [1]


def test_answers_that_were_cut_are_one_table_with_a_column_a_system() -> None:
    (table,) = tabulate_cut_answers({"before": {"artist": 0.9, "themes": 1.0}, "few_shot": {"themes": 0.05}})
    assert table.columns == ["task", "before", "few-shot"]
    assert table.rows == [["artist", "90.0%", "-"], ["themes", "100.0%", "5.0%"]]
    assert tabulate_cut_answers(None) == tabulate_cut_answers({"before": 0.5}) == []
    (damaged,) = tabulate_cut_answers({"before": {"artist": "half"}})
    assert damaged.rows == [["artist", "-"]]
