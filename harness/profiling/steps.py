"""Which steps are profiled: `10:13` is 10, 11 and 12, as a slice in Python. No torch is needed."""

from __future__ import annotations

import re

MAX_STEPS = 50
"""Steps of one profile: a trace holds every operator, some MB a step."""


def parse_steps(text: str) -> range:
    """The steps of a text like `10:13`, the first one included and the last one not.

    Raises:
        ValueError: It is none, has no step in it, or too many.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text, re.ASCII)
    if match is None:
        raise ValueError("expected FIRST:END, as in 10:13 for the steps 10, 11 and 12")
    first, end = int(match.group(1)), int(match.group(2))
    if first < 1:
        raise ValueError("steps count from 1, as in metrics.jsonl")
    if end <= first:
        raise ValueError(
            f"no step in it; END is the first step that is not profiled, so for step {first} alone write "
            f"{first}:{first + 1}"
        )
    if end - first > MAX_STEPS:
        raise ValueError(
            f"{end - first} steps; at most {MAX_STEPS} are profiled, for a trace holds every operator"
        )
    return range(first, end)


def describe_missing(steps: range, first: int, last: int) -> str | None:
    """What to say where a run does not take all steps that are to be profiled; None where it does.

    Args:
        steps: To be profiled.
        first: The first step that this process takes, from 1.
        last: The run's last step.
    """
    taken = [step for step in steps if first <= step <= last]
    if len(taken) == len(steps):
        return None
    asked = f"profile.steps {steps.start}:{steps.stop}"
    has = f"this run takes the steps {first} to {last}" if last >= first else "this run takes no further step"
    what = "no step is profiled" if not taken else f"profiled are {', '.join(map(str, taken))}"
    return f"{asked}: {has}, so {what}"
