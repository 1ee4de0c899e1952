"""How many examples a second does a training step take in, against TRL's SFTTrainer at its best, on SmolLM2-135M?

As `bench.trl`, with real pretrained weights. The model is thirty times as large, so there are fewer layouts and steps;
those left out were the slowest ones on the small model.
"""

from __future__ import annotations

from bench.record import Outcome
from bench.training import Scale
from bench.trl import Trial, measure_trial

FULL = Trial(
    Scale(songs=24, hidden_size=0, seq_len=1024, rows_per_step=1, micro_batch_size=1),
    layouts=("padded 1", "padded 2", "packed 1024"),
    num_again=0,
    num_passed_on=1,
    num_steps=3,
)
QUICK = Trial(
    Scale(songs=8, length="short", hidden_size=0, seq_len=512, rows_per_step=1, micro_batch_size=1),
    workloads=("five_tasks",),
    layouts=("padded 1",),
    num_again=0,
    num_passed_on=1,
    num_steps=2,
)


def measure(*, quick: bool) -> Outcome:
    """Time the step on SmolLM2-135M.

    Raises:
        ConfigError: TRL or SmolLM2's package is not installed.
        WrongResultError: The losses of a step differ.
    """
    return measure_trial(QUICK if quick else FULL)
