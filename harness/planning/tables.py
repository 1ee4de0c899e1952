"""A plan as tables and lines on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from harness.cards import MIB
from harness.memory.case import PARTS, Phase
from harness.planning.plan import Plan
from harness.planning.recommend import Candidate
from harness.planning.wishes import Answer
from harness.roofline.ceiling_table import tabulate_ceilings

GIB = 2**30
GB = 1e9
SHOWN_PHASES: tuple[Phase, ...] = ("load", "engine_init", "forward", "loss", "backward", "optimizer", "eval")
NOTHING = "-"


def print_plan(plan: Plan, console: Console) -> None:
    """Print everything, the verdict last before the wishes."""
    for line in describe_basis(plan):
        console.print(line, highlight=False)
    console.print(tabulate_memory(plan))
    console.print(tabulate_stages(plan))
    for line in [*describe_verdict(plan), *describe_contrast(plan)]:
        console.print(line, highlight=False)
    if not plan.setting.fits:
        console.print(tabulate_relief(plan))
    if plan.roof is not None:
        console.print(tabulate_ceilings(plan.roof))
    for answer in plan.wishes:
        console.print()
        for line in describe_answer(answer):
            console.print(line, highlight=False)


def describe_basis(plan: Plan) -> list[str]:
    """What the prediction rests on, assumptions named as such."""
    setting, efficiency = plan.setting, plan.setting.efficiency
    card = "a card" if setting.card is None else setting.card.name
    ranks = f"{setting.nodes} x {setting.gpus_per_node} {card}"
    lines = [
        f"model   {plan.model} ({plan.shape_source})",
        (
            f"cards   {ranks}, {setting.memory_bytes / MIB:,.0f} MiB each, of which {setting.limit_bytes / GIB:.1f} "
            f"GiB are to be used ({setting.vram_target:.0%})"
        ),
        f"rows    {setting.workload.source}",
    ]
    if setting.card is None:
        return [*lines, "speed   none is predicted without --gpu: a card's peak is not known from its memory"]
    shares = f"{efficiency.bf16:.0%} of the bf16 peak of {setting.card.bf16_tflops:g} TFLOP/s"
    if setting.card.fp8_tflops is not None:
        shares += f", {efficiency.fp8:.0%} of the fp8 peak of {setting.card.fp8_tflops:g}"
    link = f"{setting.link_gbps:g} Gb/s between hosts, nothing overlaps" if setting.nodes > 1 else "one host"
    return [*lines, f"speed   {shares} ({efficiency.source}); {link}"]


def tabulate_memory(plan: Plan) -> Table:
    """GiB of a rank by part and phase."""
    phases = {phase.phase: phase for phase in plan.memory.phases if phase.phase in SHOWN_PHASES}
    setting = plan.setting
    title = (
        f"Memory of a rank, GiB: {setting.rows} rows of up to {setting.workload.longest_row:,}, ZeRO-"
        f"{setting.case.zero.stage}, {setting.case.recompute_layers} of "
        f"{setting.case.shape.num_layers} layers recomputed"
    )
    table = Table("part", title=title)
    for phase in phases:
        table.add_column(phase.replace("_", " "), justify="right")
    for part in PARTS:
        cells = [phase.parts.get(part, 0) for phase in phases.values()]
        if any(cells):
            table.add_row(part.replace("_", " "), *(f"{c / GIB:.2f}" if c else NOTHING for c in cells))
    peak = plan.memory.peak
    totals = [f"{p.total / GIB:.2f}{' *' if p.phase == peak.phase else ''}" for p in phases.values()]
    table.add_row("all", *totals, style="bold")
    for name, num_bytes in plan.memory.host.items():
        table.add_row(f"host: {name}", f"{num_bytes / GIB:.2f}")
    return table


def tabulate_stages(plan: Plan) -> Table:
    """The best rows and recomputed layers of each ZeRO stage, and what it sends."""
    table = Table("ZeRO", title="Best rows and recomputed layers of each stage; bytes of a rank and step")
    links = list(next(iter(plan.links.values()))[1])
    heads = [
        "rows",
        "recomputed",
        "GiB",
        "GB sent",
        *(f"s at {link:g} Gb/s" for link in links),
        "s a step",
        "tokens/s",
    ]
    for head in [*heads, "examples/s"]:
        table.add_column(head, justify="right")
    for stage, found in plan.by_stage.items():
        num_bytes, seconds = plan.links[stage]
        sent = [f"{num_bytes / GB:.2f}", *(f"{s:.2f}" for s in seconds.values())]
        mark = " *" if found is not None and found is plan.best else ""
        table.add_row(f"{stage}{mark}", *_describe_candidate(found, sent))
    return table


def _describe_candidate(found: Candidate | None, sent: list[str]) -> list[str]:
    if found is None:
        return ["does not fit", NOTHING, NOTHING, *sent, NOTHING, NOTHING, NOTHING]
    time, setting = found.time, found.setting
    return [
        str(setting.rows),
        str(setting.case.recompute_layers),
        f"{setting.peak_bytes / GIB:.1f}",
        *sent,
        _number(time.step_s, ".2f"),
        _number(time.tokens_per_s, ",.0f"),
        _number(time.examples_per_s, ",.0f"),
    ]


def describe_verdict(plan: Plan) -> list[str]:
    """Whether it fits, what is best, and what a step would have to take to fill the card."""
    setting, peak = plan.setting, plan.memory.peak
    share = peak.total / setting.memory_bytes
    fits = "fits" if setting.fits else "is above the target" if plan.can_run else "does not fit"
    lines = [
        (
            f"As configured it {fits}: {peak.total / GIB:.1f} GiB in phase {peak.phase}, {share:.0%} of the card; "
            f"{setting.limit_bytes / GIB:.1f} are to be used."
        )
    ]
    if (best := plan.best) is None:
        return [
            *lines,
            "No rows and recomputed layers fit at any ZeRO stage; the list below says what frees most.",
        ]
    case = best.setting.case
    lines.append(
        f"Best: deepspeed=zero{case.zero.stage} batch.micro_batch_size={best.setting.rows} "
        f"model.recompute_layers={case.recompute_layers}."
    )
    if plan.fill is not None:
        lines.append(_describe_fill(plan))
    return lines


def _describe_fill(plan: Plan) -> str:
    setting, fill = plan.setting, plan.fill
    assert fill is not None
    if fill.rows <= setting.rows_of_rank:
        return f"A step has {setting.rows_of_rank} rows a rank; {fill.rows} fit without recomputation: it fills a card."
    rate = "" if fill.time.examples_per_s is None else f", {fill.time.examples_per_s:,.0f} examples/s"
    return (
        f"A step has {setting.rows_of_step} rows, {setting.rows_of_rank} a rank; more rows in a micro-batch are of no "
        f"use. {fill.rows} fit without recomputation: to fill the card a step would take {fill.examples:,} examples"
        f"{rate}."
    )


def describe_contrast(plan: Plan) -> list[str]:
    """DeepSpeed's own estimates beside ours."""
    found = [
        f"ZeRO-{stage} {theirs / GIB:.1f} GiB (here {ours / GIB:.1f})"
        for stage, (theirs, ours) in plan.estimator.items()
    ]
    return [
        f"DeepSpeed's own estimate of model states alone, which takes every weight for trained: {'; '.join(found)}."
    ]


def tabulate_relief(plan: Plan) -> Table:
    """Single changes by what they free."""
    table = Table("change", title="What would free most, each alone")
    table.add_column("GiB freed", justify="right")
    table.add_column("then it fits", justify="right")
    for relief in plan.relief:
        table.add_row(relief.change, f"{relief.freed_bytes / GIB:.2f}", "yes" if relief.fits else "no")
    return table


def describe_answer(answer: Answer) -> list[str]:
    """A wish, its answer, the arithmetic and what would change it."""
    if answer.predicted is None or answer.factor is None:
        return [f"{answer.wish}: cannot be told", *(f"  {line}" for line in answer.arithmetic)]
    verdict = "reachable" if answer.reachable else f"not as planned, by a factor of {answer.factor:,.1f}"
    lines = [
        f"{answer.wish}: {verdict} (predicted {answer.predicted:,.0f} {answer.unit}, of {answer.wanted:,.0f})"
    ]
    lines += [f"  {line}" for line in answer.arithmetic]
    return lines + [
        f"  {'reaches it' if way.reaches else 'not enough'}: {way.change}: {way.value:,.0f} {answer.unit}"
        for way in answer.ways
    ]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
