"""Intervals, slices and calibration of an evaluation; numpy alone."""

from harness.evaluation.statistics.bootstrap import Interval, bootstrap, bootstrap_difference, rate_interval
from harness.evaluation.statistics.calibration import Calibration, CalibrationBin, calibrate, softmax
from harness.evaluation.statistics.confusion import NO_ANSWER, count_answers
from harness.evaluation.statistics.slices import Slice, make_buckets, slice_values

__all__ = [
    "NO_ANSWER",
    "Calibration",
    "CalibrationBin",
    "Interval",
    "Slice",
    "bootstrap",
    "bootstrap_difference",
    "rate_interval",
    "calibrate",
    "count_answers",
    "make_buckets",
    "slice_values",
    "softmax",
]
