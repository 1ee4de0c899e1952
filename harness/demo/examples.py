"""The songs that a demo asks about when no others are named: made up, so that nobody's rights or ears are hurt."""

from __future__ import annotations

import json
from importlib.resources import files

from harness.demo.prompts import song_of
from preprocess.schema import Song

EXAMPLES_FILE = "examples.json"


def read_examples() -> list[Song]:
    """The shipped songs; `harness.demo.screening` tells how they were chosen."""
    text = files("harness.demo").joinpath(EXAMPLES_FILE).read_text(encoding="utf-8")
    return [song_of(value) for value in json.loads(text)]
