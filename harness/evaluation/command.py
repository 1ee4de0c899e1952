"""`harness evaluate`: what base and tuned model know of held-out songs, here or over the hosts of a hostfile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from harness.cluster.launch import launch
from harness.evaluation.settings import METHODS, SPLITS, EvaluationSettings
from harness.generation.prompts import MAX_SEED
from harness.subject import Adapter, Data, Json, Model, Output, RunFolder, find_subject
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import ConfigError, DataError, PreflightError
from preprocess.outside_text import parse_json
from preprocess.settings import dump_settings
from preprocess.terminal import exit_on_user_error, make_console, print_json

WORK_FOLDER = "evaluation"
"""Inside the results: what a launch over hosts leaves."""


@exit_on_user_error
def evaluate(
    run: RunFolder = None,
    model: Model = None,
    data: Data = None,
    adapter: Adapter = None,
    output: Output = None,
    songs: Annotated[
        int | None, typer.Option(min=1, help="Only so many songs of a split, drawn by a hash.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="Which held-out songs: eval, eval_unseen (by artists that training never saw), or both."
        ),
    ] = "eval",
    methods: Annotated[
        str,
        typer.Option(
            help="rank (the likeliest of the known names), generate (answers in words, read strictly), or both with a "
            "comma between."
        ),
    ] = ",".join(METHODS),
    generate_songs: Annotated[
        int | None, typer.Option(min=1, help="Write answers for so many of the songs; all by default.")
    ] = None,
    few_shot: Annotated[
        int,
        typer.Option(min=0, max=32, help="Also ask the base model with so many training examples in front."),
    ] = 0,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out TF-IDF with logistic regression.")
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a written answer, at most; by default the longest expected one fits."
        ),
    ] = None,
    batch_slots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens whose keys and values are kept while answers are written; more is faster."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of intervals, examples and the baseline.")
    ] = 0,
    hostfile: Annotated[
        Path | None, typer.Option(help="One `host slots=N` a line: its ranks share the songs.")
    ] = None,
    master_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="With --hostfile: port on the first host.")
    ] = None,
    lm_eval_tasks: Annotated[
        Path | None,
        typer.Option(help="Folder to write the questions to as tasks for `lm_eval --include_path`."),
    ] = None,
    json_: Json = False,
) -> None:
    """What base and tuned model know of held-out songs, with baselines, intervals and a check of every claim.

    Questions that give their answers away are found first and left out. The base is asked with the adapter off and on;
    names are ranked by likelihood, answers are written and read strictly. Results go into evaluation.json,
    evaluation_samples.jsonl, and results.json with samples_<task>.jsonl in the form of the lm-evaluation-harness.
    """
    subject = find_subject(run, model, data, adapter, output)
    settings = make_settings(
        model=subject.settings,
        adapter=subject.adapter,
        data=subject.data,
        output=subject.output,
        splits=SPLITS if split == "both" else (split,),
        songs=songs,
        methods=tuple(word.strip() for word in methods.split(",")),
        generate_songs=generate_songs,
        few_shot=few_shot,
        baselines=not no_baselines,
        max_new_tokens=max_new_tokens,
        batch_slots=batch_slots,
        seed=seed,
        lm_eval_tasks=lm_eval_tasks,
    )
    console = make_console(error=json_)
    if hostfile is None:
        summaries = evaluate_here(settings, console)
    else:
        summaries = evaluate_on_hosts(settings, hostfile, master_port)
    show(summaries, console, as_json=json_)


def make_settings(**values: Any) -> EvaluationSettings:  # noqa: ANN401 - what the options hold
    """The settings that the options ask for.

    Raises:
        ConfigError: A method or a split is not known.
    """
    for option, given, known in (
        ("--methods", values["methods"], METHODS),
        ("--split", values["splits"], (*SPLITS, "both")),
    ):
        wrong = [word for word in given if word not in known]
        if wrong or not given or len(set(given)) != len(given):
            raise ConfigError(
                f"{option} {','.join(given)}: expected one or more of {', '.join(known)}, each once"
            )
    return EvaluationSettings(**values)


def evaluate_here(settings: EvaluationSettings, console: Console) -> list[dict[str, Any]]:
    """Evaluate in this process and write the results."""
    from harness.evaluation.run import evaluate_model

    return [record.summary for record in evaluate_model(settings, console)]


def evaluate_on_hosts(
    settings: EvaluationSettings, hostfile: Path, master_port: int | None
) -> list[dict[str, Any]]:
    """Evaluate on every slot of a hostfile, each rank its own songs; rank 0 writes the results.

    Raises:
        ConfigError: There is no folder for the results.
        PreflightError: The hosts do not allow a start.
        DataError: The results are on the first host alone.
    """
    if settings.output is None:
        raise ConfigError("--hostfile needs --output (or --run): a folder under the same path on every host")
    absolute = make_absolute(settings)
    folder = cast("Path", absolute.output) / WORK_FOLDER
    launches = folder / "launch"
    make_folder(launches)
    earlier = {path: path.read_bytes() for path in list_summaries(absolute) if path.is_file()}
    path = launches / "evaluation.yaml"
    write_text_durably(path, dump_settings(absolute))
    code = launch(path, hostfile, launches, master_port=master_port, module="harness.evaluation.rank")
    if code:
        raise RankError(f"the evaluation ended with exit code {code}; what its ranks said stands above", code)
    return read_summaries(absolute, earlier)


class RankError(PreflightError):
    """A rank ended with an error of its own, with its code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def make_absolute(settings: EvaluationSettings) -> EvaluationSettings:
    """The settings with paths that mean the same wherever a rank starts."""
    names = ("adapter", "data", "output", "lm_eval_tasks")
    paths = {name: None if (value := getattr(settings, name)) is None else value.absolute() for name in names}
    model, local = settings.model, Path(settings.model.path)
    if local.exists():
        model = model.model_copy(update={"path": str(local.absolute())})
    return settings.model_copy(update={**paths, "model": model})


def list_summaries(settings: EvaluationSettings) -> list[Path]:
    """The files that rank 0 writes its summaries into, a split each."""
    from harness.evaluation.record import EVALUATION_FILE, name_of

    assert settings.output is not None
    return [settings.output / name_of(EVALUATION_FILE, split) for split in settings.splits]


def read_summaries(settings: EvaluationSettings, earlier: Mapping[Path, bytes]) -> list[dict[str, Any]]:
    """What rank 0 wrote.

    Args:
        settings: Of the evaluation.
        earlier: The content of the files that were there before it began.

    Raises:
        DataError: It is not on this host.
    """
    paths = list_summaries(settings)
    found = {path: path.read_bytes() for path in paths if path.is_file()}
    old = [str(path) for path in paths if path in earlier and found.get(path) == earlier[path]]
    missing = [str(path) for path in paths if path not in found]
    if missing or old:
        told = [
            *(f"{path}: not on this host" for path in missing),
            *(f"{path}: an earlier evaluation's" for path in old),
        ]
        raise DataError(
            f"{'; '.join(told)}. The results are under this path on the first host of the hostfile"
        )
    return [parse_json(found[path].decode("utf-8")) for path in paths]


def show(summaries: list[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    """Print what was found: tables, or JSON (a list where both splits were evaluated)."""
    from harness.evaluation.record import print_summary

    if as_json:
        print_json(summaries[0] if len(summaries) == 1 else summaries)
        return
    for summary in summaries:
        print_summary(summary, console)
