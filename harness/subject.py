"""What evaluate, demo and their like look at: a run, or a model with a data set; the options that say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from harness.config import ModelSettings, load_run_config
from preprocess.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="A finished run: its model, data and adapter.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Model folder, .gguf file, package:NAME or hub id.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Data set folder.")]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="Folder of a peft adapter.")]
Output = Annotated[
    Path | None, typer.Option("--output", help="Folder for the results; the run's by default.")
]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at: a base model, the adapter on it, the data set, and where results go."""

    settings: ModelSettings
    data: Path
    adapter: Path | None
    output: Path | None


def find_subject(
    run: Path | None, model: str | None, data: Path | None, adapter: Path | None, output: Path | None
) -> Subject:
    """Take model, data and adapter from a run folder, or from the options, which win.

    Raises:
        ConfigError: Neither names a model and a data set, or the run folder holds no run.
    """
    if run is not None:
        if not (run / "config.yaml").is_file():
            raise ConfigError(f"--run {run}: no config.yaml there, so it is not the folder of a run")
        config = load_run_config(run / "config.yaml")
        settings = config.model if model is None else config.model.model_copy(update={"path": model})
        return Subject(settings, data or config.data.path, adapter or run / "adapter", output or run)
    if model is None or data is None:
        raise ConfigError("pass --run RUN, or --model MODEL and --data DATA (and --adapter ADAPTER)")
    return Subject(ModelSettings(path=model), data, adapter, output)
