"""Intervals, slices and calibration of an evaluation; numpy alone."""

from harness.evaluation.statistics.bootstrap import Interval, bootstrap, bootstrap_difference, rate_interval
from harness.evaluation.statistics.calibration import Calibration, CalibrationBin, calibrate, softmax
from harness.evaluation.statistics.slices import Slice, make_buckets, slice_values

__all__ = [
    "Calibration",
    "CalibrationBin",
    "Interval",
    "Slice",
    "bootstrap",
    "bootstrap_difference",
    "calibrate",
    "make_buckets",
    "rate_interval",
    "slice_values",
    "softmax",
]
