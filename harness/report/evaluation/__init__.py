"""The report of an evaluation: all systems with intervals, slices, confusions, calibration, truth and overlap."""
