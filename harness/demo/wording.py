"""How answers' marks and confidences are put, the same in a terminal and on a page."""

from __future__ import annotations

from harness.evaluation.truth.claims import Verdict

SIGNS: dict[Verdict, str] = {"supported": "✓", "contradicted": "✗", "not checkable": "?"}

LEGEND = "✓ supported by the song and the data set, ✗ contradicted by them, ? neither"


def describe_confidence(confidence: float | None, likeliest: str | None) -> str:
    """As in "likeliest name: Juniper Vale, 62%" or "mean token probability 71%"; "" where it is not known.

    Args:
        confidence: 0 to 1; see `harness.demo.items.Reply`.
        likeliest: The name that it is of, or None.
    """
    if confidence is None:
        return ""
    if likeliest is None:
        return f"mean token probability {confidence:.0%}"
    return f"likeliest name: {likeliest}, {confidence:.0%}"
