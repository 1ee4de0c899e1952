"""What sets an artist's songs apart from those of the genre, as answers to the task "style" tell it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from harness.evaluation.truth.figures import Compared, find_artist, judge_pair, judge_share
from harness.evaluation.truth.found import Found, Rule, found
from harness.evaluation.truth.subject import Judgement, Subject, join_judgements, judge, not_so, untold
from preprocess.tasks.evidence import FEW_SONGS


def _style_share(subject: Subject, match: re.Match[str], counts: Mapping[str, tuple[int, int]]) -> Judgement:
    compared = find_artist(subject)
    if compared is None:
        return untold("the data set has no figures of the artist")
    what, group, whole = match["what"], compared.group, compared.whole
    if what not in counts and match.re in (_STYLE_WORD, _STYLE_THEME):
        kind = "words" if match.re is _STYLE_WORD else "themes"
        inside, outside = (match[part].partition(" of ")[0] for part in ("own", "genre"))
        return judge_pair(subject, compared, inside, outside, what, kind)
    total, all_ = group.num_english, whole.num_english
    if match.re is _CHORUS:
        total, all_ = group.num_songs, whole.num_songs
    own, others = counts.get(what, (0, 0))
    return join_judgements(
        (
            _judge_part(match["own"], own, total, compared.name),
            _judge_part(match["genre"], others, all_, "the genre"),
        )
    )


def _judge_part(told: str, count: int, total: int, what: str) -> Judgement:
    """A share that stands alone: "9%" or "5 of 12"."""
    part, _, of = told.partition(" of ")
    if (of and int(of) != total) or bool(of) != (total < FEW_SONGS):
        return not_so(f"{what}: {count} of {total} songs")
    return judge_share(part, count, total, what)


_PART = r"\d+(?:\.\d)?%|\d+ of \d+"
_STYLE = rf"(?P<own>{_PART})(?: of the English ones)? \(genre: (?P<genre>{_PART})\)"
_STYLE_WORD = re.compile(rf'{_STYLE} sing "(?P<what>[^"]*)"')
_STYLE_PERSON = re.compile(rf'{_STYLE} have "(?P<what>[^"]*)" as the leading pronoun')
_STYLE_SCHEME = re.compile(rf"{_STYLE} have (?P<what>[A-C]{{4,6}}) as the leading rhyme scheme")
_STYLE_THEME = re.compile(rf"{_STYLE} have (?P<what>[^;\"]+?) as a main theme")
_CHORUS = re.compile(rf"(?P<own>{_PART}) \(genre: (?P<genre>{_PART})\) have (?P<what>a chorus)")
_STYLE_LINES = re.compile(
    r"their lines are (?P<what>longer|shorter), (?P<own>[\d.]+) words \(genre: (?P<genre>[\d.]+)\)"
)
_STYLE_VARIETY = re.compile(
    r"their words are (?P<what>more|less) varied, (?P<own>\d+)% different \(genre: (?P<genre>\d+)%\)"
)


def _trait_counts(compared: Compared, pattern: re.Pattern[str]) -> dict[str, tuple[int, int]]:
    group, whole = compared.group, compared.whole
    if pattern is _STYLE_WORD:
        return {word: (share.inside, share.outside) for word, share in group.words.items()}
    if pattern is _STYLE_THEME:
        return {theme: (share.inside, share.outside) for theme, share in group.themes.items()}
    if pattern is _STYLE_PERSON:
        return {person: (count, whole.persons.get(person, 0)) for person, count in group.persons.items()}
    if pattern is _STYLE_SCHEME:
        return {scheme: (count, whole.schemes.get(scheme, 0)) for scheme, count in group.schemes.items()}
    return {"a chorus": (group.num_with_chorus, whole.num_with_chorus)}


def style_claims(subject: Subject, text: str, start: int, end: int) -> Iterator[Found]:
    """The traits that a part of a text tells of the artist's songs."""
    compared = find_artist(subject)
    for pattern in (_STYLE_WORD, _STYLE_PERSON, _STYLE_SCHEME, _STYLE_THEME, _CHORUS):
        counts = {} if compared is None else _trait_counts(compared, pattern)
        for match in pattern.finditer(text, start, end):
            yield found("figures", match, 0, _style_share(subject, match, counts))
    for pattern in (_STYLE_LINES, _STYLE_VARIETY):
        for match in pattern.finditer(text, start, end):
            yield found("figures", match, 0, _style_mean(match, compared))


def _style_mean(match: re.Match[str], compared: Compared | None) -> Judgement:
    if compared is None:
        return untold("the data set has no figures of the artist")
    group, whole = compared.group, compared.whole
    if match.re is _STYLE_LINES:
        true = f"{group.words_per_line:.1f}", f"{whole.words_per_line:.1f}"
        is_more = group.words_per_line > whole.words_per_line
    else:
        true = f"{100 * group.distinct_share:.0f}", f"{100 * whole.distinct_share:.0f}"
        is_more = group.distinct_share > whole.distinct_share
    holds = (match["own"], match["genre"]) == true and is_more == (match["what"] in ("longer", "more"))
    return judge(holds, f"{compared.name} {true[0]}, the genre {true[1]}")


def _style(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """'Among G songs, those of A stand out: …' and "The artist's songs: …"."""
    if match.re.groupindex.get("artist"):
        artist, genre = match["artist"], match["of_genre"]
        subject.told_artist, subject.told_genre = artist, genre
        yield found("genre", match, "of_genre", subject.genre(genre))
        yield found("artist", match, "artist", subject.artist(artist))
    yield from style_claims(subject, match.string, match.start("traits"), match.end("traits"))


STYLE_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = (
    (
        re.compile(
            r"Among (?P<of_genre>[^\n]{1,80}?) songs, those of (?P<artist>[^\n]{1,120}?) stand out: "
            r"(?P<traits>[^\n]+?)\.(?=\s|$)"
        ),
        _style,
    ),
    (re.compile(r"The artist's songs: (?P<traits>[^\n]+?)\.(?=\s|$)"), _style),
)
