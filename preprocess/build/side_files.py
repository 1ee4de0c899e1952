"""What a data set holds beside its rows: the tokenizer, the held-out songs, their true names, what is known.

What is known of the training songs was written when they were counted (`preprocess.build.selection`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from preprocess.build.groups import KeptSong, SplitGroups
from preprocess.build.labels import make_labels
from preprocess.choose.outcome import SampleOutcome
from preprocess.durable import copy_durably, make_folder, sha256_of, write_text_durably
from preprocess.knowledge import KNOWLEDGE_FILE
from preprocess.quality.overview import QualityReport
from preprocess.quality.page import write_html
from preprocess.schema import Int64Array, Song
from preprocess.tokenizer import TextTokenizer

PAGE_TITLE = "Songs of the data set"


def write_side_files(
    folder: Path,
    *,
    tokenizer: TextTokenizer,
    groups: Mapping[str, SplitGroups],
    order: Mapping[str, Int64Array],
    tasks: Sequence[str],
    quality: QualityReport,
    outcome: SampleOutcome,
    knowledge: Path,
    rejected: Sequence[str],
) -> dict[str, str]:
    """Write the side files.

    Args:
        folder: Of the data set.
        tokenizer: That the ids belong to.
        groups: Of each split.
        order: For each split its songs in the order of the choice.
        tasks: Of the data set.
        quality: What was found in the input.
        outcome: What the sample was made of.
        knowledge: File with what is known of the training songs.
        rejected: Rows that were no songs, a line of JSON each.

    Returns:
        Name → sha256 of each file.

    Raises:
        NoSpaceError: The disk is full.
    """
    held_out = {name: _sort(groups[name].songs, order[name]) for name in groups if name != "train"}
    asked = [(kept.song, kept.asked) for songs in held_out.values() for kept in songs]
    files = {
        "tokenizer/tokenizer.json": tokenizer.to_json(),
        "labels.json": _dump(make_labels(groups["train"].labels, asked, tasks)),
        "quality.json": _dump({"quality": quality.to_json(), "sample": outcome.to_json()}),
        **{
            f"{name}_songs.jsonl": _dump_songs(kept.song for kept in songs)
            for name, songs in held_out.items()
        },
    }
    if rejected:
        files["rejected.jsonl"] = "".join(line + "\n" for line in rejected)
    make_folder(folder / "tokenizer")
    for name, text in files.items():
        write_text_durably(folder / name, text)
    copy_durably(knowledge, folder / KNOWLEDGE_FILE)
    write_html(quality, folder / "quality.html", PAGE_TITLE)
    return {name: sha256_of(folder / name) for name in sorted((*files, KNOWLEDGE_FILE, "quality.html"))}


def _sort(songs: Iterable[KeptSong], order: Int64Array) -> list[KeptSong]:
    ranks = {index: rank for rank, index in enumerate(order.tolist())}
    return sorted(songs, key=lambda kept: ranks[kept.index])


def _dump(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _dump_songs(songs: Iterable[Song]) -> str:
    return "".join(json.dumps(asdict(song), ensure_ascii=False) + "\n" for song in songs)
