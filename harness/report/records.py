"""What a run folder holds, read and checked for the report. Any part may be missing; a damaged one is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.evaluation.accuracy import Accuracy
from harness.json_lines import JsonObject, read_json_lines
from harness.memory.case import MemoryPlan
from harness.memory.plan_file import PLAN_FILE as MEMORY_PLAN_FILE
from harness.memory.plan_file import read_plan
from harness.memory.profile import MEMORY_FILE, MemoryRecord, read_memory
from harness.memory.timeline import TIMELINE_FILE, MemoryTimeline, read_timelines
from harness.metering.ceilings import CEILINGS_FILE
from harness.metrics_file import METRICS_FILE
from harness.report.evaluation.learning_file import CURVE_FILE, CurvePoint, parse_curve
from harness.report.evaluation.reading import take_scores
from harness.report.evaluation.records import FORMAT_VERSIONS, Scores
from harness.report.identity import read_identity
from harness.report.json_files import check_shape, read_json, read_object
from harness.report.samples import SampleAnswer, parse_sample
from preprocess.errors import DataError, UserError


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's accuracy without and with the adapter, and what guessing reaches.

    Attributes:
        task: Name of the task.
        before: Of the base model, or None.
        after: Of the fine-tuned model, or None.
        chance: Accuracy of a uniform guess, 0 to 1, or None.
        majority: Accuracy of always giving the most frequent answer, 0 to 1, or None.
    """

    task: str
    before: Accuracy | None
    after: Accuracy | None
    chance: float | None
    majority: float | None


@dataclass(slots=True)
class RunRecords:
    """Everything that the report shows.

    Attributes:
        name: Name of the run folder.
        config: The resolved configuration as YAML text, or None.
        train: Lines of kind "train", by step.
        evals: Lines of kind "eval", by step.
        summary: The last line of kind "summary", or None (a run that was stopped writes none).
        ranks: Lines of kind "ranks", by step: the step's time and its parts on every rank.
        events: Lines of kind "event", by step: a rank that was slow, memory that ran out.
        attempts: How each start of the run by `harness launch` ended, in order.
        ceilings: What the cards and the link reached on the spot before the run; {} without.
        profile: Where the profiled steps' time went; {} without.
        identity: Hashes by what they are of (data, tokenizer, base model, adapter, code), and a table of shards.
        memory: Memory by phase and rank.
        tasks: Accuracy by task.
        evaluation: Further figures of the evaluation (num_songs, seconds, ...).
        scores: All systems with intervals, slices, truth and more, where the evaluation is of version 2.
        unseen: The same of songs by artists that training never saw.
        curve: Accuracy at several checkpoints, by step.
        demo: Sample answers.
        quality: Summary of the data, nested as its writer chose.
        versions: Versions of the software and hardware.
        plan: What `harness plan` predicted before the run; {} without one.
        roofline: Ceilings and where the run stands, as `harness roofline --json` tells them; {} where nothing can be.
        timelines: Memory within one step, by rank.
        memory_plans: Predicted memory, by rank.
        kind: What the page is, as its first line says.
        missing: A sentence for each part that the folder does not hold.
    """

    name: str
    config: str | None = None
    train: list[JsonObject] = field(default_factory=list)
    evals: list[JsonObject] = field(default_factory=list)
    summary: JsonObject | None = None
    ranks: list[JsonObject] = field(default_factory=list)
    events: list[JsonObject] = field(default_factory=list)
    attempts: list[JsonObject] = field(default_factory=list)
    ceilings: JsonObject = field(default_factory=dict)
    identity: JsonObject = field(default_factory=dict)
    profile: JsonObject = field(default_factory=dict)
    memory: list[MemoryRecord] = field(default_factory=list)
    tasks: list[TaskResult] = field(default_factory=list)
    evaluation: JsonObject = field(default_factory=dict)
    scores: Scores = field(default_factory=Scores)
    unseen: Scores = field(default_factory=Scores)
    curve: list[CurvePoint] = field(default_factory=list)
    demo: list[SampleAnswer] = field(default_factory=list)
    quality: JsonObject = field(default_factory=dict)
    versions: JsonObject = field(default_factory=dict)
    plan: JsonObject = field(default_factory=dict)
    roofline: JsonObject = field(default_factory=dict)
    timelines: list[MemoryTimeline] = field(default_factory=list)
    memory_plans: list[MemoryPlan] = field(default_factory=list)
    kind: str = "Training report"
    missing: list[str] = field(default_factory=list)


PARTS = {
    METRICS_FILE: "loss, learning rate and throughput",
    MEMORY_FILE: "memory by phase",
    "evaluation.json": "accuracy before and after",
    "demo.json": "sample answers",
    "quality.json": "the data summary",
    "config.yaml": "the configuration",
    "versions.json": "versions",
}
"""File of the run folder to what the report shows of it."""

PLAN_FILE = "plan.json"
"""What `python -m harness plan --json` printed, where a user keeps it with the run; nothing is missing without it."""

PROFILE = Path("profile") / "summary.json"
"""What a run with --profile adds up."""

ATTEMPTS = Path("launch") / "attempts.jsonl"
"""What `harness.cluster.restart` writes; it is named here because the report loads nothing of a launch."""


def read_run(run_dir: Path) -> RunRecords:
    """Read a run folder.

    Args:
        run_dir: Folder that a run wrote.

    Raises:
        DataError: The folder is missing, holds none of the files of a run, or holds a damaged one.
    """
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is not a folder. Give the folder that a run wrote (output_dir).")
    present = [name for name in PARTS if (run_dir / name).is_file()]
    if not present:
        raise DataError(
            f"{run_dir} holds none of {', '.join(PARTS)}. Give the folder that a run wrote (output_dir)."
        )
    run = RunRecords(name=run_dir.resolve().name)
    for name in present:
        READERS[name](run, run_dir / name)
    if (run_dir / PLAN_FILE).is_file():
        run.plan = read_object(run_dir / PLAN_FILE)
    if (run_dir / TIMELINE_FILE).is_file():
        run.timelines = read_timelines(run_dir / TIMELINE_FILE)
    if (run_dir / MEMORY_PLAN_FILE).is_file():
        run.memory_plans = read_plan(run_dir / MEMORY_PLAN_FILE)
    run.roofline, left_out = read_roofline(run_dir) if run.summary and run.config else ({}, [])
    for name, reader in EXTRA_READERS.items():
        if (run_dir / name).is_file():
            reader(run, run_dir / name)
    run.missing += [f"{name} is not there: {PARTS[name]} left out." for name in PARTS if name not in present]
    run.ceilings = _read_versioned(run, run_dir / CEILINGS_FILE)
    run.profile = _read_versioned(run, run_dir / PROFILE)
    if (run_dir / ATTEMPTS).is_file():
        run.attempts = read_json_lines(run_dir / ATTEMPTS)
    run.identity = read_identity(run_dir)
    if run.train and run.summary is None:
        run.missing.append(f"{METRICS_FILE} has no summary: throughput is taken from the steps.")
    run.missing += left_out
    return run


def read_roofline(run_dir: Path) -> tuple[JsonObject, list[str]]:
    """The roofline of a finished run that measured its ceilings, or {} and a sentence that says why there is none.

    Nothing is missing from a run that measured none: `harness roofline RUN --gpu NAME` tells one for a named card.
    """
    from harness.roofline.command import study_run
    from harness.roofline.measured import read_measured
    from harness.roofline.study import to_json

    if not (run_dir / CEILINGS_FILE).is_file():
        return {}, []
    try:
        return to_json(study_run(read_measured(run_dir))), []
    except UserError as error:
        return {}, [f"the roofline is left out: {error}."]


def _read_metrics(run: RunRecords, path: Path) -> None:
    lines = [line for line in read_json_lines(path) if "step" in line]
    kinds = ("train", "eval", "ranks", "event", "summary")
    by_kind = {kind: [x for x in lines if x.get("kind") == kind] for kind in kinds}
    run.train, run.evals, run.ranks, run.events = (
        sorted(by_kind[kind], key=lambda line: int(line["step"])) for kind in kinds[:-1]
    )
    run.summary = by_kind["summary"][-1] if by_kind["summary"] else None


def _read_memory(run: RunRecords, path: Path) -> None:
    run.memory = read_memory(path)


def _read_evaluation(run: RunRecords, path: Path) -> None:
    content = read_object(path)
    if (version := content.pop("format_version", 1)) not in FORMAT_VERSIONS:
        run.missing.append(f"{path.name} is of format {version}, expected {FORMAT_VERSIONS[-1]}: left out.")
        return
    tasks = content.pop("tasks", {})
    run.tasks = check_shape(path, lambda: [_parse_task(task, fields) for task, fields in tasks.items()])
    run.scores = check_shape(path, lambda: take_scores(content, tasks))
    run.evaluation = content


def _read_unseen(run: RunRecords, path: Path) -> None:
    """An evaluation of songs by artists that training never saw."""
    apart = RunRecords(run.name, missing=run.missing)
    _read_evaluation(apart, path)
    run.unseen = apart.scores


def _read_curve(run: RunRecords, path: Path) -> None:
    content = _read_versioned(run, path)
    run.curve = check_shape(path, lambda: parse_curve(content)) if content else []


def _parse_task(task: str, fields: JsonObject) -> TaskResult:
    before, after = (_parse_accuracy(fields.get(key)) for key in ("before", "after"))
    return TaskResult(task, before, after, fields.get("chance"), fields.get("majority"))


def _parse_accuracy(fields: JsonObject | None) -> Accuracy | None:
    return None if fields is None else Accuracy(**{key: fields[key] for key in Accuracy.__dataclass_fields__})


def _read_demo(run: RunRecords, path: Path) -> None:
    answers = read_json(path)
    run.demo = check_shape(path, lambda: [parse_sample(answer) for answer in answers])


ONLY_ON_THE_SONGS_PAGE = frozenset({"samples", "genres_by_tag", "genres_by_decade", "quality_scores"})


def _read_quality(run: RunRecords, path: Path) -> None:
    quality = read_object(path)
    songs = quality.get("quality")
    if isinstance(songs, dict):
        # The songs' own page shows these at length; here they would drown the rest.
        quality["quality"] = {key: value for key, value in songs.items() if key not in ONLY_ON_THE_SONGS_PAGE}
    run.quality = quality


def _read_versions(run: RunRecords, path: Path) -> None:
    run.versions = read_object(path)


def _read_config(run: RunRecords, path: Path) -> None:
    run.config = path.read_text(encoding="utf-8")


READERS: dict[str, Callable[[RunRecords, Path], None]] = {
    METRICS_FILE: _read_metrics,
    MEMORY_FILE: _read_memory,
    "evaluation.json": _read_evaluation,
    "demo.json": _read_demo,
    "quality.json": _read_quality,
    "config.yaml": _read_config,
    "versions.json": _read_versions,
}

EXTRA_READERS: dict[str, Callable[[RunRecords, Path], None]] = {
    "evaluation_eval_unseen.json": _read_unseen,
    CURVE_FILE: _read_curve,
}
"""Nothing is missing without these."""


def _read_versioned(run: RunRecords, path: Path) -> JsonObject:
    """A file that carries its format; {} where it is not there or of another one, which the page tells."""
    if not path.is_file():
        return {}
    content = read_object(path)
    version = content.get("format_version")
    if version != 1:
        run.missing.append(f"{path.name} is of format {version}, expected 1: left out.")
        return {}
    return content
