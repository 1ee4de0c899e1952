"""What each rank of an evaluation test runs; apart from the tests, so that ranks start with little."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.dist import join_world
from harness.evaluation.rank import join_ranks
from harness.evaluation.run import evaluate_model
from harness.evaluation.settings import EvaluationSettings
from preprocess.settings import load_settings

EXPECTED_BYTES = [b"", b"x\x00", b"x\x00" * 2]
"""Of the three ranks."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rank saw: bytes of different lengths gathered, none at all gathered, and its evaluations' summaries."""

    gathered: list[bytes]
    nothing: list[bytes]
    summaries: list[dict[str, Any]]


def evaluate_on_rank(path: Path, changes: list[dict[str, Any]]) -> Seen:
    """Evaluate in turn with some settings changed; summaries come on rank 0 alone."""
    settings, ranks = load_settings(EvaluationSettings, path), join_ranks(join_world(None))
    gathered = ranks.gather(b"x\x00" * int(os.environ["RANK"]))
    nothing = ranks.gather(b"")
    console = Console(quiet=True)
    summaries = [
        record.summary
        for change in changes
        for record in evaluate_model(settings.model_copy(update=change), console, ranks)
    ]
    return Seen(gathered, nothing, summaries)
