"""Figures over the songs counted, as answers tell them, held against the data set's own.

A text's "the artist's songs" are those of the artist whom it names last, and likewise of the decade ("from then").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.evaluation.truth.found import Found, Rule, found
from harness.evaluation.truth.subject import (
    Judgement,
    Subject,
    join_judgements,
    judge,
    not_so,
    so,
    untold,
)
from preprocess.knowledge import normal_name
from preprocess.tasks.evidence import FEW_SONGS
from preprocess.tasks.statistics import Group

SHARE = r"\d+(?:\.\d)?%|\d+"
_QUOTED = r'"[^"]*"'
_GROUP = r"(?:the artist's|the)[^,;\"]*? songs(?: counted)?(?: from then)?|all(?: \d+)?(?: English songs)?"
_GENRE_GROUP = re.compile(r"the (?:\d+ )?(?:English )?(.+?) songs counted")
_ROUNDING = {True: 0.05, False: 0.5}


@dataclass(frozen=True, slots=True)
class Compared:
    """A group of songs and the songs that it is a part of."""

    group: Group
    whole: Group
    name: str


def find_group(subject: Subject, told: str) -> Compared | None:
    """The group that a text speaks of; None where the data set has no figures of it."""
    corpus = subject.knowledge.corpus
    if told.startswith("the artist's"):
        return _find_artist(subject)
    if "from then" in told:
        decade = corpus.decades.get(subject.told_decade or "")
        return None if decade is None else Compared(decade, corpus.everything, f"the {subject.told_decade}")
    named = _GENRE_GROUP.match(told)
    genre = corpus.genres.get(named[1]) if named else None
    return None if genre is None or named is None else Compared(genre, corpus.everything, named[1])


def _find_artist(subject: Subject) -> Compared | None:
    """The figures of the artist whom the text named last, in the genre that it named, else in any."""
    corpus = subject.knowledge.corpus
    own = normal_name(subject.told_artist or "")
    groups = {genre: key for key in corpus.artists for genre in [key[1]] if normal_name(key[0]) == own}
    key = groups.get(subject.told_genre or "") or next(iter(groups.values()), None)
    whole = corpus.genres.get(key[1]) if key else None
    return None if key is None or whole is None else Compared(corpus.artists[key], whole, key[0])


def judge_share(told: str, count: int, total: int, what: str) -> Judgement:
    """A share as it is told ("12%", "2.4%", or a number of songs) against a count."""
    why = f"{what}: {count} of {total} songs"
    if told.endswith("%"):
        return judge(
            total and abs(100 * count / total - float(told[:-1])) <= _ROUNDING["." in told] + 1e-9, why
        )
    return judge(float(told) == count, why)


def judge_size(told: str, group: Group) -> Judgement:
    """How many songs a group is said to have, where it says so."""
    number = re.search(r"(?<=the artist's )\d+|(?<=the )\d+|(?<=all )\d+", told)
    if number is None:
        return so("no number is told")
    return judge(int(number[0]) == group.num_english, f"{group.num_english} songs were counted")


def judge_pair(
    subject: Subject, compared: Compared, inside: str, outside: str, name: str, kind: str
) -> Judgement:
    """How many songs of a group, then of the whole, have a word or a theme ("words", "themes")."""
    shares = compared.group.words if kind == "words" else compared.group.themes
    share = shares.get(name)
    group, whole = compared.group, compared.whole
    if share is not None:
        return join_judgements(
            (
                judge_share(inside, share.inside, group.num_english, f"{compared.name}, {name}"),
                judge_share(outside, share.outside, whole.num_english, f"those compared, {name}"),
            )
        )
    return _judge_unlisted(subject, compared, inside, outside, name, kind)


def _judge_unlisted(
    subject: Subject, compared: Compared, inside: str, outside: str, name: str, kind: str
) -> Judgement:
    """A word or theme that does not set the group apart: its count in the group is not kept."""
    return untold(f"how many songs of {compared.name} have {name} is not kept")


def _words(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'Of GROUP, 5 sing "a" and 3 "b"; of WHOLE, 9% and 4%.' claim by claim."""
    compared = find_group(subject, match["group"])
    pairs = list(re.finditer(rf"({SHARE}) (?:sing )?\"([^\"]*)\"", match["told"]))
    others = match["shares"].split(" and ")
    for pair, other in zip(pairs, others, strict=False):
        judgement = (
            untold("the data set has no figures of these songs")
            if compared is None
            else join_judgements(
                (
                    judge_size(match["group"], compared.group),
                    judge_size(match["whole"], compared.whole),
                    judge_pair(subject, compared, pair[1], other, pair[2], "words"),
                )
            )
        )
        start = match.start("told")
        yield Found(
            "figures",
            start + pair.start(),
            start + pair.end(),
            judgement,
            f"{match['group']} {pair[0]} {other}",
        )


def _theme(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'Of GROUP, 12% have love as a main theme; of WHOLE, 9%.' claim by claim."""
    compared = find_group(subject, match["group"])
    if compared is None:
        yield found("figures", match, 0, untold("the data set has no figures of these songs"))
        return
    pair = judge_pair(subject, compared, match["share"], match["other"], match["theme"], "themes")
    sizes = judge_size(match["group"], compared.group), judge_size(match["whole"], compared.whole)
    yield found("figures", match, 0, join_judgements((*sizes, pair)))


def _lines(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'Its lines have 5.1 words on average, those of GROUP 5.4, those of all 6.2.' claim by claim."""
    own = subject.measures.structure.words_per_line
    yield found("form", match, "own", judge(f"{own:.1f}" == match["own"], f"its lines have {own:.1f} words"))
    compared = find_group(subject, match["group"])
    if compared is None:
        yield found("figures", match, "group", untold("the data set has no figures of these songs"))
        return
    means = compared.group.words_per_line, compared.whole.words_per_line
    why = f"{compared.name} {means[0]:.1f} words a line, all {means[1]:.1f}"
    told = match["mean"], match["others"]
    yield found(
        "figures", match, "group", judge(tuple(f"{mean:.1f}" for mean in means) == told, why), str(told)
    )


# The task "style": what sets the artist's songs apart from those of the genre.


def _style_share(subject: Subject, match: re.Match[str], counts: Mapping[str, tuple[int, int]]) -> Judgement:
    compared = _find_artist(subject)
    if compared is None:
        return untold("the data set has no figures of the artist")
    what = match["what"]
    if what not in counts:
        return _judge_unlisted(subject, compared, match["own"], match["genre"], what, "words")
    inside, outside = counts[what]
    group, whole = compared.group, compared.whole
    total, all_ = (group.num_songs, whole.num_songs)
    if match.re is not _CHORUS:
        total, all_ = group.num_english, whole.num_english
    return join_judgements(
        (
            _judge_part(match["own"], inside, total, compared.name),
            _judge_part(match["genre"], outside, all_, "the genre"),
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
    compared = _find_artist(subject)
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


FIGURE_RULES: Sequence[tuple[re.Pattern[str], Rule]] = (
    (
        re.compile(
            rf"Of (?P<group>{_GROUP}), (?P<told>(?:{SHARE}) sing {_QUOTED}(?: and (?:{SHARE}) {_QUOTED})?); "
            rf"of (?P<whole>{_GROUP}), (?P<shares>(?:{SHARE})(?: and (?:{SHARE}))?)\."
        ),
        _words,
    ),
    (
        re.compile(
            rf"Of (?P<group>{_GROUP}), (?P<share>{SHARE}) have (?P<theme>[^;\"]+?) as a main theme; "
            rf"of (?P<whole>{_GROUP}), (?P<other>{SHARE})\."
        ),
        _theme,
    ),
    (
        re.compile(
            rf"Its lines have (?P<own>[\d.]+) words on average, those of (?P<group>{_GROUP}) (?P<mean>[\d.]+), "
            r"those of all (?P<others>\d+(?:\.\d+)?)\."
        ),
        _lines,
    ),
    (
        re.compile(
            r"Among (?P<of_genre>[^,\n]+?) songs, those of (?P<artist>[^:\n]+?) stand out: "
            r"(?P<traits>[^\n]+?)\.(?=\s|$)"
        ),
        _style,
    ),
    (re.compile(r"The artist's songs: (?P<traits>[^\n]+?)\.(?=\s|$)"), _style),
)
