"""What an evaluation is to do: one file of settings, which every rank reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from harness.config import ModelSettings
from harness.generation.prompts import MAX_SEED
from preprocess.settings import Settings

Method = Literal["rank", "generate"]
METHODS: tuple[Method, ...] = ("rank", "generate")
SPLITS = ("eval", "eval_unseen")


class EvaluationSettings(Settings):
    """One evaluation."""

    model: ModelSettings
    """The base model."""

    adapter: Path | None = None
    """Folder of a peft adapter; without one the base is evaluated alone."""

    data: Path
    """Folder of the data set."""

    output: Path | None = None
    """Folder for the results."""

    splits: tuple[Literal["eval", "eval_unseen"], ...] = ("eval",)
    """Which held-out songs: `eval` by artists that training knows, `eval_unseen` by others."""

    songs: int | None = Field(default=None, ge=1)
    """So many songs of each split; all without it."""

    methods: tuple[Method, ...] = METHODS
    """`rank` takes the likeliest of the known names; `generate` lets the model write and reads its answer strictly."""

    generate_songs: int | None = Field(default=None, ge=1)
    """Answers are written for so many songs; for all that are ranked without it."""

    few_shot: int = Field(default=0, ge=0, le=32)
    """Training examples put before each question to the base model, as one more system; none without it."""

    baselines: bool = True
    """Fit TF-IDF with logistic regression to the training lyrics."""

    rank_slots: int = Field(default=1024, ge=1)
    """Tokens of one forward pass beside the longest prompt when names are ranked."""

    batch_slots: int | None = Field(default=None, ge=1)
    """Keys and values (of one token each) that are kept while answers are written: more means more answers at a time.
    Without it what the batched decoder takes by itself."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a written answer at most, its end included; without it so many that the longest answer that the split
    expects fits. How many answers were cut is counted."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Of the bootstrap, of the few-shot examples and of the baseline."""

    lm_eval_tasks: Path | None = None
    """Folder to write the questions to as tasks of the lm-evaluation-harness."""

    @field_validator("methods", "splits")
    @classmethod
    def _check_some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("expected at least one, each once")
        return value
