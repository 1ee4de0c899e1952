"""The files of an evaluation: what stands in their way is told of first; each split is written when it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import harness.evaluation.command
from harness.evaluation.command import evaluate_on_hosts
from harness.evaluation.judging import judge_ranking
from harness.evaluation.lm_eval.results import remove_results
from harness.evaluation.record import EVALUATION_FILE, SAMPLES_FILE
from harness.evaluation.run import evaluate_model
from preprocess.durable import write_text_durably
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import read_manifest, write_manifest
from tests.evaluations import make_evaluated, make_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluated(tmp_path_factory.mktemp("made"))


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed."""

    def compute(*args: object) -> None:
        raise AssertionError("a question was asked")

    for name in ("rank_names", "write_answers"):
        monkeypatch.setattr(harness.evaluation.run, name, compute)


def without_unseen(made: Path, folder: Path) -> Path:
    """The data set without its second held-out split."""
    shutil.copytree(made / "data", folder)
    manifest = read_manifest(folder)
    splits = {name: found for name, found in manifest.splits.items() if name != "eval_unseen"}
    write_manifest(folder, replace(manifest, splits=splits))
    return folder


@pytest.mark.usefixtures("unasked")
def test_a_split_that_is_missing_is_told_of_before_the_first_is_asked(
    made: Path, console: Console, tmp_path: Path
) -> None:
    data = without_unseen(made, tmp_path / "data")
    settings = make_settings(made, data=data, splits=("eval", "eval_unseen"))
    with pytest.raises(DataError, match="holds no eval_unseen split"):
        evaluate_model(settings, console)


@pytest.mark.usefixtures("unasked")
def test_answers_that_are_too_long_are_told_of_before_names_are_ranked(made: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="positions"):
        evaluate_model(make_settings(made, songs=1, max_new_tokens=10_000), console)


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(
    ("where", "kind", "expected"),
    [
        ("output", DataError, "could not write"),
        ("lm_eval_tasks", ConfigError, "--lm-eval-tasks .*: a file of that name is there"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_told_of_first(
    made: Path, console: Console, tmp_path: Path, where: str, kind: type[Exception], expected: str
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(kind, match=expected):
        evaluate_model(make_settings(made, **{where: tmp_path / "file"}), console)


@pytest.mark.usefixtures("unasked")
def test_a_folder_that_cannot_be_written_to_is_told_of_first(
    made: Path, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(DataError, match="cannot be written to"):
        evaluate_model(make_settings(made, output=tmp_path), console)


def test_a_split_that_is_done_is_written_though_the_next_one_fails(
    made: Path, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fail_the_second_time(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise DataError("the second split")
        return judge_ranking(*args)

    monkeypatch.setattr("harness.evaluation.run.judge_ranking", fail_the_second_time)
    settings = make_settings(
        made, splits=("eval", "eval_unseen"), methods=("rank",), output=tmp_path, songs=2, baselines=False
    )
    with pytest.raises(DataError, match="the second split"):
        evaluate_model(settings, console)
    assert (tmp_path / EVALUATION_FILE).is_file()
    assert (tmp_path / SAMPLES_FILE).is_file()
    assert not list(tmp_path.glob("*eval_unseen*"))


def launch_that_writes(write: Callable[[], None]) -> Callable[..., int]:
    """What stands in for ranks on other hosts."""

    def launch(*args: object, **options: object) -> int:
        write()
        return 0

    return launch


def test_an_earlier_evaluation_on_this_host_is_not_shown_as_the_new_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / EVALUATION_FILE
    settings = make_settings(made, output=tmp_path)
    monkeypatch.setattr(harness.evaluation.command, "launch", launch_that_writes(lambda: None))
    with pytest.raises(DataError, match="not on this host"):
        evaluate_on_hosts(settings, tmp_path / "hosts", None)
    summary.write_text('{"date": "old"}', encoding="utf-8")
    with pytest.raises(DataError, match="an earlier evaluation's"):
        evaluate_on_hosts(settings, tmp_path / "hosts", None)
    assert summary.read_text("utf-8") == '{"date": "old"}'
    write = launch_that_writes(lambda: write_text_durably(summary, '{"date": "new"}'))
    monkeypatch.setattr(harness.evaluation.command, "launch", write)
    assert evaluate_on_hosts(settings, tmp_path / "hosts", None) == [{"date": "new"}]


def test_results_of_an_earlier_evaluation_of_the_split_are_removed_and_nothing_else(tmp_path: Path) -> None:
    old = [
        "results.json",
        "samples_lyrics_artist_rank.jsonl",
        "samples_lyrics_own_task_generate.jsonl",
        "before/samples_lyrics_artist_rank.jsonl",
        "few_shot/results.json",
        "few_shot/samples_lyrics_artist_generate.jsonl",
    ]
    kept = [
        "config.yaml",
        "results_eval_unseen.json",
        "samples_lyrics_artist_rank_eval_unseen.jsonl",
        "before/results_eval_unseen.json",
        "evaluation_samples.jsonl",
    ]
    for name in (*old, *kept):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("", encoding="utf-8")
    remove_results(tmp_path, "eval")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(kept)
    assert not (tmp_path / "few_shot").exists()
    remove_results(tmp_path, "eval_unseen")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "evaluation_samples.jsonl"]


def test_fewer_methods_leave_no_samples_of_more(made: Path, console: Console, tmp_path: Path) -> None:
    settings = make_settings(made, songs=1, output=tmp_path, methods=("rank",), baselines=False)
    evaluate_model(settings.model_copy(update={"few_shot": 1}), console)
    assert (tmp_path / "few_shot" / "results.json").is_file()
    evaluate_model(settings, console)
    assert not (tmp_path / "few_shot").exists()
    assert (tmp_path / "results.json").is_file()
