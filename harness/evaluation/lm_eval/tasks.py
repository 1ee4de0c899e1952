"""The questions as a task folder: `lm_eval --include_path DIR --tasks lyrics`.

DIR/lyrics_artist_rank.yaml       multiple_choice, one document a question in lyrics_artist_rank.jsonl
DIR/lyrics_themes_generate.yaml   generate_until, scored by this project's own scoring
DIR/lyrics_scoring.py             leads there; source.json says which data set the claims are checked against
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness.evaluation.lm_eval.documents import (
    OUTPUT_TYPES,
    VERSION,
    Document,
    counted,
    gives_back,
    make_document,
    name_task,
    read_backend,
)
from harness.evaluation.lm_eval.scoring import LOWER_IS_BETTER, METRICS
from harness.evaluation.material import Material, limit_answers
from harness.evaluation.settings import EvaluationSettings, Method
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import ConfigError

SOURCE_FILE = "source.json"
SCORING_FILE = "lyrics_scoring.py"
SCORING = '''"""Scores of written answers, by the project's own scoring; see source.json."""

from pathlib import Path

from harness.evaluation.lm_eval.scoring import scorer_of

process_results = scorer_of(Path(__file__).parent)
'''
_PROCESS = "!function lyrics_scoring.process_results"


def make_tasks_folder(folder: Path) -> None:
    """Make the folder of the tasks, if it is missing.

    Raises:
        ConfigError: It is a file.
        DataError: It cannot be made.
        NoSpaceError: The disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--lm-eval-tasks {folder}: a file of that name is there; choose another folder")
    make_folder(folder)


def write_lm_eval_tasks(
    folder: Path, settings: EvaluationSettings, material: Material, split: str, say: Callable[[str], None]
) -> list[str]:
    """Write the questions of a split as tasks.

    Args:
        folder: Where; made if it is missing.
        settings: Of the evaluation.
        material: The questions.
        split: Which.
        say: Told what is left out.

    Returns:
        Names of the tasks.

    Raises:
        ConfigError: The folder is a file.
        DataError: It cannot be written to.
        NoSpaceError: The disk is full.
    """
    make_tasks_folder(folder)
    names = []
    for task in dict.fromkeys(one.question.task for one in material.asked):
        for method in settings.methods:
            documents = make_documents(material, task, method, say)
            if documents:
                name = name_task(task, method, split)
                lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
                write_text_durably(folder / f"{name}.jsonl", lines)
                limit = limit_answers(settings, material)
                config = make_config(folder, name, task, method, limit, material.held_out.prompt.stop_token)
                write_text_durably(folder / f"{name}.yaml", spell_config(config, method))
                names.append(name)
    source = {"data": str(settings.data.absolute())}
    write_text_durably(folder / SOURCE_FILE, json.dumps(source, ensure_ascii=False) + "\n")
    write_text_durably(folder / SCORING_FILE, SCORING)
    return names


def make_documents(
    material: Material, task: str, method: Method, say: Callable[[str], None]
) -> list[Document]:
    """The documents of a task; those that would be asked in other ids are left out and told of."""
    tokenizer, labels = material.held_out.tokenizer, material.labels.get(task)
    backend = read_backend(tokenizer)
    documents, num_left_out = [], 0
    for asked in counted(material.asked, task, method):
        prompt = tokenizer.decode(asked.question.prompt)
        if gives_back(backend, prompt, asked.question.prompt):
            documents.append(make_document(asked, prompt, method, labels))
        else:
            num_left_out += 1
    if num_left_out:
        say(f"{num_left_out:,} questions of {task} are no lm-eval documents: as text they give other ids")
    return documents


def make_config(
    folder: Path, name: str, task: str, method: Method, limit: int, stop_token: str
) -> dict[str, Any]:
    """A task's configuration."""
    common = {
        "task": name,
        "tag": "lyrics",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / f"{name}.jsonl").absolute())}},
        "test_split": "test",
        "output_type": OUTPUT_TYPES[method],
        "doc_to_text": "prompt",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metadata": {"version": VERSION},
    }
    if method == "rank":
        return {
            **common,
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "metric_list": [_metric("acc")],
        }
    return {
        **common,
        "doc_to_target": "expected",
        "generation_kwargs": {
            "until": [stop_token],
            "max_gen_toks": limit,
            "do_sample": False,
            "temperature": 0.0,
        },
        "metric_list": [_metric(metric) for metric in METRICS.get(task, METRICS["other"])],
    }


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": name not in LOWER_IS_BETTER}


def spell_config(config: dict[str, Any], method: Method) -> str:
    """The configuration as YAML, with the function that scores written answers."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text + (f"process_results: {_PROCESS}\n" if method == "generate" else "")
