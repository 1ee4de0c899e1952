"""The parts of the report's page, as values ready to be shown: figures, bars, charts, heat map, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from preprocess.quality.advice import percent, plural
from preprocess.quality.charts import Mark, draw_columns, draw_curve
from preprocess.quality.counts import NUM_QUALITY_BINS, QualityCounts, percentiles
from preprocess.quality.findings import ArtistFound, Findings
from preprocess.quality.languages import language_name
from preprocess.quality.overview import NO_NAME, QualityReport
from preprocess.quality.tallies import OTHER, Reasons, Sample, Tally

MAX_BARS = 15
MAX_REASONS = 12
MAX_TAGS = 25
_NUM_LENGTH_BINS = 40
_MAX_DECADES = 11
_MAX_HEAT_ROWS = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a list with bars.

    Attributes:
        name: What is counted.
        count: The count, written.
        share: Its share, written; "" for none.
        part: Length of the bar, 0 to 1.
    """

    name: str
    count: str
    share: str
    part: float


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason with samples."""

    bar: Bar
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Counts by row and column; each cell is the count written, and its heat, 0 to 1."""

    columns: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


def list_figures(report: QualityReport) -> list[Figure]:
    """The headline figures."""
    counts, found = report.counts, report.findings
    whole = counts.num_songs
    languages = sum(1 for code in counts.languages.counts if code not in ("", "und"))
    lengths = percentiles(counts.lengths, [5, 50, 95])
    spread = f"90% have {lengths[5]:,} to {lengths[95]:,}" if lengths else ""
    return [
        Figure("Songs kept", f"{whole:,}", f"of {plural(counts.num_rows, 'row')}"),
        Figure("Artists", f"{found.num_artists:,}", f"{found.num_with_one_song:,} with one song"),
        Figure("Characters, median", f"{lengths.get(50, 0):,}", spread),
        Figure("Languages", f"{languages:,}", _largest(counts.languages, whole)),
        Figure("Repeated lyrics", percent(found.num_duplicates, whole), plural(found.num_duplicates, "song")),
        Figure(
            "With a genre", percent(whole - counts.missing["genre"], whole), _largest(counts.genres, whole)
        ),
        Figure(
            "With a year",
            percent(whole - counts.missing["year"], whole),
            f"{counts.missing['year']:,} without",
        ),
        Figure("Explicit", percent(counts.num_explicit, whole), plural(counts.num_explicit, "song")),
        Figure("Rejected rows", f"{counts.num_rejected:,}", percent(counts.num_rejected, counts.num_rows)),
        Figure("Dropped songs", f"{counts.num_dropped:,}", percent(counts.num_dropped, counts.num_rows)),
        Figure("Suspect songs", f"{counts.num_suspect:,}", percent(counts.num_suspect, whole)),
        Figure("Cut off", f"{counts.num_truncated:,}", percent(counts.num_truncated, whole)),
    ]


def _largest(tally: Tally, whole: int) -> str:
    known = [(name, count) for name, count in tally.ranked() if name not in ("", OTHER)]
    return f"{percent(known[0][1], whole)} {known[0][0]}" if known else ""


def list_bars(tally: Tally, whole: int, most: int = MAX_BARS) -> list[Bar]:
    """A tally as bars, largest first."""
    return bars_of([(name or NO_NAME, count) for name, count in tally.ranked(most)], whole)


def bars_of(counts: Sequence[tuple[str, int]], whole: int) -> list[Bar]:
    """Counts as bars, in their order; without shares where there is no whole."""
    highest = max((count for _, count in counts), default=0) or 1
    return [
        Bar(name, f"{count:,}", percent(count, whole) if whole else "", count / highest)
        for name, count in counts
    ]


def list_languages(counts: QualityCounts, most: int = MAX_BARS) -> list[Bar]:
    """Languages by name."""
    ranked = counts.languages.ranked(most)
    return bars_of([(language_name(code), count) for code, count in ranked], counts.num_songs)


def list_explicit(counts: QualityCounts) -> list[Bar]:
    """The share of explicit songs in each of the largest genres; the bar is the share itself."""
    bars = []
    for genre, whole in counts.genres.ranked(MAX_BARS):
        num = counts.explicit_genres.counts.get(genre, 0)
        if genre != OTHER:
            bars.append(Bar(genre or NO_NAME, f"{num:,}", percent(num, whole), num / whole))
    return sorted(bars, key=lambda bar: -bar.part)


def list_missing(counts: QualityCounts) -> list[Bar]:
    """Facts that songs have; the bar is the share itself."""
    whole = counts.num_songs
    facts = [(fact, whole - num) for fact, num in counts.missing.items()]
    facts.append(("section headings", counts.num_with_headings))
    return [Bar(fact, f"{num:,}", percent(num, whole), num / whole if whole else 0) for fact, num in facts]


def list_reasons(reasons: Reasons, whole: int) -> list[Reason]:
    """Reasons with their samples, most frequent first."""
    ranked = reasons.tally.ranked(MAX_REASONS)
    bars = bars_of([(name or NO_NAME, count) for name, count in ranked], whole)
    return [Reason(bar, reasons.samples.get(name, [])) for bar, (name, _) in zip(bars, ranked, strict=True)]


def list_suspects(counts: QualityCounts) -> list[Reason]:
    """Suspicions, and the songs that look cut off, as one list."""
    both = Reasons()
    both.merge(counts.suspicions)
    both.merge(counts.truncated)
    return list_reasons(both, counts.num_songs)


def list_tags(counts: QualityCounts) -> list[list[str]]:
    """The source's word, the genre it was read as, songs."""
    ranked = counts.tag_genres.ranked()
    return [[tag or NO_NAME, genre or NO_NAME, f"{count:,}"] for tag, genre, count in ranked[:MAX_TAGS]]


def chart_lengths(counts: QualityCounts) -> Markup:
    """Lengths of lyrics in bins of a round number of characters; the last bin has all that are longer."""
    marks = percentiles(counts.lengths, [50, 99])
    width = _bin_width(marks.get(99, 1))
    bins = [0] * _NUM_LENGTH_BINS
    for length, count in counts.lengths.items():
        bins[min(length // width, _NUM_LENGTH_BINS - 1)] += count
    edges = [f"{n * width:,}" if n % 10 == 0 else "" for n in range(_NUM_LENGTH_BINS)] + ["longer"]
    median = marks.get(50, 0)
    label = f"Songs by length of lyrics in characters; median {median:,}"
    return draw_columns(label, edges, bins, marks=[Mark(median / width, f"median {median:,}")], edges=True)


def _bin_width(long: int) -> int:
    rough = max(1, long // (_NUM_LENGTH_BINS - 2))
    return next(
        n for n in (1, 2, 5, 10, 20, 25, 50, 75, 100, 125, 150, 200, 250, 500, 1000, 2000) if n >= rough
    )


def chart_decades(counts: QualityCounts) -> Markup:
    """Songs by decade, in order; rare ones together."""
    names, nums = zip(*_decades(counts), strict=True) if counts.num_songs else ((), ())
    told = ", ".join(f"{name} {num:,}" for name, num in zip(names, nums, strict=True))
    return draw_columns(f"Songs by decade: {told}", [_short_decade(name) for name in names], nums)


def list_decades(counts: QualityCounts, most: int) -> list[Bar]:
    """Songs by decade, in order."""
    return bars_of(_decades(counts, most), counts.num_songs)


def _short_decade(name: str) -> str:
    return "none" if name == NO_NAME else name.strip("()")


def _decades(counts: QualityCounts, most: int = _MAX_DECADES) -> list[tuple[str, int]]:
    """Decades in order with their songs, the thin ends put together; then what is not told apart, then none."""
    sums: dict[str, int] = {}
    for decade, name in _name_decades(counts, most).items():
        sums[name] = sums.get(name, 0) + counts.decades.counts[decade]
    if counts.decades.num_other:
        sums[OTHER] = counts.decades.num_other
    if "" in counts.decades.counts:
        sums[NO_NAME] = counts.decades.counts[""]
    return list(sums.items())


def _name_decades(counts: QualityCounts, most: int = _MAX_DECADES) -> dict[str, str]:
    """Decade → its own name for `most` in a row, "earlier" or "later" for the others; in order of time."""
    nums = counts.decades.counts
    ordered = sorted((decade for decade in nums if decade), key=lambda decade: int(decade[:-1]))
    start, end, num_earlier, num_later = 0, len(ordered), 0, 0
    while end - start > most:
        earlier, later = num_earlier + nums[ordered[start]], num_later + nums[ordered[end - 1]]
        if earlier <= later:
            start, num_earlier = start + 1, earlier
        else:
            end, num_later = end - 1, later
    shown = {decade: decade for decade in ordered[start:end]}
    return dict.fromkeys(ordered[:start], "earlier") | shown | dict.fromkeys(ordered[end:], "later")


def chart_qualities(counts: QualityCounts) -> Markup:
    """Songs by quality score."""
    edges = [f"{n / NUM_QUALITY_BINS:.1f}" if n % 4 == 0 else "" for n in range(NUM_QUALITY_BINS + 1)]
    return draw_columns("Songs by quality score, 0 to 1", edges, counts.qualities, edges=True)


def chart_songs_per_artist(findings: Findings) -> Markup:
    """Artists by the number of their songs."""
    bins = findings.songs_per_artist
    told = ", ".join(f"{name}: {num:,}" for name, num in bins.items())
    return draw_columns(f"Artists by number of songs: {told}", list(bins), list(bins.values()))


def chart_concentration(findings: Findings) -> Markup:
    """The share of songs that the most productive artists have together."""
    num_songs = findings.num_songs - findings.num_without_artist
    points = [(num, songs / num_songs) for num, songs in findings.curve]
    half = findings.num_artists_of_half
    return draw_curve(
        f"{half:,} of {findings.num_artists:,} artists have half of the songs", points, mark=half
    )


def map_genres(counts: QualityCounts) -> HeatMap:
    """Genres by decades; heat is the square root of the count's part of the largest."""
    names, decades = _name_decades(counts), [name for name, _ in _decades(counts)]
    genres = [name for name, _ in counts.genres.ranked(_MAX_HEAT_ROWS) if name != OTHER]
    cells: dict[tuple[str, str], int] = {}
    for genre, decade, count in counts.genre_decades.ranked():
        key = (genre if genre in genres else OTHER, names.get(decade, OTHER) if decade else NO_NAME)
        cells[key] = cells.get(key, 0) + count
    rows = genres + ([OTHER] if any(row == OTHER for row, _ in cells) else [])
    highest = max(cells.values(), default=1)
    return HeatMap(
        decades,
        [
            (row or NO_NAME, [_cell(cells.get((row, decade), 0), highest) for decade in decades])
            for row in rows
        ],
    )


def _cell(count: int, highest: int) -> tuple[str, float]:
    return (f"{count:,}", (count / highest) ** 0.5) if count else ("", 0.0)


def list_top(findings: Findings) -> list[Bar]:
    """The artists with the most songs."""
    return bars_of([(artist.name, artist.num_songs) for artist in findings.top], findings.num_songs)


def list_mixed(artists: Sequence[ArtistFound]) -> list[list[str]]:
    """The artists with the most genres: name, songs, genres with their songs."""
    return [
        [
            artist.name,
            f"{artist.num_songs:,}",
            ", ".join(f"{genre} {num:,}" for genre, num in list(artist.genres.items())[:8])
            + (f" and {len(artist.genres) - 8} more" if len(artist.genres) > 8 else ""),
        ]
        for artist in artists
    ]


def list_shared(findings: Findings) -> list[list[str]]:
    """Lyrics under several artists: how many artists, songs, the first names."""
    return [
        [
            f"{lyrics.num_artists:,}",
            f"{lyrics.num_songs:,}",
            " · ".join(lyrics.artists) + (" · …" if lyrics.num_artists > len(lyrics.artists) else ""),
        ]
        for lyrics in findings.shared
    ]
