"""`python -m bench learn` and `python -m bench hymns`: stages that go on, commands that exist, facts that are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.main import get_command

import harness.__main__ as harness_line
import preprocess.__main__ as preprocess_line
from bench import hymns, learn
from bench.learn.curve import trace_curve
from bench.learn.facts import describe_scores, describe_training, measure_training
from bench.stages import Job, StageError, has_checkpoint, is_trained
from bench.training import TINY, write_model
from harness.report.evaluation.reading import take_scores
from harness.report.records import RunRecords, read_run
from preprocess.errors import ConfigError, DataError
from tests.evaluation_files import accuracy, make_evaluation

TOOL = ("json.tool",)
"""A module of Python that ends with 0 given a file of JSON, and with another code given none."""


class Rehearsal(Job):
    """Notes the commands of a job, and writes what the stages after them look for."""

    commands: ClassVar[dict[str, list[str]]] = {}

    def run(self, stage: str, words: Sequence[str], is_done: Callable[[], bool] = lambda: False) -> None:
        if is_done():
            return
        self.commands[stage] = list(words)
        output = Path(words[words.index("--output") + 1]) if "--output" in words else self.folder / "run"
        if stage == "train":
            for step in (4, 8):
                (self.folder / "run" / f"checkpoint-{step}" / "adapter").mkdir(parents=True)
        if words[1] == "evaluate":
            output.mkdir(parents=True, exist_ok=True)
            (output / "evaluation.json").write_text(json.dumps(make_evaluation()), encoding="utf-8")


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    monkeypatch.setattr(Rehearsal, "commands", {})
    return Rehearsal(tmp_path)


def write_json(path: Path, content: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_stage_that_is_done_is_not_run_again_and_its_time_is_kept(tmp_path: Path) -> None:
    job, wanted, made = Job(tmp_path / "job"), write_json(tmp_path / "in.json", [1]), tmp_path / "out.json"
    job.begin({"songs": 1})
    for _ in range(2):
        job.run("copy", [*TOOL, str(wanted), str(made)], made.is_file)
    assert json.loads(made.read_text(encoding="utf-8")) == [1]
    assert list(job.seconds()) == ["copy"]
    assert len((job.folder / "stages.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_a_stage_that_fails_ends_the_job_with_its_code_and_says_why_and_where(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    job.begin({})
    with pytest.raises(StageError, match=r"copy ended with exit code [12].*copy\.log") as caught:
        job.run("copy", [*TOOL, str(tmp_path / "missing.json")])
    assert caught.value.exit_code in (1, 2)
    job.run("copy", [*TOOL, str(write_json(tmp_path / "missing.json", 1))])
    lines = [json.loads(line) for line in (job.folder / "stages.jsonl").read_text("utf-8").splitlines()]
    assert [line["exit_code"] == 0 for line in lines] == [False, True]
    assert job.seconds()["copy"] == pytest.approx(sum(line["seconds"] for line in lines))


def test_a_stage_that_is_done_again_counts_its_last_time_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    lines = [("report", 1.0, 0), ("report", 2.0, 1), ("report", 4.0, 0), ("report", 8.0, 0), ("data", 3.0, 0)]
    text = "".join(
        json.dumps({"stage": one, "seconds": s, "exit_code": code}) + "\n" for one, s, code in lines
    )
    (tmp_path / "stages.jsonl").write_text(text, encoding="utf-8")
    assert job.seconds() == {"report": 8.0, "data": 3.0}


def test_a_job_that_was_begun_with_another_plan_is_refused_and_nothing_is_deleted(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    job.begin({"songs": 100, "seed": 0})
    job.begin({"seed": 0, "songs": 100})
    with pytest.raises(ConfigError, match=r"songs was 100 and is 200.*Move the folder away"):
        job.begin({"songs": 200, "seed": 0})
    assert json.loads((job.folder / "plan.json").read_text("utf-8")) == {"songs": 100, "seed": 0}


def test_a_folder_that_another_program_began_is_taken_as_it_is_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = write_json(tmp_path / "job" / "songs.jsonl", {})
    Job(tmp_path / "job").begin({})
    assert "taken as it is" in capsys.readouterr().err
    assert songs.is_file()
    Job(tmp_path / "new").begin({})
    assert capsys.readouterr().err == ""


def test_a_run_is_trained_when_its_adapter_and_its_summary_are_there(tmp_path: Path) -> None:
    assert not is_trained(tmp_path)
    write_json(tmp_path / "adapter" / "adapter_config.json", {})
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"kind": "train", "step": 1}\n', encoding="utf-8")
    assert not is_trained(tmp_path)
    metrics.write_text('{"kind": "train", "step": 1}\n{"kind": "summary", "step": 1}\n', encoding="utf-8")
    assert is_trained(tmp_path)
    assert not has_checkpoint(tmp_path)
    write_json(tmp_path / "checkpoint-4" / "manifest.json", {})
    assert has_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [learn.QUICK, learn.FULL])
def test_every_command_of_the_job_is_one_that_the_programs_take(
    rehearsal: Rehearsal, size: learn.Size
) -> None:
    learn.do_stages(rehearsal, size)
    stages = ["songs", "data", "train", "curve-4", "curve-8", "evaluate", "demo", "report"]
    assert list(rehearsal.commands) == stages
    apps = {"preprocess": preprocess_line.app, "harness": harness_line.app}
    for program, name, *words in rehearsal.commands.values():
        command = get_command(apps[program]).commands[name]  # type: ignore[attr-defined] # a group, as typer makes of several commands
        command.make_context(name, list(words))
    with pytest.raises(Exception, match="No such option"):
        command.make_context("report", ["--no-such-option"])


@pytest.mark.slow
def test_a_toy_goes_all_the_way_and_its_record_is_the_same_when_asked_again(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", replace(TINY, seq_len=768))
    train = ("schedule.max_steps=4", "schedule.save_every_steps=2", "schedule.eval_every_steps=2")
    size = replace(
        learn.QUICK, folder=str(tmp_path / "job"), model=str(model), train=train, evaluate=("--songs", "6")
    )
    first = learn.learn(size)
    assert {"artist_at_step_0", "artist_at_step_2", "artist_at_step_4"} <= set(first.facts)
    assert {"artist_eval_loss_at_step_2", "artist_acc_tfidf", "artist_acc_after_rank_low"} <= set(first.facts)
    page = (tmp_path / "job" / "run" / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{section}"' in page for section in ("accuracy", "learning", "truth"))
    again = learn.learn(size)
    times = {name for name in first.facts if name.endswith("_s")}
    assert {k: v for k, v in again.facts.items() if k not in times} == {
        k: v for k, v in first.facts.items() if k not in times
    }


def test_training_that_was_stopped_goes_on_from_its_checkpoint(rehearsal: Rehearsal) -> None:
    learn.do_stages(rehearsal, learn.QUICK)
    assert "--resume" not in rehearsal.commands["train"]
    write_json(rehearsal.folder / "run" / "checkpoint-4" / "manifest.json", {})
    command = learn.train_command(rehearsal.folder / "run", rehearsal.folder / "data", "learn", ())
    assert command[-1] == "--resume"


def test_the_curve_begins_with_the_base_model_and_has_a_point_for_each_checkpoint(
    rehearsal: Rehearsal,
) -> None:
    run_dir = rehearsal.folder / "run"
    for step in (12, 4):
        (run_dir / f"checkpoint-{step}").mkdir(parents=True)
        content = {
            "tasks": {"artist": {"before": accuracy(0.1), "after": accuracy(step / 20)}, "similar": {}}
        }
        write_json(run_dir / "curve" / f"step-{step}" / "evaluation.json", content)
    trace_curve(rehearsal, run_dir, 8)
    assert rehearsal.commands == {}, "a checkpoint that was evaluated is not evaluated again"
    curve = read_run(write_run_with_curve(run_dir)).curve
    assert [(point.step, point.accuracy["artist"][0]) for point in curve] == [(0, 0.1), (4, 0.2), (12, 0.6)]
    assert "similar" not in curve[0].accuracy


def write_run_with_curve(run_dir: Path) -> Path:
    (run_dir / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    return run_dir


def test_the_record_tells_each_task_s_headline_by_system_with_its_interval() -> None:
    content = make_evaluation()
    facts = describe_scores(take_scores(content, content["tasks"]))
    assert facts["artist_acc_after_rank"] == 0.82
    assert facts["genre_acc_tfidf"] == 0.9
    assert float(facts["artist_acc_after_rank_low"]) < 0.82 < float(facts["artist_acc_after_rank_high"])
    assert facts["themes_f1_few_shot_generate"] == 0.34
    assert "themes_precision_after_generate" not in facts
    assert (facts["hallucination_rate_before"], facts["claims_checked_before"]) == (0.75, 84)
    assert (facts["goal_artist"], facts["goal_genre"]) == ("reached", "not reached")
    assert "goal_themes" not in facts
    assert facts["questions_left_out_for_leaks"] == 1


def test_the_time_of_training_is_the_summary_s_and_without_one_that_of_the_steps() -> None:
    parts = {"step_time_total_s": 300.0, "warmup_s": 2.0, "eval_s": 30.0, "save_s": None, "stalls_s": 0.5}
    steps: list[dict[str, Any]] = [{"step_time_s": 2.0}, {"step_time_s": 1.5}]
    assert measure_training(RunRecords("r", train=steps, summary=parts)) == 332.5
    assert measure_training(RunRecords("r", train=steps)) == 3.5
    assert describe_training(RunRecords("r", train=steps, attempts=[{}])) == {"training_s": 3.5}
    assert describe_training(RunRecords("r", train=steps, attempts=[{}, {}])) == {}


HYMN = {"title": "A", "artist": "Wesley, Charles (1707-1788)", "year": 1739, "topics": [], "lyrics": "la"}


def test_a_hymn_s_topics_become_the_themes_that_they_stand_for(tmp_path: Path) -> None:
    rows = [
        HYMN | {"topics": ["Atonement", "God, Majesty &amp; Power of", "Blood", "Levites"]},
        HYMN | {"title": "B"},
        HYMN | {"title": "C", "artist": None},
    ]
    path = tmp_path / "hymns.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    songs = hymns.read_hymns(path)
    assert songs[0]["themes"] == ["salvation", "praise"]
    facts = hymns.describe_hymns(songs)
    assert (facts["hymns"], facts["authors"], facts["authors_with_more_than_one_hymn"]) == (3, 1, 1)
    assert (facts["hymns_of_these_authors"], facts["hymns_without_a_theme"]) == (2, 2)


def test_hymns_that_are_missing_or_of_another_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pass --input FILE"):
        hymns.read_hymns(tmp_path / "none.jsonl")
    path = tmp_path / "other.jsonl"
    path.write_text('{"title": "A", "artist": "B", "lyrics": "la"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="hymn 1: no 'topics'"):
        hymns.read_hymns(path)


@pytest.mark.parametrize(
    ("field", "value"), [("topics", 5), ("topics", [3]), ("topics", "Easter; Hope"), ("artist", ["A", "B"])]
)
def test_a_hymn_s_field_of_another_type_is_refused_with_its_place(
    tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / "hymns.jsonl"
    rows = [HYMN, HYMN | {field: value}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=f"hymn 2: {field} is "):
        hymns.read_hymns(path)


def test_a_job_on_hymns_is_another_with_other_topics_or_another_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hymns.jsonl"
    path.write_text(json.dumps(HYMN) + "\n", encoding="utf-8")
    plan = hymns.make_plan(hymns.QUICK, path)
    assert hymns.make_plan(replace(hymns.QUICK, curve_songs=5), path) != plan
    monkeypatch.setattr(hymns, "TOPICS", {"Hope": ("hope",)})
    assert hymns.make_plan(hymns.QUICK, path) != plan
