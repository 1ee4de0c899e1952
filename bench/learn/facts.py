"""What a trained and evaluated run reached, as the facts of a record."""

from __future__ import annotations

import math
from pathlib import Path

from bench.record import Figure, summarize
from harness.memory.profile import GIB
from harness.report.evaluation.records import Scores
from harness.report.evaluation.systems import headline_of
from harness.report.records import RunRecords, read_run
from preprocess.manifest import read_manifest

Facts = dict[str, float | int | str]

RATES = {"samples_per_s": "examples/s", "tokens_per_s": "tokens/s", "step_time_s": "s"}


def describe_speed(run: RunRecords) -> dict[str, Figure]:
    """Rates of every step but the first."""
    return {name: summarize([line[name] for line in run.train[1:]], unit) for name, unit in RATES.items()}


def describe_run(run_dir: Path, data: Path) -> tuple[dict[str, Figure], Facts]:
    """Rates of the steps, and what the run learned, from what and how fast.

    Args:
        run_dir: A finished run with its evaluation.
        data: Its data set.

    Raises:
        DataError: A file is missing or damaged.
    """
    run = read_run(run_dir)
    train = read_manifest(data).splits["train"]
    facts: Facts = {
        "train_songs": train.num_songs,
        "train_examples": train.num_examples,
        "train_tokens": train.num_tokens,
        "steps": run.train[-1]["step"],
        **describe_training(run),
        **({"peak_gib": max(one.peak_bytes for one in run.memory) / GIB} if run.memory else {}),
        "held_out_songs": run.evaluation.get("num_songs", 0),
        **describe_losses(run),
        **{
            f"{task}_at_step_{point.step}": value
            for point in run.curve
            for task, (value, _, _) in point.accuracy.items()
        },
        **describe_scores(run.scores),
        **{f"unseen_artists: {name}": value for name, value in describe_scores(run.unseen).items()},
    }
    return describe_speed(run), facts


TIMES = ("step_time_total_s", "warmup_s", "eval_s", "save_s", "stalls_s")


def describe_training(run: RunRecords) -> Facts:
    """How long training took; nothing of a run that was started again, whose last summary is of its last part."""
    return {"training_s": measure_training(run)} if len(run.attempts) < 2 else {}


def measure_training(run: RunRecords) -> float:
    """Seconds from the first step to the last save, evaluations of the loss among them; loading is apart."""
    times = run.summary or {"step_time_total_s": math.fsum(line["step_time_s"] for line in run.train)}
    return math.fsum(times.get(name) or 0.0 for name in TIMES)


def describe_losses(run: RunRecords) -> Facts:
    """Eval loss by task at every evaluation, in nats a supervised token."""
    return {
        f"{task}_eval_loss_at_step_{line['step']}": loss
        for line in run.evals
        for task, loss in (line.get("by_task") or {}).items()
        if loss is not None
    }


def describe_scores(scores: Scores) -> Facts:
    """Each task's headline metric by system with its interval; claims, overlap and leaks."""
    facts: Facts = {}
    for one in scores.measurements:
        if one.metric != headline_of(one.task, scores.measurements) or one.value is None:
            continue
        way = one.system if one.method == "baseline" else f"{one.system}_{one.method}"
        name = f"{one.task}_{one.metric}_{way}"
        facts[name] = one.value
        facts |= {f"{name}_{end}": v for end, v in (("low", one.low), ("high", one.high)) if v is not None}
        facts[f"{name}_songs"] = one.n
    for rates in scores.truth:
        if not rates.task:
            facts[f"claims_checked_{rates.system}"] = rates.supported + rates.contradicted
            if rates.hallucination_rate is not None:
                facts[f"hallucination_rate_{rates.system}"] = rates.hallucination_rate
    facts |= {f"longest_overlap_words_{one.system}": one.longest_words for one in scores.overlap}
    if scores.leakage is not None:
        facts["questions_left_out_for_leaks"] = scores.leakage.num_excluded
    for mark in scores.marks:
        if mark.is_reached is not None:
            facts[f"goal_{mark.mark}"] = "reached" if mark.is_reached else "not reached"
    return facts
