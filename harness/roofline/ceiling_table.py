"""The table of ceilings, for `harness plan` and `harness roofline`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from harness.numbers import format_float
from harness.roofline.ceilings import Roof

NOTHING = "-"


def tabulate_ceilings(roof: Roof, shares: Mapping[str, float] | None = None) -> Table:
    """Each ceiling, the lowest marked, with the share of it that a run reached."""
    table = Table("ceiling", title="Ceilings, each as if nothing else took time")
    heads = ["tokens/s", "examples/s", *(["reached"] if shares is not None else [])]
    for head in heads:
        table.add_column(head, justify="right")
    for head in ("of a step", "from"):
        table.add_column(head)
    for one in roof.ceilings:
        mark = " *" if one is roof.lowest else ""
        reached = [] if shares is None else [f"{shares[one.name]:.1%}"]
        rates = [format_float(one.tokens_per_s), format_float(one.examples_per_s)]
        table.add_row(f"{one.name}{mark}", *rates, *reached, one.arithmetic, one.source)
    return table
