"""Parts of the songs that are looked at apart: by genre, decade, language, how often training has the artist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.evaluation.statistics.bootstrap import NUM_SAMPLES, Interval, bootstrap
from preprocess.schema import Song

UNKNOWN = "unknown"

FREQUENCIES = ((0, "0 songs"), (5, "1-5 songs"), (20, "6-20 songs"), (None, "over 20 songs"))
"""Most training songs of an artist in a slice, and what the slice is called."""


def bucket_genre(song: Song) -> str:
    """The song's genre."""
    return song.genre or UNKNOWN


def bucket_decade(song: Song) -> str:
    """The song's decade, as in "1990s"."""
    return song.decade or UNKNOWN


def bucket_language(song: Song) -> str:
    """The song's language, an ISO 639 code."""
    return song.language if song.language not in (None, "und") else UNKNOWN


def bucket_artist_frequency(song: Song, train_counts: Mapping[str, int]) -> str:
    """How many training songs the artist has.

    Args:
        song: The song.
        train_counts: Artist → training songs, as in labels.json; an artist who is missing has none.
    """
    if song.artist is None:
        return UNKNOWN
    count = train_counts.get(song.artist, 0)
    return next(name for most, name in FREQUENCIES if most is None or count <= most)


def make_buckets(train_counts: Mapping[str, int]) -> dict[str, Callable[[Song], str]]:
    """By what songs are sliced → the slice of a song."""
    return {
        "genre": bucket_genre,
        "decade": bucket_decade,
        "language": bucket_language,
        "artist_frequency": lambda song: bucket_artist_frequency(song, train_counts),
    }


@dataclass(frozen=True, slots=True)
class Slice:
    """A metric over a part of the songs.

    Attributes:
        by: "genre", "decade", "language" or "artist_frequency".
        slice: Which part, as in "Rock".
        interval: The mean over it.
    """

    by: str
    slice: str
    interval: Interval


def slice_values(
    values: Sequence[float],
    songs: Sequence[Song],
    train_counts: Mapping[str, int],
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
) -> Iterator[Slice]:
    """A metric by slices, each with a bootstrap over its own songs; the slices of each kind by name.

    Args:
        values: Of some questions.
        songs: The song of each.
        train_counts: Artist → training songs.
        seed: Of the bootstrap.
        num_samples: Of the bootstrap.
    """
    for by, bucket in make_buckets(train_counts).items():
        parts: dict[str, list[tuple[float, str]]] = {}
        for value, song in zip(values, songs, strict=True):
            parts.setdefault(bucket(song), []).append((value, song.id))
        for name in sorted(parts, key=_place):
            part, ids = zip(*parts[name], strict=True)
            interval = bootstrap(part, ids, seed=seed, num_samples=num_samples)
            assert interval is not None
            yield Slice(by, name, interval)


def _place(name: str) -> tuple[bool, int, str]:
    """Frequencies by number, "unknown" last, the others by name."""
    names = [found for _, found in FREQUENCIES]
    return name == UNKNOWN, names.index(name) if name in names else 0, name
