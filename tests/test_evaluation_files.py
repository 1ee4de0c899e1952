"""The files of an evaluation: what stands in their way is told of first; each split is written when it is done."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import harness.evaluation.run
from harness.evaluation.record import EVALUATION_FILE, SAMPLES_FILE
from harness.evaluation.run import evaluate_model
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
    judge = harness.evaluation.run.judge_ranking
    seen: list[int] = []

    def fail_the_second_time(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise DataError("the second split")
        return judge(*args)

    monkeypatch.setattr(harness.evaluation.run, "judge_ranking", fail_the_second_time)
    settings = make_settings(
        made, splits=("eval", "eval_unseen"), methods=("rank",), output=tmp_path, songs=2, baselines=False
    )
    with pytest.raises(DataError, match="the second split"):
        evaluate_model(settings, console)
    assert (tmp_path / EVALUATION_FILE).is_file()
    assert (tmp_path / SAMPLES_FILE).is_file()
    assert not list(tmp_path.glob("*eval_unseen*"))
