"""Intervals, slices and calibration of an evaluation; numpy alone."""

from harness.evaluation.statistics.bootstrap import Interval, bootstrap, bootstrap_difference
from harness.evaluation.statistics.calibration import Calibration, CalibrationBin, calibrate, softmax

__all__ = [
    "Calibration",
    "CalibrationBin",
    "Interval",
    "bootstrap",
    "bootstrap_difference",
    "calibrate",
    "softmax",
]
