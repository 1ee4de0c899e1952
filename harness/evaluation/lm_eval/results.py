"""Results and samples in the files of the lm-evaluation-harness 0.4.13: results.json and samples_<task>.jsonl.

There a file is one model's. The newest model's (after, or before where there is no adapter) lie in the folder itself,
the others' in folders by the name of the system. A candidate's log-likelihood there may differ from ours by what all
candidates of the question share: a context's last spaces count as its continuation's there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness.evaluation.few_shot import put_in_front
from harness.evaluation.lm_eval.documents import (
    OUTPUT_TYPES,
    VERSION,
    Document,
    counted,
    make_document,
    name_task,
)
from harness.evaluation.lm_eval.scoring import LOWER_IS_BETTER
from harness.evaluation.material import Asked, limit_answers
from harness.evaluation.record import Record, name_of
from harness.evaluation.results import SYSTEMS, Result, System
from harness.evaluation.settings import METHODS, EvaluationSettings, Method
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import DataError

RESULTS_FILE = "results.json"
FILTER = "none"
MAX_CHOICES = 100
"""Candidates of a sample; of more the likeliest are written, and the true one."""


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """A task's samples.

    Attributes:
        method: How it was asked.
        num_shots: Examples in front of each question.
        samples: At least one.
    """

    method: Method
    num_shots: int
    samples: list[dict[str, Any]]


def write_lm_eval_results(folder: Path, settings: EvaluationSettings, record: Record) -> None:
    """Write every system's results and samples of a split; those of an earlier evaluation of the split are removed.

    Raises:
        DataError: A folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    newest: System = "before" if settings.adapter is None else "after"
    remove_results(folder, record.summary["split"])
    for system in SYSTEMS:
        own = [result for result in record.results if result.system == system]
        if own:
            _write_system(folder if system == newest else folder / system, settings, record, system, own)


def remove_results(folder: Path, split: str) -> None:
    """Remove a split's results and samples, which another evaluation would leave in part.

    Raises:
        DataError: A file cannot be removed.
    """
    patterns = (name_of(RESULTS_FILE, split), *(f"samples_{name_task('*', m, split)}.jsonl" for m in METHODS))
    for place in (folder, *(folder / system for system in SYSTEMS)):
        for path in (path for pattern in patterns for path in place.glob(pattern)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"could not remove {path}: {error.strerror or error}") from error
        if place != folder:
            with suppress(OSError):  # it is missing, or something else is in it
                place.rmdir()


def _write_system(
    folder: Path, settings: EvaluationSettings, record: Record, system: System, results: Sequence[Result]
) -> None:
    make_folder(folder)
    split = record.summary["split"]
    found: dict[str, TaskSamples] = {}
    for task in record.summary["tasks"]:
        num_shots = len(record.shots.get(task, ())) if system == "few_shot" else 0
        for method in METHODS:
            own = {r.song_id: r for r in results if r.task == task and r.method == method}
            samples = make_samples(record, settings, system, task, method, own)
            if samples:
                found[name_task(task, method, split)] = TaskSamples(method, num_shots, samples)
    for name, made in found.items():
        lines = "".join(
            json.dumps(sample, ensure_ascii=False, allow_nan=False) + "\n" for sample in made.samples
        )
        write_text_durably(folder / f"samples_{name}.jsonl", lines)
    text = json.dumps(
        summarize(found, settings, record, system), indent=2, ensure_ascii=False, allow_nan=False
    )
    write_text_durably(folder / name_of(RESULTS_FILE, split), text + "\n")


def make_samples(
    record: Record,
    settings: EvaluationSettings,
    system: System,
    task: str,
    method: Method,
    results: Mapping[str, Result],
) -> list[dict[str, Any]]:
    """A task's samples; `doc_id` counts the questions that count."""
    material = record.material
    shots = record.shots.get(task, []) if system == "few_shot" else []
    made: list[dict[str, Any]] = []
    for asked in counted(material.asked, task, method):
        result = results.get(asked.question.song_id)
        if result is not None:
            question = put_in_front(asked.question, shots, material.frame)
            prompt = material.held_out.tokenizer.decode(question.prompt)
            document = make_document(asked, prompt, method, material.labels.get(task))
            told = (
                _tell_ranking(document, result)
                if method == "rank"
                else _tell_answer(document, result, limit_answers(settings, material))
            )
            made.append(_complete(len(made), asked, result, told))
    return made


def _tell_ranking(document: Document, result: Result) -> dict[str, Any]:
    """The candidates with their log-likelihoods. Whether one is the greedy answer is not computed: "None"."""
    choices, label = document["choices"], document["label"]
    order = sorted(range(len(choices)), key=lambda i: (i != label, -result.scores[i]))[:MAX_CHOICES]
    kept = sorted(order)
    document = {**document, "choices": [choices[i] for i in kept], "label": kept.index(label)}
    responses = [[repr(result.scores[i]), "None"] for i in kept]
    cut = {} if len(kept) == len(choices) else {"num_choices": len(choices)}
    return {
        "doc": {**document, **cut},
        "target": str(document["label"]),
        "arguments": _arguments([(document["prompt"], choices[i]) for i in kept]),
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
        "metrics": {"acc": result.values["acc"]},
    }


def _tell_answer(document: Document, result: Result, limit: int) -> dict[str, Any]:
    keywords = {"max_gen_toks": limit, "do_sample": False, "temperature": 0.0}
    return {
        "doc": document,
        "target": document["expected"],
        "arguments": _arguments([(document["prompt"], keywords)]),
        "resps": [[result.text]],
        "filtered_resps": [result.text],
        "metrics": dict(result.values),
    }


def _arguments(calls: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {
        f"gen_args_{i}": {f"arg_{j}": value for j, value in enumerate(call)} for i, call in enumerate(calls)
    }


def _complete(doc_id: int, asked: Asked, result: Result, told: dict[str, Any]) -> dict[str, Any]:
    values = told.pop("metrics")
    return {
        "doc_id": doc_id,
        **told,
        "filter": FILTER,
        "metrics": list(values),
        "doc_hash": hash_text(json.dumps(told["doc"], indent=2, ensure_ascii=False)),
        "prompt_hash": hash_text(told["doc"]["prompt"]),
        "target_hash": hash_text(told["target"]),
        **values,
    }


def hash_text(text: str) -> str:
    """SHA-256 of a text, as there."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def summarize(
    found: Mapping[str, TaskSamples],
    settings: EvaluationSettings,
    record: Record,
    system: System,
) -> dict[str, Any]:
    """The content of results.json for one system."""
    metrics = {
        name: sorted({metric for sample in made.samples for metric in sample["metrics"]})
        for name, made in found.items()
    }
    adapter = f",peft={settings.adapter}" if system == "after" else ""
    return {
        "results": {
            name: {"name": name, **_means(name, made.samples, metrics[name])} for name, made in found.items()
        },
        "group_subtasks": {name: [] for name in found},
        "configs": {name: _config(name, made) for name, made in found.items()},
        "versions": dict.fromkeys(found, VERSION),
        "n-shot": {name: made.num_shots for name, made in found.items()},
        "higher_is_better": {
            name: {metric: metric not in LOWER_IS_BETTER for metric in metrics[name]} for name in found
        },
        "n-samples": {
            name: {"original": len(made.samples), "effective": len(made.samples)}
            for name, made in found.items()
        },
        "config": {
            "model": "hf",
            "model_args": f"pretrained={settings.model.path}{adapter}",
            "model_dtype": settings.model.precision,
            "batch_size": None,
            "bootstrap_iters": 0,
            "random_seed": settings.seed,
            "system": system,
        },
        "date": datetime.fromisoformat(record.summary["date"]).timestamp(),
        "transformers_version": metadata.version("transformers"),
        "task_hashes": {
            name: hash_text(
                "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in made.samples)
            )
            for name, made in found.items()
        },
        "model_source": "hf",
        "model_name": settings.model.path,
    }


def _means(name: str, samples: Sequence[dict[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": name, "sample_len": len(samples)}
    for metric in metrics:
        values = [sample[metric] for sample in samples if metric in sample["metrics"]]
        found[f"{metric},{FILTER}"] = mean(values)
        found[f"{metric}_stderr,{FILTER}"] = stdev(values) / len(values) ** 0.5 if len(values) > 1 else "N/A"
    return found


def _config(name: str, made: TaskSamples) -> dict[str, Any]:
    return {
        "task": name,
        "tag": "lyrics",
        "output_type": OUTPUT_TYPES[made.method],
        "doc_to_text": "prompt",
        "num_fewshot": made.num_shots,
        "metadata": {"version": VERSION},
    }
