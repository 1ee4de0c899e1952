"""Errors that a user can cause, each with the exit code that its command ends with."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a condition outside the program. Its message says what was got, expected, and to do."""

    exit_code = 2


class ConfigError(UserError):
    """Bad usage or a bad configuration."""

    exit_code = 2


class PreflightError(UserError):
    """A check before the start refused: the wrong number of ranks, a missing hostfile, a busy port."""

    exit_code = 3


class DataError(UserError):
    """Songs or shards that are missing, malformed or damaged."""

    exit_code = 4


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete or damaged."""

    exit_code = 5


class HostLostError(UserError):
    """A host or a rank went away."""

    exit_code = 6


class StoppedError(UserError):
    """A signal asked a run to stop, and it did so in good order."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class HangError(UserError):
    """A rank stands still while the others wait for it."""

    exit_code = 7


class OutOfMemoryError(UserError):
    """The device's or the host's memory does not suffice."""

    exit_code = 8


class NoSpaceError(UserError):
    """The disk is full."""

    exit_code = 9


class TrainingError(UserError):
    """Training diverged: a loss or a gradient that is not finite."""

    exit_code = 10
