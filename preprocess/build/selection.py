"""The songs of each split, in pieces, with no song on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from preprocess.build.counting import Counted, count_songs
from preprocess.build.pieces import Piece, cut_pieces, read_songs_of
from preprocess.build.spool import Spool
from preprocess.build.workers import Workers
from preprocess.choose.crossing import find_crossing
from preprocess.choose.sample import Choice
from preprocess.durable import write_text_durably
from preprocess.knowledge import KNOWLEDGE_FILE, write_knowledge
from preprocess.outside_text import parse_json
from preprocess.schema import Int64Array
from preprocess.tasks.statistics import CorpusStatistics

_CROSSING = "crossing.json"


@dataclass(slots=True)
class Selection:
    """The chosen songs on disk.

    Attributes:
        spool: All songs.
        choice: Those that were chosen.
        order: For each split its songs in the order of the choice.
        crossing: Training and unseen songs that are, nearly or in part, an evaluation song, and so left out.
    """

    spool: Spool
    choice: Choice
    order: dict[str, Int64Array]
    crossing: Int64Array

    def pieces(self, split: str) -> list[Piece]:
        """The songs of a split, cut into pieces of work."""
        return cut_pieces(self.spool, np.sort(self.order[split]), self.choice.same_id)


def select_songs(
    spool: Spool, choice: Choice, folder: Path, pool_size: int, workers: Workers, console: Console
) -> tuple[Selection, Callable[[], CorpusStatistics]]:
    """Take out the songs that cross a split, and count what the training songs have in common.

    Which songs cross is kept on disk, and what is known of the training songs as soon as their statistics are made;
    the counts are made again when they are asked for after an interruption.

    Args:
        spool: All songs.
        choice: Those that were chosen.
        folder: Where the crossing songs and `KNOWLEDGE_FILE` are kept.
        pool_size: Training songs among which similar ones are looked for.
        workers: Processes to share the work out to.
        console: For progress.

    Returns:
        The songs of each split, and a call that gives the statistics of the training songs.
    """
    held_out = {"eval": choice.evaluation, "eval_unseen": choice.eval_unseen}
    songs = {
        name: list(read_songs_of(cut_pieces(spool, np.sort(indices), choice.same_id)))
        for name, indices in held_out.items()
    }
    known = folder / _CROSSING
    gathered: Counted | None = None

    def gather() -> Counted:
        pieces = cut_pieces(spool, np.sort(choice.train), choice.same_id)
        return count_songs(pieces, [*songs["eval"], *songs["eval_unseen"]], pool_size, workers, console)

    if known.is_file():
        crossing = np.array(parse_json(known.read_text("utf-8")), np.int64)
    else:
        gathered = gather()
        between = find_crossing(
            ((song.id, song.lyrics) for song in songs["eval"]),
            ((str(place), song.lyrics) for place, song in enumerate(songs["eval_unseen"])),
        )
        places = sorted({int(found.train_id) for found in between})
        crossing = np.sort(np.concatenate([gathered.crossing, np.sort(choice.eval_unseen)[places]]))
        write_text_durably(known, json.dumps(crossing.tolist()))
    order = {"train": choice.train, **held_out}
    order = {name: indices[~np.isin(indices, crossing)] for name, indices in order.items()}
    selection = Selection(
        spool, choice, {name: indices for name, indices in order.items() if len(indices)}, crossing
    )

    def make_corpus() -> CorpusStatistics:
        counted = gathered or gather()
        statistics = CorpusStatistics(counted.counts)
        knowledge = counted.known.knowledge(statistics, counted.counts)
        write_knowledge(folder / KNOWLEDGE_FILE, knowledge)
        return statistics

    return selection, make_corpus
