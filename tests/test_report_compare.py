"""Several runs on one page: ratios with intervals, what differs, what may not be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.report import read_whole_run
from harness.report.command import write_page
from harness.report.compare import label_runs
from harness.report.compare.differences import find_differences, flatten, list_differences
from harness.report.compare.figures import list_figures
from harness.report.ratios import compare_rates
from harness.report.records import RunRecords
from preprocess.errors import ConfigError
from tests.test_report import PageReader, measure_width, needs_chromium, run_chromium, write_run
from tests.test_report_slowdowns import make_run, slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the same with another rate, twice the step time, other accuracy."""
    root = tmp_path_factory.mktemp("compared")
    first = write_run(root / "first")
    second = root / "second"
    shutil.copytree(first, second)
    config = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(config.replace("0.0002", "0.0004"))
    edit_lines(
        second / "metrics.jsonl", lambda line: line | {"step_time_s": 2 * line.get("step_time_s", 0.0)}
    )
    return first, second


def edit_lines(path: Path, change: Any) -> None:
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def content(runs: tuple[Path, Path]) -> tuple[str, dict[str, Any]]:
    path, found = write_page(runs)
    assert path == runs[0] / "comparison.html"
    return path.read_text(encoding="utf-8"), found


def test_the_page_overlays_curves_and_shows_what_differs(content: tuple[str, dict[str, Any]]) -> None:
    page, found = content
    reader = PageReader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {"figures", "training", "throughput", "settings", "answers", "setup"} <= set(reader.ids)
    for words in ("step", "tokens", "wall time"):
        assert f"Loss against {words}; eval dashed" in reader.texts
    (settings,) = [table for table in found["tables"] if table["title"] == "Settings"]
    assert settings["columns"] == ["", "first", "second"]
    assert settings["rows"] == [["optimizer.learning_rate", "0.0002", "0.0004"]]
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)


def test_a_run_that_takes_twice_the_time_has_half_the_rate(content: tuple[str, dict[str, Any]]) -> None:
    first, second = content[1]["figures"]["tokens_per_s"]
    assert second["value"] == pytest.approx(first["value"] / 2)
    assert second["ratio"] == pytest.approx(0.5)
    assert 0.49 < second["low"] <= 0.5 <= second["high"] < 0.51
    (warning,) = content[1]["warnings"]
    assert warning["text"].startswith("second takes 2.00 times as long as first for a token")


def test_the_same_runs_give_the_same_bytes(
    runs: tuple[Path, Path], content: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    path, _ = write_page(runs, tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == content[0]


def test_an_interval_covers_no_difference_nineteen_times_of_twenty() -> None:
    def steps(seed: int) -> tuple[Any, Any]:
        draws = np.random.default_rng(seed)
        noise = draws.normal(0, 0.1, 200)
        for i in range(1, 200):
            noise[i] = 0.5 * noise[i - 1] + noise[i]
        return np.full(200, 100.0), np.exp(noise)

    ratios = [compare_rates(steps(2 * i), steps(2 * i + 1)) for i in range(200)]
    clear = sum(ratio is not None and ratio.is_clear for ratio in ratios)
    assert clear <= 0.12 * len(ratios)  # 5 % if steps were independent


def test_few_steps_give_a_ratio_without_an_interval() -> None:
    ratio = compare_rates((np.ones(3), np.ones(3)), (np.ones(3), 2 * np.ones(3)))
    assert ratio is not None
    assert (ratio.value, ratio.low) == (2.0, None)
    assert compare_rates((np.ones(3), np.zeros(3)), (np.ones(3), np.ones(3))) is None


def with_tokens(run: RunRecords) -> RunRecords:
    for line in run.train:
        line["tokens"] = 1000
    return run


def test_a_planted_sleep_is_found_beside_the_even_run_and_noise_is_not() -> None:
    base = with_tokens(make_run())
    noisy = with_tokens(make_run(seed=1))
    slowed = with_tokens(make_run(slow("data", 1, add_s=1.2), seed=2))
    texts = [one.text for one in list_differences([("base", base), ("noisy", noisy), ("slowed", slowed)])]
    (slower,) = [text for text in texts if "as long as" in text and text.startswith("slowed takes")]
    assert "is in data" in slower
    assert not any(text.startswith("noisy") for text in texts)


def test_other_data_model_or_ranks_are_warned_of() -> None:
    def run(**identity: str) -> RunRecords:
        config = "data:\n  path: a\nmodel:\n  path: m\nbatch:\n  global_batch_size: 8\n"
        return RunRecords("r", config=config, identity=identity, summary={"step": 1, "world_size": 3})

    first, second = run(data="aa", tokenizer="t"), run(data="bb", tokenizer="t")
    (only,) = list_differences([("first", first), ("second", second)])
    assert "The data of second is not first's" in only.text
    second.identity = {}  # an older run has no hashes: the settings tell
    assert list_differences([("first", first), ("second", second)]) == []
    second.config = "data:\n  path: b\nmodel:\n  path: n\nbatch:\n  global_batch_size: 16\n"
    second.summary = {"step": 1, "world_size": 2}
    texts = " ".join(one.text for one in list_differences([("first", first), ("second", second)]))
    for words in (
        "The data of",
        "The base model of",
        "number of ranks differs (first 3, second 2)",
        "against tokens",
    ):
        assert words in texts


def test_settings_are_compared_by_dotted_key() -> None:
    tables = [flatten({"a": {"b": 1, "c": [1]}, "d": {}}), flatten({"a": {"b": 2, "c": [1]}, "e": None})]
    assert find_differences(tables) == {"a.b": [1, 2], "d": [{}, None]}


def test_labels_take_as_many_parents_as_they_need(tmp_path: Path) -> None:
    assert label_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    with pytest.raises(ConfigError, match="given twice"):
        label_runs([tmp_path / "a", tmp_path / "b" / ".." / "a"])
    with pytest.raises(ConfigError, match="at most 8"):
        label_runs([tmp_path / str(i) for i in range(9)])


def test_runs_with_little_in_common_are_compared_in_what_they_have(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    (tmp_path / "second").mkdir()
    shutil.copy(first / "evaluation.json", tmp_path / "second")
    path, content = write_page([tmp_path / "second", first])
    PageReader(path.read_text(encoding="utf-8"))
    assert content["figures"]["tokens_per_s"][0]["value"] is None
    assert list_figures([("second", read_whole_run(tmp_path / "second"))]) == []


def test_the_command_writes_json_and_refuses_a_folder_as_output(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "one.html"
    done = CliRunner().invoke(app, ["report", str(runs[0]), "--output", str(output), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["file"] == str(output)
    assert any(table["section"] == "accuracy" for table in found["tables"])
    assert output.is_file()
    refused = CliRunner().invoke(app, ["report", str(runs[0]), "--output", str(tmp_path)])
    assert refused.exit_code == 2
    assert CliRunner().invoke(app, ["report", str(runs[0]), str(tmp_path / "nowhere")]).exit_code == 4


@needs_chromium
def test_a_browser_opens_the_comparison_and_nothing_is_wider_than_a_phone(
    runs: tuple[Path, Path], content: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert "What differs" in run_chromium(tmp_path, "--dump-dom", (runs[0] / "comparison.html").as_uri())
    assert measure_width(tmp_path, content[0], 375) <= 375
