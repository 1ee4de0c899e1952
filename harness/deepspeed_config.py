"""DeepSpeed's part of a run's configuration: the files of `ds_configs/`, and what the run adds to them.

A file holds ZeRO, precision and communication keys alone; batch sizes, clipping, optimizer and schedule have their one
home in the run's config. No torch is imported.
"""

from __future__ import annotations

import json
from typing import Any

from harness.config import RunConfig
from preprocess.errors import ConfigError
from preprocess.outside_text import parse_json
from preprocess.settings import find_shipped

OWNED_BY_RUN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
)
"""DeepSpeed keys whose one home is the run's config."""


def load_deepspeed_config(name: str) -> dict[str, Any]:
    """Read a DeepSpeed JSON and refuse keys that the run's config owns.

    Raises:
        ConfigError: Missing, not JSON, holds a key owned by the run's config, or an "auto".
    """
    path = find_shipped(name, "ds_configs", ".json")
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    if owned := [key for key in OWNED_BY_RUN if key in values]:
        raise ConfigError(f"{path}: {', '.join(owned)} belong in the run's config, not here")
    if '"auto"' in json.dumps(values):
        raise ConfigError(
            f'{path}: holds an "auto" value, which DeepSpeed would misread; write the value itself'
        )
    for precision in ("bf16", "fp16"):
        if "enabled" in values.get(precision, {}):
            raise ConfigError(f"{path}: {precision}.enabled is set by the run's model.precision; remove it")
    zero = values.get("zero_optimization", {})
    if (
        not isinstance(zero, dict)
        or zero.get("stage", 0) not in range(4)
        or isinstance(zero.get("stage"), bool)
    ):
        raise ConfigError(
            f'{path}: zero_optimization: got {json.dumps(zero)}, expected an object whose "stage" is 0, 1, 2 or 3'
        )
    if unknown := sorted(set(values) - KNOWN_DEEPSPEED_KEYS):
        raise ConfigError(
            f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(KNOWN_DEEPSPEED_KEYS))}"
        )
    return values


def zero_stage(name: str) -> int:
    """The ZeRO stage of a DeepSpeed JSON; see `load_deepspeed_config`."""
    return int(load_deepspeed_config(name).get("zero_optimization", {}).get("stage", 0))


KNOWN_DEEPSPEED_KEYS = frozenset(
    {
        "bf16",
        "communication_data_type",
        "data_types",
        "fp16",
        "prescale_gradients",
        "seq_parallel_communication_data_type",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "zero_optimization",
    }
)
"""Top-level keys of a DeepSpeed JSON that make sense here; DeepSpeed itself ignores a misspelt one in silence."""


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`: the JSON plus what the run's config owns."""
    values = load_deepspeed_config(config.deepspeed)
    precision = config.model.precision
    for name in ("bf16", "fp16"):
        values[name] = {**values.get(name, {}), "enabled": precision == name}
    # Micro-steps are a step's own, and the harness counts them; DeepSpeed only wants the three to agree.
    values["train_micro_batch_size_per_gpu"] = values["gradient_accumulation_steps"] = 1
    values["train_batch_size"] = world_size
    values["gradient_clipping"] = config.optimizer.max_grad_norm
    values["steps_per_print"] = 1_000_000_000  # the harness reports by itself
    values["wall_clock_breakdown"] = False
    return values
