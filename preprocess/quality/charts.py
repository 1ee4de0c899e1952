"""Charts as SVG text that takes its colours from the page, so that light and dark need one drawing.

    columns ▁▃█▅▂    of counts by name or by bin          curve ╭──    of a share over a count

Drawn 340 units wide, which is about a phone's width, so that letters stay readable there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 340
HEIGHT = 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 8, 14, 24
_PLOT_WIDTH = WIDTH - _LEFT - _RIGHT
_BASE = HEIGHT - _BOTTOM
_PLOT_HEIGHT = _BASE - _TOP
_LETTER = 6.6


@dataclass(frozen=True, slots=True)
class Mark:
    """A place that is pointed out in a chart of columns.

    Attributes:
        at: Where, in columns from the left edge.
        label: What stands there.
    """

    at: float
    label: str


def shorten_count(count: float) -> str:
    """A count for an axis: 950, 1.5k, 20k, 3M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def ticks(highest: int, most: int = 4) -> list[int]:
    """Round whole numbers from 0 that reach or pass the highest value, about `most` steps."""
    if highest <= 0:
        return [0, 1]
    rough = highest / most
    power = 10 ** math.floor(math.log10(rough)) if rough > 1 else 1
    step = next(int(factor * power) for factor in (1, 2, 5, 10) if factor * power >= rough)
    return list(range(0, highest + step, step))


def draw_columns(
    label: str,
    names: Sequence[str],
    counts: Sequence[int],
    *,
    marks: Sequence[Mark] = (),
    edges: bool = False,
) -> Markup:
    """Columns over names, or over bins.

    Args:
        label: What a screen reader says of the chart.
        names: K names of the columns, or, with `edges`, K + 1 edges of the bins ("" for those not written).
        counts: K heights.
        marks: Places to point out.
        edges: Whether names stand at the edges, the columns touching.
    """
    scale = ticks(max(counts, default=0))
    parts = [_grid(scale), *_columns(names, counts, scale[-1], edges=edges), *_names(names, edges=edges)]
    parts += _marks(marks, len(counts))
    return _svg(label, parts)


def _svg(label: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "t") -> str:
    return (
        f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _height(value: float, highest: float) -> float:
    return _BASE - _PLOT_HEIGHT * value / highest


def _grid(scale: Sequence[int]) -> str:
    parts = []
    for value in scale:
        y = _height(value, scale[-1])
        kind = "g" if value else "g0"
        parts.append(f'<path class="{kind}" d="M{_LEFT} {_number(y)}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, y + 4, shorten_count(value), "end"))
    return "".join(parts)


def _columns(names: Sequence[str], counts: Sequence[int], highest: int, *, edges: bool) -> list[str]:
    slot = _PLOT_WIDTH / max(1, len(counts))
    gap = min(1.0, slot * 0.1) if edges else slot * 0.22
    parts = []
    for index, count in enumerate(counts):
        if count:
            # A count that is not 0 is to be seen.
            top = min(_height(count, highest), _BASE - 1)
            x, width = _LEFT + index * slot + gap / 2, slot - gap
            told = f"{names[index]}: {count:,}" if not edges else f"{count:,}"
            box = f'x="{_number(x)}" y="{_number(top)}" width="{_number(width)}" height="{_number(_BASE - top)}"'
            parts.append(f'<rect class="b" {box} rx="1.5"><title>{escape(told)}</title></rect>')
    return parts


def _names(names: Sequence[str], *, edges: bool) -> list[str]:
    """The names below the columns, as many as have room."""
    slot = _PLOT_WIDTH / max(1, len(names) - edges)
    room = max((len(name) for name in names), default=1) * _LETTER + 6
    every = 1 if edges else max(1, math.ceil(room / slot))
    shift = 0.0 if edges else slot / 2
    return [
        _text(
            _LEFT + index * slot + shift,
            _BASE + 16,
            name,
            "end" if edges and index == len(names) - 1 else "middle",
        )
        for index, name in enumerate(names)
        if name and index % every == 0
    ]


def _marks(marks: Sequence[Mark], num_columns: int) -> list[str]:
    parts = []
    for mark in marks:
        x = _LEFT + _PLOT_WIDTH * mark.at / max(1, num_columns)
        parts.append(f'<path class="m" d="M{_number(x)} {_TOP}V{_BASE}"/>')
        parts.append(_text(x, _TOP - 4, mark.label, "middle" if x < WIDTH - 60 else "end", "t m"))
    return parts


def draw_curve(label: str, points: Sequence[tuple[int, float]], *, mark: int | None = None) -> Markup:
    """A rising share, 0 to 1, over counts on a logarithmic axis.

    Args:
        label: What a screen reader says of the chart.
        points: (count, share), counts rising from 1.
        mark: The count at which the share passes one half, pointed out.
    """
    decades = max(1.0, math.log10(points[-1][0]))
    places = [
        (_LEFT + _PLOT_WIDTH * math.log10(count) / decades, _height(share, 1)) for count, share in points
    ]
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _number(_height(share, 1))
        parts.append(f'<path class="{"g" if share else "g0"}" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, _height(share, 1) + 4, f"{share:.0%}", "end"))
    for power in range(int(decades) + 1):
        parts.append(_text(_LEFT + _PLOT_WIDTH * power / decades, _BASE + 16, shorten_count(10**power)))
    line = "L".join(f"{_number(x)} {_number(y)}" for x, y in places)
    start, end = _number(places[0][0]), _number(places[-1][0])
    parts.append(f'<path class="a" d="M{line}L{end} {_BASE}L{start} {_BASE}Z"/><path class="l" d="M{line}"/>')
    if mark is not None:
        x = _LEFT + _PLOT_WIDTH * math.log10(mark) / decades
        parts.append(f'<path class="m" d="M{_number(x)} {_TOP}V{_BASE}"/>')
        parts.append(_text(x, _TOP - 4, f"half by {mark:,}", "start" if x < _LEFT + 40 else "middle", "t m"))
    return _svg(label, parts)
