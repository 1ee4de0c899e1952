"""What a run is predicted to take of a host: memory of a card, a checkpoint's bytes, the weights that are read."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import RunConfig
from preprocess.errors import UserError

CHECKPOINT_BYTES = 16
"""Of each trained value: its float32 copy, two moments (Adam), and the adapter as peft stores it."""

LARGEST_CARD_GIB = 10_000.0


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes, None where they cannot be predicted.

    Attributes:
        peak_bytes: Of a card, at a step's peak as configured.
        rest_bytes: Of a card, as soon as the engine is built: less can never do.
        checkpoint_bytes: Of one checkpoint, over all ranks.
        weight_bytes: Of the base model in memory; each rank reads it.
        searches: Whether rows and recomputed layers are found by trial, so that the peak is no necessity.
        unknown: Why something is not known, or the empty string.
    """

    peak_bytes: int | None = None
    rest_bytes: int | None = None
    checkpoint_bytes: int | None = None
    weight_bytes: int | None = None
    searches: bool = False
    unknown: str = ""


def predict_needs(config: RunConfig, world_size: int) -> Needs:
    """Predict what a rank takes, from sizes alone; what cannot be predicted is left out with its reason."""
    from harness.memory.predict import predict
    from harness.memory.weights import trained_sizes
    from harness.planning.from_config import make_setting
    from harness.planning.workload import read_workload

    try:
        setting, _ = make_setting(
            config,
            read_workload(config.data.path),
            card=None,
            vram_gib=LARGEST_CARD_GIB,
            nodes=world_size,
            gpus_per_node=1,
            vram_target=1.0,
            link_gbps=1.0,
        )
    except UserError as error:
        return Needs(unknown=str(error))
    plan, case = predict(setting.case), setting.case
    rest = next(phase.total for phase in plan.phases if phase.phase == "engine_init")
    return Needs(
        peak_bytes=plan.peak.total,
        rest_bytes=rest,
        checkpoint_bytes=CHECKPOINT_BYTES * sum(trained_sizes(case)),
        weight_bytes=case.value_bytes * case.shape.num_weights,
        searches=config.memory.target is not None,
    )
