"""The learning rate as a function of the step: linear warm-up, then a cosine to a final share."""

from __future__ import annotations

import math

from harness.config import OptimizerSettings


def learning_rate(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """Rate of a step counted from 0. The first is above zero, the last is `final_fraction` of the highest."""
    warmup = round(settings.warmup_fraction * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(num_steps - 1 - warmup, 1)
    share = settings.final_fraction + (1 - settings.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
    return settings.learning_rate * share
