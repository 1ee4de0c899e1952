"""A run's settings as TensorBoard's HPARAMS tab shows them, beside the figures that the run ended with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from harness.config import RunConfig

HParam = bool | str | float | int

LEFT_OUT = frozenset({"output_dir", "resume", "tensorboard"})
"""Settings that say where a run is, not what it is."""

FINAL_TAG = "final"
"""The figures are scalars `final/<name>`."""


def list_hparams(config: RunConfig) -> dict[str, HParam]:
    """The settings by their dotted keys, as --set names them, in a form that the tab takes.

    Returns:
        Booleans, numbers and texts; a list is joined by commas, and what is not set is "none".
    """
    found: dict[str, HParam] = {}

    def walk(values: Mapping[str, object], prefix: str) -> None:
        for key, value in values.items():
            name = f"{prefix}{key}"
            if name in LEFT_OUT:
                continue
            if isinstance(value, Mapping):
                walk(value, f"{name}.")
            elif isinstance(value, bool | int | float | str):
                found[name] = value
            elif isinstance(value, list | tuple):
                found[name] = ",".join(map(str, value))
            else:
                found[name] = "none" if value is None else str(value)

    walk(config.model_dump(mode="json"), "")
    return found


def write_hparams(log_dir: Path, config: RunConfig, metrics: Mapping[str, float | None]) -> None:
    """Write the settings and the last figures into a run's TensorBoard folder, in an event file of their own.

    Args:
        log_dir: `<run>/tensorboard`.
        config: The run's.
        metrics: Name to figure, as in "eval_loss"; what is None or not finite is left out.
    """
    # Imported late, for it takes a second; torch is not needed.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    settings = list_hparams(config)
    known = {
        f"{FINAL_TAG}/{name}": float(value)
        for name, value in metrics.items()
        if value is not None and math.isfinite(value)
    }
    columns = summary_v2.hparams_config_pb(
        hparams=[summary_v2.HParam(name) for name in settings],
        metrics=[summary_v2.Metric(tag) for tag in known],
    )
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()]
    writer = EventFileWriter(str(log_dir), filename_suffix=".hparams")
    for summary in (columns, summary_v2.hparams_pb(settings), Summary(value=values)):
        writer.add_event(Event(summary=summary, step=0))
    writer.close()
