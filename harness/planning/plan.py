"""A whole plan: the setting, its memory, its speed, what is recommended, what is wished."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.cards import DRIVER_RESERVE_MIB, MIB
from harness.memory.case import MemoryPlan, Part
from harness.memory.predict import predict
from harness.memory.traffic import count_traffic
from harness.memory.weights import trained_sizes
from harness.planning.estimator import estimate
from harness.planning.recommend import (
    Candidate,
    Fill,
    Relief,
    best_by_stage,
    fill,
    list_relief,
)
from harness.planning.setting import Setting
from harness.planning.speed import StepTime, predict_step, send_seconds
from harness.planning.wishes import Answer, answer_wishes
from harness.roofline.ceilings import Roof, describe_roof, read_loader_rate

FORMAT_VERSION = 1
LINKS_GBPS = (10.0, 25.0, 100.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is printed, written as JSON, and drawn.

    Attributes:
        model: As the configuration names it.
        shape_source: Where its shape was found.
        setting: As configured.
        memory: Predicted.
        time: Of a step as configured.
        by_stage: Best rows and recomputed layers of each ZeRO stage.
        links: For each stage, bytes a rank and seconds at each link, with the rows as configured.
        fill: Steps that fill the card.
        relief: What would free most.
        estimator: DeepSpeed's own estimates by stage, and the same parts of ours.
        wishes: The plan's wishes; empty where nothing fits.
        roof: What bounds the speed, None without a card.
    """

    model: str
    shape_source: str
    setting: Setting
    memory: MemoryPlan
    time: StepTime
    by_stage: dict[int, Candidate | None]
    links: dict[int, tuple[int, dict[float, float]]]
    fill: Fill | None
    relief: list[Relief]
    estimator: dict[int, tuple[int, int]]
    wishes: list[Answer]
    roof: Roof | None

    @property
    def can_run(self) -> bool:
        """Whether the card has as much as the configuration is predicted to take."""
        return self.memory.peak.total <= self.setting.usable_bytes

    @property
    def best(self) -> Candidate | None:
        """The recommended setting."""
        found = [candidate for candidate in self.by_stage.values() if candidate is not None]
        return max(found, key=lambda candidate: candidate.rank, default=None)


def make_plan(setting: Setting, model: str, shape_source: str, links: tuple[float, ...] = LINKS_GBPS) -> Plan:
    """Predict everything for a setting."""
    by_stage = best_by_stage(setting)
    fits_somehow = any(by_stage.values())
    return Plan(
        model=model,
        shape_source=shape_source,
        setting=setting,
        memory=predict(setting.case),
        time=predict_step(setting),
        by_stage=by_stage,
        links={stage: _send(setting, stage, links) for stage in by_stage},
        fill=fill(setting),
        relief=list_relief(setting),
        estimator=_contrast(setting),
        wishes=answer_wishes(setting) if fits_somehow else [],
        roof=None if setting.card is None else describe_roof(setting, loader_rows_per_s=read_loader_rate()),
    )


def _send(setting: Setting, stage: int, links: tuple[float, ...]) -> tuple[int, dict[float, float]]:
    num_bytes = count_traffic(setting.with_stage(stage).case, setting.micro_steps).total
    return num_bytes, {link: send_seconds(num_bytes, link) for link in links}


STATES: tuple[Part, ...] = (
    "frozen_weights",
    "lora_weights",
    "gradients",
    "master_weights",
    "optimizer_states",
)


def _contrast(setting: Setting) -> dict[int, tuple[int, int]]:
    """Bytes of model states at stages 2 and 3: DeepSpeed's estimate, and ours."""
    found = {}
    for stage in (2, 3):
        case = setting.with_stage(stage).case
        theirs = estimate(
            case.shape,
            sum(trained_sizes(case)),
            case.ranks,
            stage,
            offload=case.zero.offload_optimizer,
            offload_parameters=case.zero.offload_parameters,
        )
        phases = {phase.phase: phase.parts for phase in predict(case).phases}
        ours = sum(phases["backward"].get(part, 0) for part in STATES)
        if theirs is not None:
            found[stage] = (theirs, ours)
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values; bytes are bytes, None is what cannot be told."""
    setting, best = plan.setting, plan.best
    return {
        "format_version": FORMAT_VERSION,
        "model": plan.model,
        "shape_source": plan.shape_source,
        "setting": _describe_setting(setting),
        "memory": _describe_memory(plan.memory),
        "limit_bytes": setting.limit_bytes,
        "usable_bytes": setting.usable_bytes,
        "can_run": plan.can_run,
        "within_target": setting.fits,
        "step": _describe_time(plan.time),
        "recommended": None if best is None else _describe_candidate(best),
        "by_stage": {
            str(stage): None if found is None else _describe_candidate(found)
            for stage, found in plan.by_stage.items()
        },
        "links": {
            str(stage): {"bytes": num_bytes, "seconds": {f"{link:g}": s for link, s in seconds.items()}}
            for stage, (num_bytes, seconds) in plan.links.items()
        },
        "fill": None
        if plan.fill is None
        else {
            "rows": plan.fill.rows,
            "examples_per_step": plan.fill.examples,
            **_describe_time(plan.fill.time),
        },
        "relief": [asdict(relief) for relief in plan.relief],
        "estimator": {
            str(stage): {"deepspeed_bytes": theirs, "predicted_bytes": ours}
            for stage, (theirs, ours) in plan.estimator.items()
        },
        "wishes": [asdict(answer) for answer in plan.wishes],
        "ceilings": [] if plan.roof is None else [asdict(ceiling) for ceiling in plan.roof.ceilings],
    }


def _describe_setting(setting: Setting) -> dict[str, Any]:
    case, work = setting.case, setting.workload
    return {
        "card": None if setting.card is None else setting.card.name,
        "memory_bytes": setting.memory_bytes,
        "driver_reserve_bytes": DRIVER_RESERVE_MIB * MIB,
        "target": setting.vram_target,
        "nodes": setting.nodes,
        "gpus_per_node": setting.gpus_per_node,
        "link_gbps": setting.link_gbps,
        "efficiency": asdict(setting.efficiency),
        "zero_stage": case.zero.stage,
        "rows": setting.rows,
        "recompute_layers": case.recompute_layers,
        "slots": case.slots,
        "num_weights": case.shape.num_weights,
        "num_trained": sum(trained_sizes(case)),
        "workload": {
            **asdict(work),
            "tokens_per_example": work.tokens_per_example,
            "pairs": work.pairs,
        },
    }


def _describe_memory(memory: MemoryPlan) -> dict[str, Any]:
    return {
        "peak_phase": memory.peak.phase,
        "peak_bytes": memory.peak.total,
        "phases": {phase.phase: dict(phase.parts) for phase in memory.phases},
        "host_bytes": dict(memory.host),
    }


def _describe_time(time: StepTime) -> dict[str, Any]:
    return {
        "rows_a_step": time.rows,
        "micro_steps": time.micro_steps,
        "flops_busiest_rank": time.flops.total,
        "compute_s": time.compute_s,
        "traffic": asdict(time.traffic),
        "communication_s": time.communication_s,
        "tokens_per_s": time.tokens_per_s,
        "examples_per_s": time.examples_per_s,
    }


def _describe_candidate(found: Candidate) -> dict[str, Any]:
    return {
        "zero_stage": found.setting.case.zero.stage,
        "micro_batch_size": found.setting.rows,
        "recompute_layers": found.setting.case.recompute_layers,
        "peak_bytes": found.setting.peak_bytes,
        **_describe_time(found.time),
    }
