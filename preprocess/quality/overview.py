"""The data-quality report: counts made song by song, and findings made over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from preprocess.choose.columns import SongColumns
from preprocess.choose.describe import concatenate, describe_songs
from preprocess.clean.song import Cleaned, CleanSettings, clean_song
from preprocess.quality.counts import FACTS, NUM_QUALITY_BINS, QualityCounts, percentiles
from preprocess.quality.findings import ArtistFound, Findings, find_all
from preprocess.quality.tallies import PairTally, Reasons, Tally
from preprocess.schema import Song

FORMAT = 2
"""Version of what `QualityReport.to_json` gives; 1 was the one without this number."""

NO_NAME = "(none)"
"""What songs without a genre, decade or language are counted under."""

_MOST = 100
_MOST_TAGS = 300
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What a collection of songs is like.

    Attributes:
        counts: Made song by song.
        findings: Made over all songs.
    """

    counts: QualityCounts = field(default_factory=QualityCounts)
    findings: Findings = field(default_factory=Findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, largest first; the same songs in the same order give the same values."""
        counts, findings = self.counts, self.findings
        lengths = percentiles(counts.lengths)
        return {
            "format": FORMAT,
            "num_songs": counts.num_songs,
            "num_rows": counts.num_rows,
            "rejected": named(counts.rejected.tally),
            "dropped": named(counts.dropped.tally),
            "length_percentiles_chars": {f"p{p}": value for p, value in lengths.items()},
            "languages": named(counts.languages),
            "genres": named(counts.genres),
            "decades": dict(sorted(named(counts.decades).items())),
            "artists": _describe_artists(findings),
            "num_duplicates": findings.num_duplicates,
            "num_near_duplicates": findings.num_near_duplicates,
            "num_lyrics_under_several_artists": findings.num_shared,
            "copies_of_same_lyrics": findings.copies,
            "missing": {fact: counts.missing[fact] for fact in FACTS},
            "num_truncated": counts.num_truncated,
            "num_with_headings": counts.num_with_headings,
            "num_explicit": counts.num_explicit,
            "explicit_by_genre": named(counts.explicit_genres),
            "num_suspect": counts.num_suspect,
            "suspicions": named(counts.suspicions.tally),
            "metadata_disagreements": named(counts.disagreements.tally),
            "quality_scores": {f"{n / NUM_QUALITY_BINS:.2f}": num for n, num in enumerate(counts.qualities)},
            "genres_by_decade": _nest(counts.genre_decades),
            "genres_by_tag": _nest(counts.tag_genres),
            "samples": {
                "rejected": _show(counts.rejected),
                "dropped": _show(counts.dropped),
                "truncated": _show(counts.truncated),
                "suspicions": _show(counts.suspicions),
                "metadata_disagreements": _show(counts.disagreements),
                "lyrics_under_several_artists": [
                    {
                        "artists": list(lyrics.artists),
                        "num_artists": lyrics.num_artists,
                        "songs": lyrics.num_songs,
                    }
                    for lyrics in findings.shared
                ],
            },
        }


def named(tally: Tally) -> dict[str, int]:
    """Name → count, largest first, the rest under "(other)"."""
    return {name or NO_NAME: count for name, count in tally.ranked(_MOST)}


def _nest(pairs: PairTally) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for first, second, count in pairs.ranked()[:_MOST_TAGS]:
        nested.setdefault(first or NO_NAME, {})[second or NO_NAME] = count
    return nested


def _show(reasons: Reasons) -> dict[str, list[dict[str, str]]]:
    samples = reasons.samples
    ranked = [name for name, _ in reasons.tally.ranked(_MOST)]
    return {name: [sample.to_json() for sample in samples[name]] for name in ranked if samples.get(name)}


def _describe_artists(findings: Findings) -> dict[str, Any]:
    return {
        "num": findings.num_artists,
        "num_with_one_song": findings.num_with_one_song,
        "num_of_half_of_the_songs": findings.num_artists_of_half,
        "num_with_2_genres_or_more": findings.num_artists_by_genres[2],
        "num_with_3_genres_or_more": findings.num_artists_by_genres[3],
        "songs_per_artist": findings.songs_per_artist,
        "top": _songs_by_name(findings.top),
        "most_genres": {artist.name: dict(artist.genres) for artist in findings.mixed},
    }


def _songs_by_name(artists: Iterable[ArtistFound]) -> dict[str, int]:
    return {artist.name: artist.num_songs for artist in artists}


def measure_quality(songs: Iterable[Song], settings: CleanSettings | None = None) -> QualityReport:
    """Clean, judge and report on songs in one process; some numbers and a name are kept of each.

    Args:
        songs: Songs as read; cleaning leaves clean ones as they are.
        settings: How they are cleaned; None: as by default.
    """
    counts, names = QualityCounts(), list[str | None]()
    settings = settings or CleanSettings()

    def describe() -> Iterator[SongColumns]:
        left = iter(songs)
        while batch := list(islice(left, _BATCH)):
            kept: list[Cleaned] = []
            for cleaned in (clean_song(song, settings) for song in batch):
                if cleaned.reason is None:
                    counts.add(cleaned.song, cleaned.traits)
                    names.append(cleaned.song.artist)
                    kept.append(cleaned)
                else:
                    counts.drop(cleaned.song, cleaned.reason)
            yield describe_songs([cleaned.song for cleaned in kept], [cleaned.traits for cleaned in kept])

    columns = concatenate(describe())
    return QualityReport(counts, find_all(columns, lambda places: [names[place] for place in places]))
