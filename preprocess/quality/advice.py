"""What to look at in a collection, the weightiest first: what was found, what it means, what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from preprocess.quality.overview import QualityReport
from preprocess.quality.tallies import Reasons
from preprocess.schema import GENRES

Level = Literal["act", "look", "note"]

_ACT, _LOOK = 0.03, 0.003
_LOW_QUALITY_BINS = 6
_FEW_SONGS = 2000
"""Songs a genre that the plan's sample asks for."""

_WEAK = 0.5
_FAINT = 0.1


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to look at.

    Attributes:
        what: What was found, with its figure.
        meaning: What it means for training.
        remedy: What to do about it.
        section: The part of the page that shows it.
        weight: Share of songs concerned, 0 to 1, times how much it matters.
    """

    what: str
    meaning: str
    remedy: str
    section: str
    weight: float

    @property
    def level(self) -> Level:
        """How much attention it deserves."""
        return "act" if self.weight >= _ACT else "look" if self.weight >= _LOOK else "note"


def percent(count: int, whole: int) -> str:
    """A share with one digit; what is neither nothing nor all is never shown as 0.0 % or 100.0 %."""
    if whole <= 0:
        return "0%"
    share = count / whole
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """As in "1 song", "2,000 songs"."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _agree(count: int, phrase: str) -> str:
    """A phrase that begins with a verb in both numbers, as in "lacks|lack a year"."""
    verbs, rest = phrase.split(" ", 1)
    one, many = verbs.split("|")
    return f"{one if count == 1 else many} {rest}"


def _told(count: int, whole: int, phrase: str) -> str:
    """As in "2 songs (0.1%) lack a year"."""
    return f"{plural(count, 'song')} ({percent(count, whole)}) {_agree(count, phrase)}"


def advise(report: QualityReport) -> list[Advice]:
    """All there is to look at, the weightiest first."""
    found = [advice for look in _LOOKS for advice in look(report)]
    return sorted(found, key=lambda advice: (-advice.weight, advice.what))


def _share(count: int, whole: int) -> float:
    return count / whole if whole else 0.0


def _main_reason(reasons: Reasons) -> str:
    name, count = reasons.tally.ranked(1)[0]
    return f"Most often: {name or 'no reason given'} ({count:,})."


def _look_at_rows(report: QualityReport) -> Iterator[Advice]:
    counts = report.counts
    whole = counts.num_rows
    if counts.num_rejected:
        share = percent(counts.num_rejected, whole)
        yield Advice(
            f"{plural(counts.num_rejected, 'row')} ({share}) could not be read as songs",
            f"These rows are lost to training. {_main_reason(counts.rejected)}",
            "Read some in rejected.jsonl. If a column was misunderstood, name it with --columns; if the file is "
            "damaged, fetch it again.",
            "rejected",
            _share(counts.num_rejected, whole),
        )
    if counts.num_dropped:
        yield Advice(
            _told(counts.num_dropped, whole, "was|were dropped in cleaning"),
            f"They were no lyrics, or not of the wanted kind. {_main_reason(counts.dropped)}",
            "Look at the samples: if good songs are among them, loosen the limits of cleaning.",
            "dropped",
            _WEAK * _share(counts.num_dropped, whole),
        )


def _look_at_copies(report: QualityReport) -> Iterator[Advice]:
    found, whole = report.findings, report.findings.num_songs
    if found.num_duplicates:
        yield Advice(
            _told(found.num_duplicates, whole, "repeats|repeat the words of an earlier one"),
            "Trained on as they are, repeated songs would be learned by heart and would leak into evaluation.",
            "Nothing: the sample keeps one of each. If it is far more than one or two per cent, look whether a "
            "file was given twice.",
            "duplicates",
            _share(found.num_duplicates, whole),
        )
    if found.num_near_duplicates:
        yield Advice(
            _told(found.num_near_duplicates, whole, "is|are nearly the same as another"),
            "Other transcriptions, remixes and live versions of the same song.",
            "Nothing: the sample keeps one of each, and none crosses from training into evaluation.",
            "duplicates",
            _WEAK * _share(found.num_near_duplicates, whole),
        )
    if found.num_shared:
        yield Advice(
            _told(found.num_songs_shared, whole, "has|have words that stand under several artists"),
            "Covers, traditionals, or rows with the wrong artist: who sings them cannot be told from the words.",
            "Look at the examples. If one name is plainly wrong, correct it in the source.",
            "duplicates",
            _share(found.num_songs_shared, whole),
        )


def _look_at_artists(report: QualityReport) -> Iterator[Advice]:
    found = report.findings
    many = found.num_artists_by_genres[3]
    if many:
        yield Advice(
            f"{many:,} of {plural(found.num_artists, 'artist')} "
            + _agree(many, "has|have songs in three genres or more"),
            "Genres were given song by song, by whoever uploaded it: what the model is to learn is contradictory.",
            "Look at the worst. A placeholder such as “Various Artists” is no artist; for the rest correct the genres "
            "in the source, or map both to one with read.genres.",
            "artists",
            _WEAK * _share(many, found.num_artists),
        )
    if found.num_artists_of_half and found.num_artists_of_half * 20 <= found.num_artists:
        yield Advice(
            f"{found.num_artists_of_half:,} of {plural(found.num_artists, 'artist')} "
            + _agree(found.num_artists_of_half, "makes|make up half of the songs"),
            "A few voices would dominate training.",
            "sample.songs_per_artist limits each; lower it for more variety.",
            "artists",
            _FAINT * _FAINT,
        )


_USES = {
    "title": ("a title", "Metadata cannot be joined by title; otherwise little depends on it."),
    "artist": ("an artist", "No question about the artist or the style is made of them."),
    "genre": ("a genre", "No question about the genre is made of them, and the sample takes few."),
    "year": ("a year", "No question about the time is made of them, and decades cannot be balanced."),
    "album": ("an album", "Little depends on it."),
}
_IMPORTANCE = {"title": _FAINT, "artist": 1.0, "genre": 1.0, "year": _WEAK, "album": 0.002}


def _look_at_missing(report: QualityReport) -> Iterator[Advice]:
    counts = report.counts
    for fact, (name, meaning) in _USES.items():
        num = counts.missing[fact]
        if num:
            yield Advice(
                _told(num, counts.num_songs, f"lacks|lack {name}"),
                meaning,
                f"If a table with the {fact} of these songs exists, give it with --metadata.",
                "facts",
                _IMPORTANCE[fact] * _share(num, counts.num_songs),
            )


def _look_at_texts(report: QualityReport) -> Iterator[Advice]:
    counts = report.counts
    whole = counts.num_songs
    if counts.num_suspect:
        yield Advice(
            _told(counts.num_suspect, whole, "looks|look suspicious"),
            f"They were kept, but may not be lyrics as they were sung. {_main_reason(counts.suspicions)}",
            "Read the samples; what is no song can be dropped by stricter limits in cleaning.",
            "suspect",
            _share(counts.num_suspect, whole),
        )
    if counts.num_truncated:
        yield Advice(
            _told(counts.num_truncated, whole, "looks|look cut off"),
            "Answers about the structure of a song that ends too early are wrong.",
            "If many end at the same length, the source cut them: look for a fuller one.",
            "suspect",
            _share(counts.num_truncated, whole),
        )
    low = sum(counts.qualities[:_LOW_QUALITY_BINS])
    if low:
        yield Advice(
            _told(low, whole, "has|have a quality score below 0.3"),
            "Too short, too repetitive or too little text to learn from.",
            "Nothing: sample.min_quality leaves them out. Raise it for a stricter choice.",
            "suspect",
            _WEAK * _share(low, whole),
        )
    without = whole - counts.num_with_headings
    if without:
        yield Advice(
            _told(without, whole, "has|have no section headings"),
            "Verse and chorus are then told by repetition alone.",
            "Nothing, unless all songs lack them: then a step before this one may have removed them.",
            "facts",
            _FAINT * _FAINT * _WEAK * _share(without, whole),
        )


def _look_at_labels(report: QualityReport) -> Iterator[Advice]:
    counts = report.counts
    clashes = counts.disagreements.tally.total
    if clashes:
        yield Advice(
            f"In {plural(clashes, 'case')} the metadata file contradicts the row",
            f"One of the two is wrong; the row's own was kept. {_main_reason(counts.disagreements)}",
            "Look at the samples and decide which source deserves trust.",
            "conflicts",
            _share(clashes, counts.num_songs),
        )
    foreign = sum(count for genre, count in counts.genres.counts.items() if genre and genre not in GENRES)
    foreign += counts.genres.num_other
    if foreign:
        yield Advice(
            _told(foreign, counts.num_songs, f"has|have a genre outside the project's {len(GENRES)}"),
            "Each such name counts as a genre of its own, with its own place in the sample.",
            "Map the names to the project's genres with a table (read.genres), or list the wanted ones in "
            "sample.genres.",
            "genres",
            _WEAK * _share(foreign, counts.num_songs),
        )
    scarce = [genre for genre in GENRES if 0 < counts.genres.counts.get(genre, 0) < _FEW_SONGS]
    if scarce and counts.num_songs >= _FEW_SONGS * len(GENRES):
        told = ", ".join(f"{genre} ({counts.genres.counts[genre]:,})" for genre in scarce)
        yield Advice(
            f"{plural(len(scarce), 'genre')} {_agree(len(scarce), 'has|have fewer than')} {_FEW_SONGS:,} songs: "
            f"{told}",
            "The sample cannot be balanced over them as the plan asks.",
            "Find more such songs, or lower sample.songs_per_genre.",
            "genres",
            _FAINT * len(scarce),
        )


def _look_at_language(report: QualityReport) -> Iterator[Advice]:
    counts = report.counts
    unclear = counts.languages.counts.get("und", 0)
    if unclear:
        yield Advice(
            f"The language of {plural(unclear, 'song')} ({percent(unclear, counts.num_songs)}) cannot be told",
            "Too few words, several languages at once, or no words at all.",
            "Look at some of them; sample.languages leaves them out where it names the wanted languages.",
            "languages",
            _WEAK * _share(unclear, counts.num_songs),
        )
    if counts.num_explicit:
        yield Advice(
            _told(counts.num_explicit, counts.num_songs, "has|have explicit words"),
            "A model trained on them will use them.",
            "Decide whether that is wanted; the share by genre is below.",
            "explicit",
            _FAINT * _FAINT * _share(counts.num_explicit, counts.num_songs),
        )


_LOOKS: tuple[Callable[[QualityReport], Iterator[Advice]], ...] = (
    _look_at_rows,
    _look_at_copies,
    _look_at_artists,
    _look_at_missing,
    _look_at_texts,
    _look_at_labels,
    _look_at_language,
)
