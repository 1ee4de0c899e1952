"""The plan's wishes, each answered by arithmetic: reachable or not, by what factor, and what would reach it.

What the plan means by its times: it samples 2,000 songs of each of 7 genres and asks 4 questions about each, 56,000
examples; at its 1,000 a second one pass takes 56 s, which is its "45-90 seconds" of demo training. Its "15-20 minutes
for the complete dataset" are 900,000 to 1,200,000 examples at that rate, 225,000 to 300,000 songs, while the data set
that it names has 5 million.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.cards import CARDS, MIB
from harness.planning.levers import best_rate, filled_rate, list_levers, pull_all_levers
from harness.planning.recommend import best_at_stage, fewest_recomputed, fill, first_true, most_rows
from harness.planning.setting import Setting
from harness.planning.speed import predict_step

SAMPLES_PER_S = 1000.0
PLAN_ROWS, PLAN_ROW_LENGTH, PLAN_TASKS = 24, 2048, 4
DEMO_SONGS, DEMO_S = 7 * 2000, 90.0
WHOLE_SONGS, WHOLE_S = 5_000_000, 20 * 60.0
USED_BYTES = 45 * 10**9
NEARLY = 0.95
"""Of the bytes that are wished used: whole rows come no nearer."""

MOST_NODES = 1024
GB = 1e9


@dataclass(frozen=True, slots=True)
class Way:
    """One thing that would change, and what the same functions then give.

    Attributes:
        change: What.
        value: In the wish's unit.
        reaches: Whether the wish is then reached.
    """

    change: str
    value: float
    reaches: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A wish and its answer.

    Attributes:
        name: Short, for JSON.
        wish: In words.
        unit: Of the values.
        wanted: What is wished.
        predicted: What is predicted, None where no speed can be.
        reachable: Whether it is reached as planned, None where no speed can be predicted.
        factor: How many times short of the wish, 1 or less where it is reached; None likewise.
        arithmetic: How the prediction comes about, a line each.
        ways: What would change it.
    """

    name: str
    wish: str
    unit: str
    wanted: float
    predicted: float | None
    reachable: bool | None
    factor: float | None
    arithmetic: list[str]
    ways: list[Way] = field(default_factory=list)


def answer_wishes(setting: Setting) -> list[Answer]:
    """Answer all of them for a setting."""
    return [
        _answer_rate(setting),
        _answer_rows(setting),
        *_answer_times(setting),
        _answer_memory(setting),
    ]


def answer_rates(setting: Setting) -> list[Answer]:
    """Answer those of speed and time alone."""
    return [_answer_rate(setting), *_answer_times(setting)]


def _answer_rate(setting: Setting) -> Answer:
    predicted = best_rate(setting)
    ways = [] if predicted is None else list(_rate_ways(setting))
    return Answer(
        name="samples_per_s",
        wish="1,000 samples (examples) a second",
        unit="examples/s",
        wanted=SAMPLES_PER_S,
        predicted=predicted,
        reachable=None if predicted is None else predicted >= SAMPLES_PER_S,
        factor=None if predicted is None else SAMPLES_PER_S / predicted,
        arithmetic=_explain_rate(setting),
        ways=ways,
    )


def _explain_rate(setting: Setting) -> list[str]:
    found = best_at_stage(setting)
    if found is None or found.time.compute_s is None or setting.card is None:
        return ["no speed without a card (--gpu) whose peak is known, or nothing fits"]
    time, work = found.time, setting.workload
    per_token = time.flops.total / (setting.rows_of_rank * work.tokens)
    rate = f"{setting.card.bf16_tflops:g} TFLOP/s x {setting.efficiency.bf16:.0%}"
    if setting.case.fp8:
        rate += f" and {setting.card.fp8_tflops:g} x {setting.efficiency.fp8:.0%} in float8"
    return [
        (
            f"{work.tokens_per_example:.0f} tokens an example ({work.unshared_tokens / work.examples:.0f} if each "
            f"repeated its lyrics), {per_token / 1e9:.1f} GFLOP a token computed"
        ),
        (
            f"a step of {time.rows} rows is {time.examples:.0f} examples, {setting.rows_of_rank} rows on the busiest "
            f"rank: {time.flops.total / 1e12:.1f} TFLOP / ({rate}) = {time.compute_s:.3f} s"
        ),
        f"{time.traffic.total / GB:.2f} GB a rank over {setting.link_gbps:g} Gb/s = {time.communication_s:.3f} s",
        f"{time.examples:.0f} / ({time.compute_s:.3f} + {time.communication_s:.3f}) = {time.examples_per_s:.0f} per s",
    ]


def _rate_ways(setting: Setting) -> Iterator[Way]:
    def way(change: str, rate: float | None) -> Iterator[Way]:
        if rate is not None:
            yield Way(change, rate, rate >= SAMPLES_PER_S)

    filled = fill(setting)
    if filled is not None:
        yield from way(
            f"large steps: {filled.examples:,} examples, which fill every card", filled.time.examples_per_s
        )
    yield from way("large steps, and a link that takes no time", filled_rate(replace(setting, link_gbps=1e5)))
    for change, other in list_levers(setting):
        yield from way(f"large steps, {change}", filled_rate(other))
    together = pull_all_levers(setting)
    yield from way("all of these but the card and the model", filled_rate(together))
    for change, start in (
        ("as planned", setting),
        ("with all of these but the card and the model", together),
    ):
        nodes, full = _find_nodes(start), fill(start)
        if nodes is not None and full is not None:
            yield from way(f"{nodes} hosts, {change}, steps that fill them", _rate_on(full.setting, nodes))


def _find_nodes(setting: Setting) -> int | None:
    """The fewest hosts that reach the wish with cards as full as now, or None up to 1,024."""
    found = fill(setting)
    if found is None:
        return None

    def reaches(nodes: int) -> bool:
        return (_rate_on(found.setting, nodes) or 0.0) >= SAMPLES_PER_S

    return first_true(1, MOST_NODES, reaches)


def _rate_on(filled: Setting, nodes: int) -> float | None:
    """Examples/s on another number of hosts, with as many rows on each rank; more ranks never take more memory."""
    other = filled.with_nodes(nodes)
    return predict_step(other.with_rows_of_step(filled.rows * other.case.ranks)).examples_per_s


def _answer_rows(setting: Setting) -> Answer:
    work = replace(setting.workload, longest_row=PLAN_ROW_LENGTH)
    work = replace(work, most_supervised=min(work.most_supervised, PLAN_ROW_LENGTH))
    asked = replace(setting, workload=work).with_rows(PLAN_ROWS, 0)
    fitting = fewest_recomputed(asked, PLAN_ROWS)
    ways = [] if asked.fits else _rows_ways(asked, fitting)
    return Answer(
        name="rows_a_gpu",
        wish="24 x 2,048 slots in one forward pass on a GPU",
        unit="GB",
        wanted=setting.limit_bytes / GB,
        predicted=asked.peak_bytes / GB,
        reachable=asked.fits,
        factor=asked.peak_bytes / setting.limit_bytes,
        arithmetic=[
            (
                f"without recomputation {asked.peak_bytes / GB:.1f} GB a rank, {setting.limit_bytes / GB:.1f} GB "
                f"allowed; {most_rows(replace(setting, workload=work))} rows of {PLAN_ROW_LENGTH:,} fit"
            ),
            f"the plan counts padded examples; 24 packed rows hold {24 * setting.workload.examples:.0f} of them",
        ],
        ways=ways,
    )


def _rows_ways(asked: Setting, fitting: Setting | None) -> list[Way]:
    ways = []
    if fitting is not None:
        slower = predict_step(fitting).flops.total / predict_step(asked).flops.total
        layers = f"model.recompute_layers={fitting.case.recompute_layers} of {asked.case.shape.num_layers}"
        ways.append(Way(f"{layers}, {slower:.2f} times the work", fitting.peak_bytes / GB, reaches=True))
    larger = sorted(CARDS, key=lambda card: card.memory_mib)
    for card in larger:
        other = replace(asked, card=card, memory_bytes=card.memory_mib * MIB)
        if other.fits:
            ways.append(
                Way(f"a card of {card.memory_mib:,} MiB ({card.name})", other.peak_bytes / GB, reaches=True)
            )
            break
    return ways


def _answer_times(setting: Setting) -> list[Answer]:
    return [
        _answer_time(setting, "demo_s", "one pass over a demo's 14,000 songs in 45-90 s", DEMO_SONGS, DEMO_S),
        _answer_time(setting, "whole_s", "the complete data set in 15-20 min", WHOLE_SONGS, WHOLE_S),
    ]


def _answer_time(setting: Setting, name: str, wish: str, songs: int, wanted: float) -> Answer:
    per_song = setting.workload.examples / setting.workload.songs
    rate, filled = best_rate(setting), filled_rate(setting)
    seconds = None if rate is None else songs * per_song / rate
    ways = []
    if rate is not None and filled is not None:
        ways.append(
            Way("steps that fill every card", songs * per_song / filled, songs * per_song / filled <= wanted)
        )
        fewer = int(wanted * filled / per_song)
        ways.append(
            Way(
                f"{min(fewer, songs):,} songs in such steps",
                min(wanted, songs * per_song / filled),
                reaches=True,
            )
        )
        together = pull_all_levers(setting)
        fast, its_tasks = filled_rate(together), together.workload.examples / together.workload.songs
        if fast is not None:
            change = f"all levers of the first wish ({its_tasks:.0f} questions a song)"
            ways.append(Way(change, songs * its_tasks / fast, songs * its_tasks / fast <= wanted))
    return Answer(
        name=name,
        wish=wish,
        unit="s",
        wanted=wanted,
        predicted=seconds,
        reachable=None if seconds is None else seconds <= wanted,
        factor=None if seconds is None else seconds / wanted,
        arithmetic=[
            f"{songs:,} songs x {per_song:.1f} questions = {songs * per_song:,.0f} examples"
            + ("" if seconds is None else f"; / {rate:.0f} a second = {seconds:,.0f} s"),
            f"the plan asks {PLAN_TASKS} a song: {songs * PLAN_TASKS:,} examples, "
            f"{songs * PLAN_TASKS / SAMPLES_PER_S:,.0f} s at its own 1,000 a second"
            + ("" if songs == DEMO_SONGS else ", so its two figures do not agree"),
        ],
        ways=ways,
    )


def _answer_memory(setting: Setting) -> Answer:
    allowed = replace(setting, vram_target=min(1.0, USED_BYTES / setting.memory_bytes))
    rows = most_rows(allowed)
    reached = setting.with_rows(max(rows, 1), 0).peak_bytes
    same = predict_step(setting.with_rows(max(rows, 1), 0))
    return Answer(
        name="memory_used",
        wish="45 of 48 GB used",
        unit="GB",
        wanted=USED_BYTES / GB,
        predicted=setting.peak_bytes / GB,
        reachable=setting.peak_bytes >= NEARLY * USED_BYTES,
        factor=USED_BYTES / setting.peak_bytes,
        arithmetic=[
            (
                f"the card shows {setting.memory_bytes / MIB:,.0f} MiB = {setting.memory_bytes / GB:.1f} GB, of which "
                f"{setting.usable_bytes / GB:.1f} can be had; as set, {setting.peak_bytes / GB:.1f} GB are used"
            ),
            (
                f"{rows} rows without recomputation take {reached / GB:.1f} GB, but a step has {same.rows} rows, "
                f"{setting.rows_of_rank} a rank: more rows than these stand empty"
            ),
        ],
        ways=[
            Way(
                f"batch.micro_batch_size={rows} with steps of {rows * setting.case.ranks} rows",
                reached / GB,
                reaches=rows > 0 and reached >= NEARLY * USED_BYTES,
            )
        ],
    )
