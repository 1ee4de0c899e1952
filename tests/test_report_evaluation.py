"""The report of an evaluation of version 2, of checkpoints, and of checked claims."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from harness.report import make_page, read_whole_run, write_report
from harness.report.evaluation import charts
from harness.report.evaluation.charts import Dot
from harness.report.evaluation.confusion import MAX_NAMES, OTHERS, limit_names
from harness.report.evaluation.records import Measurement, Scores
from harness.report.evaluation.tables import find_best
from harness.report.page import Page
from harness.report.plots import STAND_INS, Chart
from preprocess.errors import DataError
from tests.evaluation_files import Fields, make_curve, make_demo, make_evaluation, metric, rates
from tests.test_report import EVALUATION, PageReader, measure_width, needs_chromium


def write_files(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(
        tmp_path_factory.mktemp("runs") / "learn",
        evaluation=make_evaluation(),
        evaluation_eval_unseen=make_evaluation() | {"split": "eval_unseen"},
        learning_curve=make_curve(),
        demo=make_demo(),
    )


@pytest.fixture(scope="module")
def html(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Page:
    return make_page(read_whole_run(run_dir))


def tables_of(page: Page, section: str) -> dict[str, list[list[str]]]:
    return {t["title"]: t["rows"] for t in page.to_json()["tables"] if t["section"] == section}


def evaluate_alone(folder: Path, content: Fields) -> Page:
    return make_page(read_whole_run(write_files(folder, evaluation=content)))


def test_every_part_of_an_evaluation_has_its_section(html: str) -> None:
    reader = PageReader(html)
    sections = {"accuracy", "learning", "unseen", "truth", "slices", "confusion", "calibration", "answers"}
    assert sections <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    # systems of 4 tasks twice, the curve, truth twice, slices twice, confusions of 2 tasks twice, 2 reliabilities
    assert reader.tags.count("svg") == 8 + 1 + 2 + 2 + 4 + 2


def test_all_systems_stand_in_one_table_with_intervals_and_the_best_is_marked(page: Page) -> None:
    table = next(t for t in page.shown[0].tables if t.title == "All systems")
    assert table.columns[2:] == [
        "chance", "most frequent", "TF-IDF", "before\ngenerated", "before\nranked", "few-shot\ngenerated",
        "after\ngenerated", "after\nranked",
    ]  # fmt: skip
    rows = {row[0]: row for row in table.rows}
    assert rows["artist\naccuracy"][1:4] == ["140", "16.7%", "19.7%\n13.1 to 26.3"]
    assert rows["artist\naccuracy"][-1] == "82.0%\n75.6 to 88.4"
    best = {(table.rows[r][0], table.columns[c]) for r, c in table.marked}
    assert ("artist\naccuracy", "after\nranked") in best
    assert ("genre\naccuracy", "TF-IDF") in best, "a baseline that beats the model is the one that is marked"
    refused = next(t for t in page.shown[0].tables if t.title == "Refused and empty answers")
    assert refused.rows[0] == ["artist\nrefused", "140", "21.0%\n14.3 to 27.7", "0.0%\n0.0 to 1.7"]
    assert refused.marked == {(0, 3), (1, 3)}, "fewer refusals are better"
    assert all(any(cell[:4] not in ("0.0%", "-") for cell in row[2:]) for row in refused.rows), (
        "no line of zeros"
    )
    assert rows["analysis\nstatements supported"][5] == "-"


def test_being_ahead_is_marked_only_where_the_whole_interval_is_above_zero(page: Page) -> None:
    table = next(t for t in page.shown[0].tables if t.title == "After training, ahead of")
    assert table.columns == ["task", "TF-IDF", "before"]
    assert table.rows[0] == ["artist, ranked: accuracy", "+11.0\n+5.0 to +17.0", "+68.0\n+62.0 to +74.0"]
    assert table.rows[1][1] == "-2.0\n-8.0 to +4.0"
    assert table.marked == {(0, 1), (0, 2), (1, 2)}


def test_slices_of_another_metric_than_the_headline_are_shown(tmp_path: Path) -> None:
    content = make_evaluation()
    content["tasks"] = {"context": content["tasks"]["artist"]}
    content["tasks"]["context"]["metrics"].append(metric("within_decade", "rank", "after", 0.9))
    page = evaluate_alone(tmp_path, content)
    slices = next(section for section in page.shown if section.id == "slices")
    assert len(slices.charts) == len(slices.tables) == 2


def test_a_slice_that_a_later_task_alone_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Sequence[Dot]] = []

    def keep(name: str, title: str, dots: Sequence[Dot], **_: object) -> Chart:
        drawn.append(dots)
        return Chart(title, Markup())

    monkeypatch.setattr(charts, "draw_dots", keep)
    slices = [
        Measurement(task, "acc", "rank", "after", value, None, None, 20, "genre", name)
        for task, name, value in (("artist", "Folk", 0.1), ("genre", "Folk", 0.2), ("genre", "Rock", 0.3))
    ]
    charts.chart_slices(Scores(slices=slices))
    assert [[(dot.label, dot.value) for dot in dots] for dots in drawn] == [
        [("Folk", 0.1), ("", 0.2), ("Rock", 0.3)]
    ]


def test_goals_are_told_as_reached_missed_or_not_measured(page: Page) -> None:
    assert tables_of(page, "accuracy")["Goals"] == [
        ["artist", "80.0%", "82.0%", "reached"],
        ["genre", "85.0%", "84.0%", "not reached"],
        ["themes", "75.0%", "-", "not measured"],
    ]
    cards = {card.label: (card.value, card.note) for card in page.cards}
    assert cards["goals reached"] == ("1 of 2", "not genre")
    assert cards["claims contradicted"] == ("5.1%", "before 75.0%")


def test_claims_and_repeated_words_are_counted_before_and_after(page: Page) -> None:
    tables = tables_of(page, "truth")
    assert tables["Claims in generated answers"] == [
        ["before", "21", "63", "340", "75.0%\n65.7 to 84.3"],
        ["after", "812", "44", "18", "5.1%\n3.7 to 6.6"],
    ]
    assert ["similar, before", "0", "0", "90", "-"] in tables["Claims by task"]
    longest = tables["Words repeated from training"][1]
    assert longest[:3] == ["after", "41", "4.5"]
    assert longest[3].count("la") == 25, "no more of the training lyrics than a line is shown"


def test_leaks_are_named_and_told_as_a_note(page: Page) -> None:
    tables = tables_of(page, "accuracy")
    assert tables["leaks"] == [["s-17", "artist", "artist named in the lyrics", "<i>Ada</i>"]]
    assert [(one.text.split(":")[0], one.is_note) for one in page.warnings] == [
        ("Leakage", True),
        ("Leakage, artists that training never saw", True),
    ]


def test_of_artists_never_seen_leads_claims_repeated_words_and_leaks_are_shown_too(page: Page) -> None:
    assert {
        "Goals",
        "All systems",
        "After training, ahead of",
        "Claims in generated answers",
        "Claims by task",
        "Words repeated from training",
        "Leakage audit",
    } <= set(tables_of(page, "unseen"))


def test_a_rate_that_chance_may_have_raised_is_a_note(tmp_path: Path) -> None:
    content = make_evaluation()
    content["truth"] = {"before": rates(50, 10, 0), "after": rates(48, 12, 0)}
    (warning,) = (one for one in evaluate_alone(tmp_path, content).warnings if one.text.startswith("Truth"))
    assert (warning.is_note, warning.cost) == (True, 0.0)
    assert "may be chance" in warning.text


def test_training_that_makes_answers_less_true_is_told_at_the_top(tmp_path: Path) -> None:
    content = make_evaluation()
    content["truth"] = {"before": content["truth"]["after"], "after": content["truth"]["before"]}
    first = evaluate_alone(tmp_path, content).warnings[0]
    assert first.text.startswith("Truth: of the checkable claims 75.0%")
    assert not first.is_note


def test_claims_are_marked_in_the_answers_by_sign_and_not_by_colour_alone(html: str) -> None:
    assert re.search(
        r'class="claim contradicted" title="[^"]*Ada Vale[^"]*">by The Beatles<b [^>]*>✗</b>', html
    )
    assert re.search(
        r'class="claim supported" title="[^"]*">The artist is Ada Vale<b [^>]*>✓</b></span>\. Her', html
    )
    assert "the &lt;harbour&gt;." in html
    texts = PageReader(html).texts
    assert "likeliest name: Nine Roads, 93%" in texts, "the name that is sure need not be the answer's"
    assert "mean token probability 21%" in texts
    assert "Stored answers, given on 2031-05-06." in texts
    assert '✗ the song is by "Ada Vale"' in texts


def test_a_claim_that_overlaps_an_earlier_one_leaves_the_answer_whole(run_dir: Path) -> None:
    before = make_page(read_whole_run(run_dir)).questions[0].answers[0]
    assert "".join(piece.text for piece in before.pieces) == make_demo()[0]["before"]
    marked = [(piece.text, piece.mark.verdict) for piece in before.pieces if piece.mark]
    assert marked == [
        ("a rock song", "not checkable"),
        ("by The Beatles", "contradicted"),
        (" from 1967", "supported"),
    ], "as the demo cuts them"


def test_a_sentence_in_which_nothing_can_be_checked_is_not_marked(tmp_path: Path) -> None:
    demo = make_demo()
    demo[0]["claims_after"][0]["kind"] = "none"
    answer = make_page(read_whole_run(write_files(tmp_path, demo=demo))).questions[0].answers[1]
    assert [piece.mark for piece in answer.pieces] == [None]


def test_answers_without_marks_are_shown_as_before(tmp_path: Path) -> None:
    text = write_report(write_files(tmp_path, demo=[make_demo()[1]])).read_text(encoding="utf-8")
    assert "Claims checked" not in text
    assert '<span class="confidence"' not in text


def test_names_of_the_evaluation_are_escaped_and_take_the_page_s_colours(html: str) -> None:
    assert "<i>Ada" not in html
    assert "<b>Evil" not in html
    assert "&lt;b&gt;Evil&lt;/b&gt; &amp; Sons" in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not any(stand_in in drawings for stand_in in STAND_INS.values())
    assert "data:image" not in drawings, "a picture of pixels would keep its colours on a dark page"


def test_a_file_of_version_1_is_shown_as_ever(tmp_path: Path) -> None:
    page = evaluate_alone(tmp_path, EVALUATION)
    assert [section.id for section in page.shown] == ["accuracy"]
    assert [table.title for table in page.shown[0].tables] == ["By task"]


def test_an_evaluation_without_baselines_slices_truth_and_audit_has_fewer_parts(tmp_path: Path) -> None:
    content = make_evaluation()
    for name in ("truth", "overlap", "marks", "leakage", "hashes", "generation"):
        del content[name]
    for task in content["tasks"].values():
        task["slices"], task["calibration"], task["confusion"], task["differences"] = [], {}, {}, []
    page = evaluate_alone(tmp_path, content)
    assert [section.id for section in page.shown] == ["accuracy"]
    assert page.warnings == []


def test_a_task_that_is_only_generated_needs_no_ranked_accuracy(tmp_path: Path) -> None:
    content = make_evaluation()
    content["tasks"] = {"themes": content["tasks"]["themes"]}
    page = evaluate_alone(tmp_path, content)
    assert page.shown[0].charts[0].title == "Themes: F1"


def test_a_later_format_is_left_out_and_said_so(tmp_path: Path) -> None:
    page = evaluate_alone(tmp_path, make_evaluation() | {"format_version": 3})
    assert "evaluation.json is of format 3, expected 2: left out." in page.missing
    assert page.shown == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tasks", "artist", "metrics", 0, "value"), "much"),
        (("tasks", "artist", "metrics", 0, "n"), None),
        (("tasks", "artist", "calibration", "after", "bins"), {}),
        (("truth", "after", "supported"), "all"),
        (("marks", 0, "wanted"), None),
        (("leakage", "findings"), [1]),
    ],
)
def test_a_damaged_field_is_an_error_that_names_the_file(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    content: Any = make_evaluation()
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    if value == {}:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    with pytest.raises(DataError, match=r"evaluation\.json does not have the expected fields"):
        evaluate_alone(tmp_path, content)


@pytest.mark.parametrize("change", [{"verdict": "perhaps"}, {"end": 10_000}, {"start": -1}, {"start": None}])
def test_a_claim_that_is_none_or_lies_outside_its_answer_is_refused(tmp_path: Path, change: Fields) -> None:
    demo = make_demo()
    demo[0]["claims_after"][0] |= change
    with pytest.raises(DataError, match=r"demo\.json"):
        read_whole_run(write_files(tmp_path, demo=demo))


def test_rare_names_of_a_large_confusion_are_put_together_and_no_song_is_lost() -> None:
    names = [f"artist {i:02}" for i in range(60)]
    table = {name: {name: 60 - i, names[0]: 3} for i, name in enumerate(names)}
    limited, num_others = limit_names(table)
    assert num_others == 60 - (MAX_NAMES - 1)
    assert OTHERS in limited
    assert len(limited) == MAX_NAMES
    assert sum(sum(row.values()) for row in limited.values()) == sum(sum(r.values()) for r in table.values())
    assert limit_names({"a": {"b": 1}}) == ({"a": {"b": 1}}, 0)


def test_nothing_is_best_where_all_are_equal() -> None:
    assert find_best("acc", [None, None]) == []


@needs_chromium
def test_the_evaluation_is_no_wider_than_a_phone(tmp_path: Path, html: str) -> None:
    assert measure_width(tmp_path, html, 375) <= 375
