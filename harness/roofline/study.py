"""All that `harness roofline` tells, in one value: ceilings, where a run stands, what moves it, how it scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.batch_plan import BatchPlan
from harness.numbers import format_float
from harness.planning.setting import Efficiency, Setting
from harness.planning.speed import compute_seconds, count_flops, predict_step
from harness.planning.wishes import Answer, answer_rates
from harness.roofline.ceilings import MOVED_BY, Ceiling, Roof, describe_roof
from harness.roofline.collectives import Link
from harness.roofline.measured import MeasuredRun
from harness.roofline.moves import (
    Lever,
    Moved,
    move_recompute,
    move_row_length,
    move_tasks,
    planned_parts,
    pull_levers,
    scale_hosts,
)
from harness.roofline.scaling import Parts, Scaled

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a measured run stands.

    Attributes:
        examples_per_s: Measured.
        tokens_per_s: Measured.
        shares: Of each ceiling, by its name, 0 to 1 (above 1 where a ceiling is wrong, which is then to be seen).
        flops_per_s: Hardware FLOP/s of a rank while the whole step goes on.
        efficiency: Share of the dense peak while it computes.
        communication_share: Of a step; None where the run did not tell it apart.
        unexplained_s: Seconds of a step's communication beyond what the link gives for its collectives: a network
            thread that waits for a core, a rank that is late in the middle of a step.
    """

    examples_per_s: float
    tokens_per_s: float
    shares: dict[str, float]
    flops_per_s: float
    efficiency: float
    communication_share: float | None
    unexplained_s: float


@dataclass(frozen=True, slots=True)
class Study:
    """What is printed, written as JSON and drawn.

    Attributes:
        name: Of the run, or of the model.
        setting: What is predicted for.
        link: Between hosts.
        roof: Ceilings.
        standing: Of a measured run, or None.
        bottleneck: The lowest ceiling.
        levers: What would raise the rate, each alone.
        tasks: Over tasks a song; empty where the data set is not at hand.
        row_length: Over slots of a row; likewise.
        recompute: Over recomputed layers.
        parts: What hosts are simulated from.
        fixed: Hosts, with a step of as many rows as now.
        growing: Hosts, with as many rows on each as now.
        wishes: The plan's claims of speed and time, answered.
        missing: What could not be told, a sentence each.
    """

    name: str
    setting: Setting
    link: Link
    roof: Roof
    standing: Standing | None
    bottleneck: Ceiling
    levers: list[Lever]
    tasks: list[Moved]
    row_length: list[Moved]
    recompute: list[Moved]
    parts: Parts
    fixed: list[Scaled]
    growing: list[Scaled]
    wishes: list[Answer]
    missing: list[str]


def make_study(
    name: str,
    setting: Setting,
    link: Link,
    *,
    run: MeasuredRun | None = None,
    plan: BatchPlan | None = None,
    loader_rows_per_s: tuple[float, str] | None = None,
    shared_rows_known: bool = True,
) -> Study:
    """Study a setting, and a run of it.

    Args:
        name: Of the run, or of the model.
        setting: With a card.
        link: Between hosts.
        run: What was measured, or None.
        plan: Over the data set's own rows, or None.
        loader_rows_per_s: See `describe_roof`.
        shared_rows_known: Whether the workload tells songs apart, so that other tasks and lengths can be predicted.
    """
    matmul = None if run is None else run.matmul_tflops
    roof = describe_roof(setting, link, matmul_tflops=matmul, loader_rows_per_s=loader_rows_per_s)
    missing = [*roof.missing, *(() if run is None else run.missing)]
    standing, parts = None, planned_parts(setting)
    if run is not None:
        standing = stand(run, setting, roof)
        missing += [
            f"the run reaches {share:.0%} of the {name} ceiling, which was measured too low, beside other work"
            for name, share in standing.shares.items()
            if share > 1
        ]
        setting = replace(setting, efficiency=_as_measured(standing, run))
        # What the link does not explain stays whatever the link.
        parts = replace(run.parts, fixed_s=run.parts.fixed_s + standing.unexplained_s)
    if not shared_rows_known:
        missing.append("the data set is not at hand: other tasks a song and row lengths are not predicted")
    return Study(
        name=name,
        setting=setting,
        link=link,
        roof=roof,
        standing=standing,
        bottleneck=roof.lowest,
        levers=pull_levers(setting) if shared_rows_known else [],
        tasks=move_tasks(setting) if shared_rows_known else [],
        row_length=move_row_length(setting) if shared_rows_known else [],
        recompute=move_recompute(setting),
        parts=parts,
        fixed=scale_hosts(setting, parts, link, plan=plan),
        growing=scale_hosts(setting, parts, link, plan=plan, grows=True),
        wishes=answer_rates(setting) if shared_rows_known and setting.memory_bytes else [],
        missing=missing,
    )


def stand(run: MeasuredRun, setting: Setting, roof: Roof) -> Standing:
    """Compare a run with its ceilings."""
    assert setting.card is not None, "the command asks for one"
    rows = run.rows_of_step / run.world_size
    flops = count_flops(setting.case, 1, setting)
    ideal_row_s = compute_seconds(flops, setting.case, setting.card, Efficiency(1.0, 1.0))
    share = None if run.communication_s is None else run.communication_s / run.step_s
    return Standing(
        examples_per_s=run.examples_per_s,
        tokens_per_s=run.tokens_per_s,
        shares={one.name: run.tokens_per_s / one.tokens_per_s for one in roof.ceilings},
        flops_per_s=flops.total * rows / run.step_s,
        efficiency=ideal_row_s / run.parts.row_s,
        communication_share=share,
        unexplained_s=max(0.0, (run.communication_s or 0.0) - roof.communication_s),
    )


def _as_measured(standing: Standing, run: MeasuredRun) -> Efficiency:
    return Efficiency(standing.efficiency, standing.efficiency, f"measured in {run.name}")


def describe_next(study: Study) -> list[str]:
    """The next bottleneck, and what would move it, in words."""
    lowest, roof = study.bottleneck, study.roof
    bound = "compute" if roof.intensity >= roof.ridge else "memory"
    intensity, ridge = format_float(roof.intensity), format_float(roof.ridge)
    lines = [
        f"next bottleneck: {lowest.name}, {format_float(lowest.examples_per_s)} examples/s ({lowest.arithmetic})",
        f"moved by {MOVED_BY[lowest.name]}",
        f"a step does {intensity} FLOP a byte, and the ridge is at {ridge}: bound by {bound}",
    ]
    if roof.communication_s:
        lines.append(
            "computing and communication follow one another, so that both together allow "
            f"{format_float(roof.together_examples_per_s)} examples/s"
        )
    if study.standing is not None and study.standing.unexplained_s:
        lines.append(
            f"communication took {study.standing.unexplained_s:.3g} s a step more than the {roof.communication_s:.3g} "
            "s that the link gives: ranks that are late in a step, or no core for the network's thread"
        )
    best = study.levers[:3]
    lines += [f"{lever.change}: {format_float(lever.examples_per_s)} examples/s predicted" for lever in best]
    return lines


def to_json(study: Study) -> dict[str, Any]:
    """The study as plain values."""
    roof = study.roof
    predicted = predict_step(study.setting)
    return {
        "format_version": FORMAT_VERSION,
        "name": study.name,
        "card": None if study.setting.card is None else study.setting.card.name,
        "nodes": study.setting.nodes,
        "gpus_per_node": study.setting.gpus_per_node,
        "zero_stage": study.setting.case.zero.stage,
        "workload": study.setting.workload.source,
        "tokens_per_example": study.setting.workload.tokens_per_example,
        "efficiency": asdict(study.setting.efficiency),
        "link": {**asdict(study.link), "gbps": study.link.gbps},
        "ceilings": [asdict(one) for one in roof.ceilings],
        "roof": {
            "flops": roof.flops,
            "bytes": roof.moved.total,
            "bytes_by_part": asdict(roof.moved),
            "intensity": roof.intensity,
            "ridge": roof.ridge,
            "peak_flops": roof.peak_flops,
            "bandwidth_bytes_per_s": roof.bandwidth_bytes_per_s,
            "collectives": len(roof.collectives),
            "communication_s": roof.communication_s,
            "together_examples_per_s": roof.together_examples_per_s,
        },
        "predicted_examples_per_s": predicted.examples_per_s,
        "standing": None if study.standing is None else asdict(study.standing),
        "bottleneck": study.bottleneck.name,
        "moved_by": MOVED_BY[study.bottleneck.name],
        "next": describe_next(study),
        "levers": [asdict(one) for one in study.levers],
        "moves": {
            "tasks": [asdict(one) for one in study.tasks],
            "row_length": [asdict(one) for one in study.row_length],
            "recompute_layers": [asdict(one) for one in study.recompute],
        },
        "parts": asdict(study.parts),
        "scaling": {"fixed": _describe(study.fixed), "growing": _describe(study.growing)},
        "wishes": [asdict(one) for one in study.wishes],
        "missing": study.missing,
    }


def _describe(found: Sequence[Scaled]) -> list[dict[str, float]]:
    alone = found[0].examples_per_s / found[0].ranks if found else 1.0
    return [
        {
            **asdict(one),
            "step_s": one.step_s,
            "examples_per_s": one.examples_per_s,
            "efficiency": one.examples_per_s / one.ranks / alone,
        }
        for one in found
    ]
