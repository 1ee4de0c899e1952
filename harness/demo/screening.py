"""How the shipped examples were chosen: made-up songs, cleaned as a build cleans them, without an explicit word.

`write_examples()` makes `examples.json` again; the same songs each time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from harness.demo.examples import EXAMPLES_FILE
from harness.demo.prompts import choose_songs
from preprocess.clean.leaks import sings_artist
from preprocess.clean.song import CleanSettings, clean_song
from preprocess.corpus import generate_songs
from preprocess.durable import write_text_durably
from preprocess.schema import Song

SEED = 2026
"""Of the examples' corpus. The quickstart and `preprocess corpus` take 0, so no example is among their songs."""

NUM_EXAMPLES = 8
_NUM_CANDIDATES = 200


def choose_examples() -> list[Song]:
    """Short songs by different artists of the quickstart, of different genres."""
    made = generate_songs(_NUM_CANDIDATES, SEED, length="short", artists_per_genre=2)
    cleaned = [clean_song(song, CleanSettings()) for song in islice(made, _NUM_CANDIDATES)]
    fit = [
        one.song
        for one in cleaned
        if one.reason is None and not one.traits.is_explicit and not sings_artist(one.song)
    ]
    by_id = {song.id: song for song in fit}
    chosen = choose_songs(
        {id_: {"artist": song.artist, "genre": song.genre} for id_, song in by_id.items()}, NUM_EXAMPLES
    )
    return [
        replace(by_id[id_], id=f"example-{number}", source="made-up corpus")
        for number, id_ in enumerate(chosen, 1)
    ]


def write_examples(folder: Path = Path(__file__).parent) -> None:
    """Write `examples.json` into a folder."""
    text = json.dumps([asdict(song) for song in choose_examples()], indent=2, ensure_ascii=False)
    write_text_durably(folder / EXAMPLES_FILE, text + "\n")
