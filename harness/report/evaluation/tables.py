"""The tables of an evaluation of version 2."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluation.overlap import cut_words
from harness.json_lines import JsonObject
from harness.report.charts import spell
from harness.report.evaluation.records import GENERATE, RANK, Lead, Measurement, Scores, TruthRates
from harness.report.evaluation.systems import (
    LOWER_IS_BETTER,
    METHODS,
    SHORT_NAMES,
    Contestant,
    contestant_of,
    headline_of,
    list_contestants,
    name_briefly,
    name_metric,
    name_system,
    place_of,
)
from harness.report.tables import NOTHING, Table, format_percent, format_value, tabulate_nested

HASH_DIGITS = 16


def tabulate_marks(scores: Scores) -> list[Table]:
    """Tabulate the goals and what was reached of them."""
    if not scores.marks:
        return []
    judged = {True: "reached", False: "not reached", None: "not measured"}
    rows = [
        [one.mark, format_percent(one.wanted), format_percent(one.value), judged[one.is_reached]]
        for one in scores.marks
    ]
    marked = frozenset((i, 3) for i, one in enumerate(scores.marks) if one.is_reached)
    return [Table("Goals", ["goal", "wanted", "measured", ""], rows, marked=marked)]


def tabulate_systems(scores: Scores) -> list[Table]:
    """Tabulate every metric of every task by system, the best marked; how many answers were none in a table apart."""
    good = [one for one in scores.measurements if one.metric not in LOWER_IS_BETTER]
    none = [one for one in scores.measurements if one.metric in LOWER_IS_BETTER]
    happens = {(one.task, one.metric) for one in none if one.value}
    none = [one for one in none if (one.task, one.metric) in happens]
    return [
        *_tabulate_by_system("All systems", good, ABOUT_SYSTEMS),
        *_tabulate_by_system(
            "Refused and empty answers", none, "They count as wrong above. A task that is not here has none."
        ),
    ]


ABOUT_SYSTEMS = (
    "Percent, with 95 % intervals (bootstrap over songs); the best of a line is marked. Ranked: the likeliest of all "
    "known names. Generated: the text as it was written, matched strictly; a refusal or nothing is wrong. Where few "
    "songs were answered in words, ranks and baselines stand on more. Expected: what the taught answers reach."
)


def _tabulate_by_system(title: str, measurements: Sequence[Measurement], note: str) -> list[Table]:
    contestants = list_contestants(measurements)
    lines = list(dict.fromkeys((one.task, one.metric) for one in measurements))
    cells = {(one.task, one.metric, contestant_of(one)): one for one in measurements}
    rows, marked = [], set()
    for i, (task, metric) in enumerate(lines):
        found = [cells.get((task, metric, one)) for one in contestants]
        counts = sorted({one.n for one in found if one is not None and one.system != "chance"} or {0})
        songs = " to ".join(map(format_value, dict.fromkeys((counts[0], counts[-1]))))
        rows.append([f"{task}\n{name_metric(metric)}", songs, *(map(write_measurement, found))])
        marked |= {(i, 2 + j) for j in find_best(metric, found)}
    columns = ["task", "songs", *(_break_label(one) for one in contestants)]
    return [Table(title, columns, rows, marked=frozenset(marked), note=note)] if rows else []


def _break_label(one: Contestant) -> str:
    name, _, method = name_briefly(one).partition(", ")
    return f"{name}\n{method}" if method else name


def tabulate_subject(evaluation: JsonObject) -> list[Table]:
    """Tabulate what was evaluated and when, and how fast its answers were written.

    Args:
        evaluation: The figures of evaluation.json beside those of its tasks.
    """
    facts = {key: value for key, value in evaluation.items() if key not in ("hashes", "generation")}
    rows = [[spell(key), format_value(value)] for key, value in facts.items()]
    rows += [
        [f"{name}, SHA-256", str(value)[:HASH_DIGITS]]
        for name, value in (evaluation.get("hashes") or {}).items()
    ]
    tables = [Table("What was evaluated", [], rows)] if rows else []
    speed = dict(evaluation.get("generation") or {})
    cut = tabulate_cut_answers(speed.pop("unfinished", None))
    return tables + tabulate_nested("", {"writing the answers": speed} if speed else {}) + cut


def tabulate_cut_answers(unfinished: object) -> list[Table]:
    """Tabulate which part of the written answers was cut before its end.

    Args:
        unfinished: System → task → part of its answers; nothing is shown of what is not of this shape.
    """
    given = unfinished if isinstance(unfinished, dict) else {}
    shares = {system: of_task for system, of_task in given.items() if isinstance(of_task, dict)}
    rows = [
        [task, *(_write_share(of_task.get(task)) for of_task in shares.values())]
        for task in dict.fromkeys(task for of_task in shares.values() for task in of_task)
    ]
    note = "Answers that reached the limit of tokens before they came to their end."
    columns = ["task", *map(name_system, shares)]
    return [Table("Answers cut short", columns, rows, note=note)] if rows else []


def _write_share(share: object) -> str:
    return format_percent(share if isinstance(share, (int, float)) else None)


def find_best(metric: str, found: Sequence[Measurement | None]) -> list[int]:
    """Where the best values of a line stand, the taught answer's aside; nowhere if there are not two different ones."""
    values = {
        i: one.value
        for i, one in enumerate(found)
        if one is not None and one.value is not None and one.system != "expected"
    }
    if len(set(values.values())) < 2:
        return []
    best = min(values.values()) if metric in LOWER_IS_BETTER else max(values.values())
    return [i for i, value in values.items() if value == best]


def write_measurement(one: Measurement | None) -> str:
    """As in "72.9%" with "61.5 to 81.9" on a line of its own."""
    if one is None or one.value is None:
        return NOTHING
    if one.low is None or one.high is None or one.system == "chance":  # which is known, not estimated
        return format_percent(one.value)
    return f"{one.value:.1%}\n{100 * one.low:.1f} to {100 * one.high:.1f}"


def tabulate_leads(scores: Scores) -> list[Table]:
    """Tabulate how far the tuned model is ahead of each other system, where it surely is marked."""
    if not scores.leads:
        return []
    others = sorted(dict.fromkeys(one.against for one in scores.leads), key=place_of)
    lines = list(dict.fromkeys((one.task, one.metric, one.method) for one in scores.leads))
    cells = {(one.task, one.metric, one.method, one.against): one for one in scores.leads}
    found = [[cells.get((*line, other)) for other in others] for line in lines]
    rows = [
        [f"{task}, {METHODS.get(method, method)}: {name_metric(metric)}", *map(_write_lead, leads)]
        for (task, metric, method), leads in zip(lines, found, strict=True)
    ]
    marked = frozenset(
        (r, 1 + c)
        for r, leads in enumerate(found)
        for c, one in enumerate(leads)
        if one is not None and one.low > 0
    )
    note = (
        "Percentage points on the same songs, with 95 % intervals (paired bootstrap). Marked: surely ahead."
    )
    columns = ["task", *(SHORT_NAMES.get(other, name_system(other)) for other in others)]
    return [Table("After training, ahead of", columns, rows, marked=marked, note=note)]


def _write_lead(one: Lead | None) -> str:
    if one is None:
        return NOTHING
    return f"{100 * one.value:+.1f}\n{100 * one.low:+.1f} to {100 * one.high:+.1f}"


SLICED = ("before", "tfidf", "after")
"""Systems whose slices are shown."""


def tabulate_slices(scores: Scores) -> list[Table]:
    """Tabulate each task's metric by slice, before, after and TF-IDF's: one table for each way of slicing."""
    tables = []
    for by in dict.fromkeys(one.by for one in scores.slices):
        lines = [one for one in choose_slices(scores) if one.by == by and one.system in SLICED]
        columns = sorted({(one.task, contestant_of(one)) for one in lines})
        cells = {(one.slice, one.task, contestant_of(one)): one for one in lines}
        slices = list(dict.fromkeys(one.slice for one in lines))
        rows = [
            [name, *(_write_slice(cells.get((name, task, who))) for task, who in columns)] for name in slices
        ]
        heads = [f"{task}\n{name_briefly(who)}" for task, who in columns]
        if rows:
            tables.append(Table(f"By {spell(by)}", [spell(by), *heads], rows))
    return tables


def choose_slices(scores: Scores) -> list[Measurement]:
    """The slices of each task's leading metric: ranked ones where there are some, else generated ones."""
    leading = {one.task: headline_of(one.task, scores.slices) for one in scores.slices}
    ranked = {one.task for one in scores.slices if one.method == RANK}
    return [
        one
        for one in scores.slices
        if one.metric == leading[one.task] and (one.method != GENERATE or one.task not in ranked)
    ]


def _write_slice(one: Measurement | None) -> str:
    if one is None:
        return NOTHING
    value, _, ends = write_measurement(one).partition("\n")
    return f"{value} of {one.n:,}" + (f"\n{ends}" if ends else "")


def tabulate_truth(scores: Scores) -> list[Table]:
    """Tabulate what the truth check found, by system, and by task and system."""
    whole = [one for one in scores.truth if not one.task]
    parts = [one for one in scores.truth if one.task]
    tables = []
    if whole:
        rows = [[name_system(one.system), *_write_rates(one)] for one in whole]
        note = (
            "Claims about artist, genre, era, album, words, figures and similar songs against the catalogue. "
            "Hallucination rate: contradicted among those that could be checked, with its 95 % interval."
        )
        tables.append(Table("Claims in generated answers", ["answers", *RATE_COLUMNS], rows, note=note))
    if parts:
        by_task = sorted(parts, key=lambda one: one.task)
        rows = [[f"{one.task}, {name_system(one.system)}", *_write_rates(one)] for one in by_task]
        tables.append(Table("Claims by task", ["task, answers", *RATE_COLUMNS], rows))
    return tables


RATE_COLUMNS = ["supported", "contradicted", "not checkable", "hallucination rate"]


def _write_rates(one: TruthRates) -> list[str]:
    rate = format_percent(one.hallucination_rate)
    if one.hallucination_rate is not None and one.low is not None and one.high is not None:
        rate += f"\n{100 * one.low:.1f} to {100 * one.high:.1f}"
    return [f"{one.supported:,}", f"{one.contradicted:,}", f"{one.not_checkable:,}", rate]


def tabulate_overlap(scores: Scores) -> list[Table]:
    """Tabulate the longest runs of words in common with the training lyrics."""
    if not scores.overlap:
        return []
    rows = [
        [
            name_system(one.system),
            f"{one.longest_words:,}",
            format_value(one.median_words),
            cut_words(one.text) or NOTHING,
            one.song_id or NOTHING,
        ]
        for one in scores.overlap
    ]
    columns = ["answers", "longest, words", "median", "its words", "training song"]
    note = "Words in a row that an answer has in common with the lyrics of a training song, spelling and case aside."
    return [Table("Words repeated from training", columns, rows, note=note)]


def tabulate_leakage(scores: Scores) -> list[Table]:
    """Tabulate what the audit for leaks looked at and found."""
    audit = scores.leakage
    if audit is None:
        return []
    rows = [
        ["questions checked", f"{audit.num_checked:,}"],
        ["leaks found", f"{len(audit.findings):,}"],
        ["questions left out of every score", f"{audit.num_excluded:,}"],
    ]
    return [
        Table("Leakage audit", [], rows),
        *tabulate_nested("", {"leaks": list(audit.findings)} if audit.findings else {}),
    ]


def tabulate_calibration(scores: Scores) -> list[Table]:
    """Tabulate the calibration errors by task and system."""
    if not scores.reliability:
        return []
    rows = [
        [f"{one.task}, {name_system(one.system)}", f"{one.ece:.3f}", f"{one.brier:.3f}"]
        for one in scores.reliability
    ]
    note = (
        "Confidence: the softmax of the candidates' scores. ECE: mean distance of confidence and accuracy over the "
        "bins (Naeini et al. 2015); Brier: mean squared error of the probabilities. Lower is better."
    )
    return [Table("Calibration of ranked answers", ["task, model", "ECE", "Brier"], rows, note=note)]
