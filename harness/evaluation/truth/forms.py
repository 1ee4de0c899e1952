"""Sentences in the forms of the data set's own answers (`preprocess.tasks`), read claim by claim."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.common_themes import COMMON_THEME_RULES
from harness.evaluation.truth.figures import FIGURE_RULES
from harness.evaluation.truth.found import Found, Rule, found
from harness.evaluation.truth.free_names import NAME, is_no_name
from harness.evaluation.truth.names import genre_of
from harness.evaluation.truth.style_forms import STYLE_RULES
from harness.evaluation.truth.subject import Judgement, Subject, join_judgements, judge, not_so, untold
from harness.evaluation.truth.sung_forms import SUNG_RULES, quoted_words
from preprocess.knowledge import KnownSong, normal_name
from preprocess.measure.themes import load_lexicon
from preprocess.schema import GENRES

_QUOTED = r'"[^"\n]*"'
_NAMED = rf"(?:(?P<title>{_QUOTED})(?: by (?P<artist>[^\n]+?))?|[Aa] song by (?P<alone>[^\n]+?))"


def _artist(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    subject.told_artist = match["artist"]
    yield found("artist", match, "artist", subject.artist(match["artist"]), normal_name(match["artist"]))


def _genre(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    told = match["genre"]
    subject.told_genre = told
    yield found("genre", match, "genre", subject.genre(told), genre_of(told) or told)


def _decade(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    subject.told_decade = match["decade"]
    yield found("decade", match, "decade", subject.decade(match["decade"]))
    if match.re.groupindex.get("year"):
        yield found("year", match, "year", subject.year(int(match["year"])))


def _year(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    yield found("year", match, "year", subject.year(int(match["year"])))


def _themes(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    start = match.start("themes")
    for part in re.finditer(r"(?:^|, and |, | and )(?P<name>(?:(?!, | and ).)+)", match["themes"]):
        begin, end = part.span("name")
        yield _main_theme(subject, part["name"], start + begin, start + end)


def _main_theme(subject: Subject, told: str, start: int, end: int) -> Found:
    """A theme in the place of a main one; of running text, which names no known theme, nothing tells."""
    name = re.sub(r"^(?:the|and) ", "", told.strip(" \"\u201c\u201d'*").casefold())
    known = {*load_lexicon("themes").about, *subject.knowledge.themes, *map(str.casefold, subject.themes)}
    judgement = subject.theme(name, is_main=True) if name in known else untold(f"{name} is no known theme")
    return Found("theme", start, end, judgement, name)


def _themes_shown(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """'love ("kiss", "heart") and home ("house"); the mood is sad ("tears").' under the heading of an analysis."""
    start = match.start("themes")
    for part in re.finditer(
        r"(?:^|, and |, |(?<=\)) and | and )(?P<name>[^,(\"]+?)"
        rf"(?: \((?P<words>{_QUOTED}(?:, {_QUOTED})*)\)|(?=,| and |$))",
        match["themes"],
    ):
        begin = start + part.start("name")
        yield _main_theme(subject, part["name"], begin, start + part.end("name"))
        if part["words"]:
            yield from quoted_words(
                subject, match.string, start + part.start("words"), start + part.end("words")
            )
    if match["mood"]:
        yield from _mood(subject, match)


def _mood(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    yield found("mood", match, "mood", subject.mood(match["mood"], is_main=True))
    yield from quoted_words(subject, match.string, *match.span("shown"), "mood")


def _similar(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    """Read 'It is nearest to "T" by A: both sing "x" and "y"; love is a theme of both.' claim by claim."""
    title, artist = _title(match), match["artist"] or match["alone"]
    judgement, works = subject.find_work(title, artist)
    named = f"{normal_name(title or '')} by {normal_name(artist or '')}"
    yield found("similar", match, "named", judgement, named)
    span = match.span("words")
    for quoted in re.finditer(r'"([^"]*)"', match.string[slice(*span)]):
        word, begin = quoted[1], span[0] + quoted.start()
        yield Found(
            "words", begin, span[0] + quoted.end(), _both_sing(subject, works, word), f"{named}: {word}"
        )
    groups = match.groupdict()
    if groups.get("theme"):
        yield found(
            "theme", match, "theme", _both_about(subject, works, match["theme"]), f"{named}: {match['theme']}"
        )
    if groups.get("decade"):
        own = subject.decade(match["decade"])
        other = judge(
            any(work.decade == match["decade"] for work in works), f"the other is of {_decades(works)}"
        )
        yield found(
            "decade",
            match,
            "decade",
            join_judgements((own, other)) if works else own,
            f"{named}: {match['decade']}",
        )


def _decades(works: tuple[KnownSong, ...]) -> str:
    return " or ".join(sorted({work.decade or "no known decade" for work in works}))


def _title(match: re.Match[str]) -> str | None:
    return match["title"][1:-1] if match["title"] else None


def _both_sing(subject: Subject, works: tuple[KnownSong, ...], word: str) -> Judgement:
    own = subject.sings(word)
    if own[0] != "supported" or not works:
        return own if own[0] == "contradicted" else untold("the other song is not known")
    heard = [work.sings(word) for work in works]
    if True in heard:
        return own
    return (
        untold("the other song's words are not kept")
        if None in heard
        else not_so(f'the other does not sing "{word}"')
    )


def _both_about(subject: Subject, works: tuple[KnownSong, ...], theme: str) -> Judgement:
    own = subject.theme(theme, is_main=True)
    if not works:
        return own if own[0] == "contradicted" else untold("the other song is not known")
    told = theme.casefold()
    other = judge(
        any(told in map(str.casefold, work.themes) for work in works), f"{theme} among the other's themes"
    )
    return join_judgements((own, other))


_SHARED = (
    rf"both sing (?P<words>{_QUOTED}(?:(?:, | and ){_QUOTED})*)"
    r"(?:; (?P<theme>[^;.\"\n]+?) is a theme of both)?(?:; both are from the (?P<decade>\w+))?\."
)

FACT_RULES: list[tuple[re.Pattern[str], Rule]] = [
    (re.compile(r"The genre is (?P<genre>[^\n]+?)\.(?=\s|$)"), _genre),
    (re.compile(r"The song is from the (?P<decade>\d{3,4}0s)\."), _decade),
    (re.compile(r"\*\*Cultural Context\*\*: The (?P<decade>\d{3,4}0s) \((?P<year>\d{1,4})\)\."), _decade),
    (re.compile(r"\*\*Genre Elements\*\*: (?P<genre>[^\n]+?)\.(?=\s|$)"), _genre),
    (
        re.compile(
            r"\*\*Lyrical Themes\*\*: (?P<themes>[^\n;]+?)"
            rf"(?:; the mood is (?P<mood>[\w &-]+) \((?P<shown>{_QUOTED}(?:, {_QUOTED})*)\))?\.(?=\s|$)"
        ),
        _themes_shown,
    ),
    (
        re.compile(rf"\*\*Similar Works\*\*: (?P<named>{_NAMED}) \((?P<words>{_QUOTED}(?:, {_QUOTED})*)\)\."),
        _similar,
    ),
    (re.compile(r"Its year is (?P<year>\d{1,4})\."), _year),
    (re.compile(r"The main (?:themes are|theme is) (?P<themes>[^.\n]+)\."), _themes),
    (re.compile(rf"The mood is (?P<mood>[\w &-]+) \((?P<shown>{_QUOTED}(?:, {_QUOTED})*)\)\."), _mood),
    (re.compile(rf"It is nearest to (?P<named>{_NAMED}): {_SHARED}"), _similar),
    (re.compile(rf"(?P<named>{_NAMED}) sings (?P<words>{_QUOTED} and {_QUOTED}) too\."), _similar),
]

_ARTIST = re.compile(r"The artist is (?P<artist>[^\n]+?)\.(?=\s|$)")
_HEADING = re.compile(r"\*\*(?!Year|Release|Album)[A-Z][A-Za-z ]+\*\*: ?")


def _is_genre(subject: Subject, told: str) -> bool:
    """Whether what stands in a genre's place is the name of one, and not running text."""
    known = {*GENRES, *subject.knowledge.corpus.genres, subject.song.genre or ""}
    return told in known or genre_of(told) in GENRES


def read_form(subject: Subject, text: str, start: int) -> tuple[list[Found], int] | None:
    """The claims of a sentence of our own answers that begins at a place, and where it ends; None for any other."""
    match = _match_artist(subject, text, start)
    if match is not None:
        return list(_artist(subject, match)), match.end()
    for pattern, rule in (*FACT_RULES, *FIGURE_RULES, *COMMON_THEME_RULES, *STYLE_RULES, *SUNG_RULES):
        match = pattern.match(text, start)
        if match is not None and (
            "genre" not in match.groupdict() or rule is not _genre or _is_genre(subject, match["genre"])
        ):
            return list(rule(subject, match)), match.end()
    heading = _HEADING.match(text, start)
    return None if heading is None else ([], heading.end())


def _match_artist(subject: Subject, text: str, start: int) -> re.Match[str] | None:
    """'The artist is X.', whose name may hold full stops: the longest that is known, else up to the first stop."""
    match = _ARTIST.match(text, start)
    if match is None:
        return None
    first = match
    best = match if _is_artist(subject, match["artist"]) else None
    for _ in range(3):
        end = text.find(".", match.end())
        if end < 0 or "\n" in text[start:end]:
            break
        length = end - start - len("The artist is ")
        longer = re.compile(rf"The artist is (?P<artist>.{{{length}}})\.(?=\s|$)").match(text, start)
        if longer is None:
            break
        match = longer
        best = match if _is_artist(subject, match["artist"]) else best
    if best is None and (re.fullmatch(NAME, first["artist"]) is None or is_no_name(first["artist"])):
        return None
    return best or first


def _is_artist(subject: Subject, name: str) -> bool:
    """Whether this is the whole name of the song's artist or of a known one."""
    own = normal_name(subject.song.artist or "")
    return normal_name(name) == own or bool(subject.knowledge.by_artist(name))
