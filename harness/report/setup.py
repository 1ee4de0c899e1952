"""The report's tables of what a run was: hashes, shards, the cards' and the link's measured ceilings."""

from __future__ import annotations

from harness.numbers import format_float
from harness.report.charts import spell
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table, tabulate_nested

SHOWN_DIGITS = 16
"""Hexadecimal digits of a hash that a table shows: enough to compare by eye, not to check a file."""


def tabulate_setup(run: RunRecords) -> list[Table]:
    """Tabulate versions, hashes and shards."""
    tables = tabulate_nested("Versions", run.versions)
    sums = {name: value for name, value in run.identity.items() if isinstance(value, str) and value}
    if sums:
        note = f"SHA-256, the first {SHOWN_DIGITS} digits."
        rows = [[spell(name), value[:SHOWN_DIGITS]] for name, value in sums.items()]
        tables.append(Table("Hashes", [], rows, note=note))
    shards = run.identity.get("shards") or {}
    rows = [[split, name, value[:SHOWN_DIGITS]] for split in shards for name, value in shards[split].items()]
    if rows:
        rest = len(rows) - MAX_SHARDS
        note = f"and {rest:,} more; their sum is under Hashes, data" if rest > 0 else ""
        tables.append(Table("Shards", ["split", "file", "sha256"], rows[:MAX_SHARDS], note=note))
    return tables


MAX_SHARDS = 12


def tabulate_ceilings(run: RunRecords) -> list[Table]:
    """Tabulate what each card and the link reached before the run, beside the data sheet's peak."""
    ranks = run.ceilings.get("ranks") or []
    if not ranks:
        return []
    rows, marked = [], set[tuple[int, int]]()
    fastest = max(float(one["matmul_tflops"]) for one in ranks)
    for index, one in enumerate(ranks):
        peak = one.get("peak_tflops")
        matmul = float(one["matmul_tflops"])
        rows.append(
            [
                f"rank {one['rank']} ({one['host']})",
                str(one.get("card") or one.get("device") or NOTHING),
                NOTHING if peak is None else format_float(float(peak)),
                format_float(matmul),
                format_float(float(one["copy_gb_per_s"])),
            ]
        )
        marked |= {(index, 3)} if matmul < SLOW_CARD * fastest else set()
    link, latency = run.ceilings.get("allreduce_gbps"), run.ceilings.get("allreduce_latency_s")
    notes = [
        f"{ranks[0].get('matmul_dtype', '')} matrix products and copies in memory, measured before the run."
    ]
    if link is not None:
        notes.append(f"All-reduce over all ranks: {format_float(float(link))} Gb/s.")
    if latency is not None:
        notes.append(f"A small one takes {float(latency) * 1e3:.3g} ms.")
    if marked:
        notes.append(f"Marked: below {SLOW_CARD:.0%} of the fastest.")
    columns = ["", "card", "peak TFLOP/s", "reached TFLOP/s", "copy GB/s"]
    return [Table("Ceilings", columns, rows, marked=frozenset(marked), note=" ".join(notes))]


SLOW_CARD = 0.8
"""Share of the fastest rank's matrix product below which a rank's is marked."""
