"""Tells whether torch compiled code since the last look, which makes a step's time no measure of its speed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import cast


class CompileWatch:
    """Looks at what `torch._dynamo` counts: frames that it has been given to compile, for the first time or anew."""

    def __init__(self) -> None:
        self._seen = count_compilations()

    def has_compiled(self) -> bool:
        """Whether something was compiled in this process since the last call."""
        before, self._seen = self._seen, count_compilations()
        return self._seen != before


def count_compilations() -> int:
    """Frames that this process has compiled so far; 0 where the compiler was never loaded."""
    module = sys.modules.get("torch._dynamo.utils")
    if module is None:
        return 0
    counters = cast("Mapping[str, Mapping[str, int]]", module.counters)
    return counters["frames"]["total"] if "frames" in counters else 0
