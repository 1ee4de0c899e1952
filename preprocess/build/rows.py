"""The last stage: the groups of a split, packed into rows by their lengths, written as shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.build.bins import Bins
from preprocess.build.config import BuildConfig
from preprocess.build.gather import GroupFiles
from preprocess.build.group_file import GroupFile
from preprocess.build.groups import SplitGroups
from preprocess.build.pack import pack_lengths
from preprocess.manifest import SplitInfo
from preprocess.schema import Int64Array
from preprocess.shards import write_split


def order_groups(owners: Int64Array, songs: Int64Array) -> Int64Array:
    """int64[G]: groups in the order of their songs, so that rows do not depend on the order of the input.

    Args:
        owners: int64[G], each group's song.
        songs: int64[N], the songs in the order of the choice.
    """
    by_song = np.argsort(songs, kind="stable")
    ranks = by_song[np.searchsorted(songs[by_song], owners)]
    return np.argsort(ranks, kind="stable")


def write_rows(folder: Path, groups: SplitGroups, songs: Int64Array, config: BuildConfig) -> SplitInfo:
    """Pack a split and write its shards.

    Args:
        folder: Of the split.
        groups: Its groups.
        songs: int64[N], its songs in the order of the choice.
        config: The build's settings.

    Raises:
        NoSpaceError: The disk is full.
    """
    files = GroupFiles([GroupFile(path) for path in groups.paths])
    order = order_groups(groups.owners, songs)
    packed = pack_lengths(
        files.lengths[order], config.encode.seq_len, config.seed, weights=files.num_supervised[order]
    )
    bins = Bins(order[packed.order], packed.ends)
    return write_split(folder, files.gather(bins), config.tasks, config.rows_per_shard, len(bins))
