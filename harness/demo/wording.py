"""How answers' marks and confidences are put, the same in a terminal and on a page."""

from __future__ import annotations

from harness.demo.items import Reply
from harness.evaluation.truth.claims import Verdict

SIGNS: dict[Verdict, str] = {"supported": "✓", "contradicted": "✗", "not checkable": "?"}

LEGEND = "✓ supported by the song and the data set, ✗ contradicted by them, ? neither"


def describe_confidence(reply: Reply) -> str:
    """As in "likeliest name: Juniper Vale, 62%" or "mean token probability 71%"; "" where it is not known."""
    if reply.confidence is None:
        return ""
    if reply.likeliest is None:
        return f"mean token probability {reply.confidence:.0%}"
    return f"likeliest name: {reply.likeliest}, {reply.confidence:.0%}"
