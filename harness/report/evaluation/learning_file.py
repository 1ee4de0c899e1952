"""learning_curve.json: accuracy on held-out songs at several checkpoints of a run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.json_lines import JsonObject

CURVE_FILE = "learning_curve.json"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy at one checkpoint.

    Attributes:
        step: Of the checkpoint; 0 for the base model.
        accuracy: Task to its accuracy and the ends of its 95 % interval, 0 to 1.
        num_songs: Task to the songs that were asked about.
    """

    step: int
    accuracy: dict[str, tuple[float, float, float]]
    num_songs: dict[str, int]


def parse_curve(content: JsonObject) -> list[CurvePoint]:
    """The points of learning_curve.json, by step.

    Raises:
        KeyError: A field is missing.
        TypeError: A value is of the wrong kind.
        AttributeError: A value is of the wrong kind.
        ValueError: A value is no number.
    """
    points = [
        CurvePoint(
            int(point["step"]),
            {
                task: (float(one["accuracy"]), float(one["low"]), float(one["high"]))
                for task, one in point["tasks"].items()
            },
            {task: int(one["total"]) for task, one in point["tasks"].items()},
        )
        for point in content["points"]
    ]
    return sorted(points, key=lambda point: point.step)
