"""Figures over the songs counted, as answers tell them, held against the data set's own.

A text's "the artist's songs" are those of the artist whom it names last, and likewise of the decade ("from then").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
from preprocess.knowledge import MIN_SONGS_WITH, normal_name
from preprocess.tasks.statistics import Group

SHARE = r"\d+(?:\.\d)?%|\d+"
_QUOTED = r'"[^"]*"'
_GROUP = (
    r"(?:the artist's|the)[^;\"\n]{0,80}? songs(?: counted)?(?: from then)?|all(?: \d+)?(?: English songs)?"
)
_GENRE_GROUP = re.compile(r"the (?:\d+ )?(?:English )?(.+?) songs counted")
_ROUNDING = {True: 0.05, False: 0.5}


@dataclass(frozen=True, slots=True)
class Compared:
    """A group of songs and the songs that it is compared with.

    Attributes:
        group: The songs.
        whole: The others.
        name: What the group is called, for reasons.
        key: The group's name in `CorpusFigures.songs_with`; None for an artist's songs, of which it keeps none.
        whole_key: The others' name there.
    """

    group: Group
    whole: Group
    name: str
    key: str | None
    whole_key: str


def find_group(subject: Subject, told: str, whole: str = "all") -> Compared | None:
    """The groups that a text compares; None where the data set has no figures of one of them."""
    corpus = subject.knowledge.corpus
    if told.startswith("the artist's"):
        own = find_artist(subject)
        if own is None or whole.startswith("all"):
            return own
        named = _GENRE_GROUP.match(whole)
        genre = corpus.genres.get(named[1]) if named else None
        return replace(own, whole=genre, whole_key=f"genre:{named[1]}") if genre and named else None
    if "from then" in told:
        decade, name = corpus.decades.get(subject.told_decade or ""), f"decade:{subject.told_decade}"
        return Compared(decade, corpus.everything, f"the {subject.told_decade}", name, "") if decade else None
    named = _GENRE_GROUP.match(told)
    genre = corpus.genres.get(named[1]) if named else None
    return Compared(genre, corpus.everything, named[1], f"genre:{named[1]}", "") if genre and named else None


def find_artist(subject: Subject) -> Compared | None:
    """The figures of the artist whom the text named last, in the genre that it named, else in any."""
    corpus = subject.knowledge.corpus
    keys = subject.knowledge.artist_groups.get(normal_name(subject.told_artist or ""), {})
    key = keys.get(subject.told_genre or "") or next(iter(keys.values()), None)
    whole = corpus.genres.get(key[1]) if key else None
    if key is None or whole is None:
        return None
    return Compared(corpus.artists[key], whole, key[0], None, f"genre:{key[1]}")


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
    group, whole = compared.group, compared.whole
    share = shares.get(name)
    counted = subject.knowledge.corpus.songs_with
    feature = name if kind == "words" else f":theme:{name}"
    least = MIN_SONGS_WITH if kind == "words" else 1
    what = f"{compared.name}, {name}"
    if share is not None:
        own = judge_share(inside, share.inside, group.num_english, what)
    elif compared.key is not None:
        own = _judge_counted(counted.get(compared.key), feature, least, inside, group.num_english, what)
    else:
        own = _judge_within(counted.get(compared.whole_key), feature, least, inside, group.num_english, what)
    others = f"those compared, {name}"
    known = counted.get(compared.whole_key)
    return join_judgements((own, _judge_counted(known, feature, least, outside, whole.num_english, others)))


def _judge_counted(
    counted: Mapping[str, int] | None, feature: str, least: int, told: str, total: int, what: str
) -> Judgement:
    """A share of songs that have a word or a theme; those that fewer than `least` have are not kept."""
    if counted is None:
        return untold(f"{what}: not counted")
    if feature in counted:
        return judge_share(told, counted[feature], total, what)
    could_be = any(judge_share(told, count, total, what)[0] == "supported" for count in range(least))
    why = f"{what}: fewer than {least} songs"
    return untold(why) if could_be else not_so(why)


def _judge_within(
    counted: Mapping[str, int] | None, feature: str, least: int, told: str, total: int, what: str
) -> Judgement:
    """A share of an artist's songs, of which no more can have a word than of all songs of the genre."""
    if counted is None:
        return untold(f"{what}: not counted")
    most = counted.get(feature, least - 1)
    count = float(told[:-1]) * total / 100 - 0.5 if told.endswith("%") else float(told)
    why = f"{what}: at most {most} songs"
    return not_so(why) if count > most else untold(f"{what}: not kept")


def _words(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'Of GROUP, 5 sing "a" and 3 "b"; of WHOLE, 9% and 4%.' claim by claim."""
    compared = find_group(subject, match["group"], match["whole"])
    pairs = list(re.finditer(rf"({SHARE}) (?:sing )?\"([^\"]*)\"", match["told"]))
    others = match["shares"].split(" and ")
    for pair, other in zip(pairs, others, strict=False):
        judgement = (
            untold("the data set has no figures of these songs")
            if compared is None
            else join_judgements(
                (
                    judge_pair(subject, compared, pair[1], other, pair[2], "words"),
                    judge_size(match["group"], compared.group),
                    judge_size(match["whole"], compared.whole),
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
    compared = find_group(subject, match["group"], match["whole"])
    if compared is None:
        yield found("figures", match, 0, untold("the data set has no figures of these songs"))
        return
    pair = judge_pair(subject, compared, match["share"], match["other"], match["theme"], "themes")
    sizes = judge_size(match["group"], compared.group), judge_size(match["whole"], compared.whole)
    yield found("figures", match, 0, join_judgements((pair, *sizes)))


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
)
