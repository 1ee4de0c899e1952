"""Ask a list of questions. Where generating fails, stored answers take the place of those that are missing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
import typer

from harness.demo.items import Demo, DemoItem
from harness.demo.prompts import Prompt
from harness.demo.speaker import Asking, Said, Speaker
from preprocess.errors import OutOfMemoryError, UserError
from preprocess.outside_text import visible

LOG = logging.getLogger(__name__)

FAILURES = (RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError, OSError, UserError)
"""What generating may raise: torch's errors are RuntimeErrors, running out of memory among them."""

StoredItems = Mapping[tuple[str | None, str | None], DemoItem]
"""Stored items by song and task."""


class Audience(Protocol):
    """Whoever watches the answers grow."""

    def begin(self, prompt: Prompt) -> None:
        """A question is put."""

    def hear(self, said: Said) -> None:
        """An answer has grown."""

    def end(self, item: DemoItem) -> None:
        """A question is answered, by the model or by a stored answer."""


class Nobody:
    """An audience that hears nothing."""

    def begin(self, prompt: Prompt) -> None:
        """Ignore it."""

    def hear(self, said: Said) -> None:
        """Ignore it."""

    def end(self, item: DemoItem) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What stopped the generation.

    Attributes:
        error: The error.
        told: It in words.
    """

    error: Exception
    told: str


def tell_error(error: Exception) -> str:
    """An error in one line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, UserError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def fail(failure: Failure) -> NoReturn:
    """End with the failure's exit code; what it was is told in one line.

    Raises:
        UserError: What failed is something that the user can mend.
        typer.Exit: With 1, for any other failure.
    """
    if isinstance(failure.error, UserError):
        raise failure.error
    if isinstance(failure.error, torch.OutOfMemoryError | MemoryError):
        raise OutOfMemoryError(f"{failure.told}; take --max-new-tokens lower, or a smaller model")
    print(visible(f"error: generation failed: {failure.told}"), file=sys.stderr)
    raise typer.Exit(1)


def ask_all(
    open_speaker: Callable[[], Speaker],
    prompts: Sequence[Prompt],
    asking: Asking,
    audience: Audience,
    stored: StoredItems,
) -> tuple[Demo, Failure | None]:
    """Put every question to the model before and after fine-tuning.

    Args:
        open_speaker: Loads the model.
        prompts: The questions.
        asking: How answers are generated.
        audience: Who watches.
        stored: Answers to show where the model fails.

    Returns:
        The answers, and what stopped the generation, or None.
    """
    items: list[DemoItem] = []
    failure: Failure | None = None
    num_tokens, seconds = 0, 0.0
    try:
        speaker = open_speaker()
        for prompt in prompts:
            audience.begin(prompt)
            waiting_since_s = time.perf_counter()
            for event in speaker.ask(prompt, asking):
                if isinstance(event, Said):
                    seconds += time.perf_counter() - waiting_since_s
                    num_tokens += 1
                    audience.hear(event)
                else:
                    items.append(event)
                    audience.end(event)
                waiting_since_s = time.perf_counter()
    except FAILURES as error:
        LOG.debug("the demo's generation failed", exc_info=True)
        where = f"at question {len(items) + 1} of {len(prompts)}: " if num_tokens or items else ""
        failure = Failure(error, f"{where}{tell_error(error)}")
    missing = [(prompt.song.id, prompt.task) for prompt in prompts[len(items) :]]
    kept = [stored[key] for key in missing if key in stored]
    for item in kept:
        audience.end(item)
    told = None if failure is None else failure.told
    unanswered = len(missing) - len(kept)
    return Demo(items + kept, seconds, num_tokens, failure=told, num_unanswered=unanswered), failure
