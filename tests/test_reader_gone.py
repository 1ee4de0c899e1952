"""A rank whose launcher, pdsh or terminal is gone: what it prints nobody reads, and that is a loss and no crash."""

from __future__ import annotations

import os
import sys

import pytest

from harness.run_folder import as_user_error, explain_error


def test_a_line_that_nobody_reads_is_told_as_a_lost_launcher_without_another_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as stream:
        with pytest.raises(BrokenPipeError) as caught:
            print("a step", file=stream, flush=True)
        known = as_user_error(caught.value)
        assert known is not None
        assert known.exit_code == 6
        assert "--resume" in str(known)
        monkeypatch.setattr(sys, "stderr", stream)
        explain_error(known)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that it can be closed
