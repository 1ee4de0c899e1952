"""What the most common theme of some songs is, in free words, held against the data set's counts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, Rule, found
from harness.evaluation.truth.subject import Judgement, Subject, judge, untold
from preprocess.knowledge import normal_name

_SONGS = (
    r"(?:(?P<all>the (?:corpus|data set|dataset|songs counted)|all (?:of the )?songs)|"
    r"(?:the )?songs (?:of|from) the (?P<decade>\d{3}0s)|(?:the )?(?P<genre>[^\n.;\"]{1,60}?) songs)"
)
_MOST = r"most (?:common|frequent|popular) (?:main )?theme (?:of|in|among)"
_THEME = ":theme:"


def _common(subject: Subject, match: re.Match[str]) -> Iterator[Found]:
    told = match["theme"].strip(" \"\u201c\u201d'*").casefold()
    yield found("figures", match, 0, _judge(subject, _group(subject, match), told))


def _group(subject: Subject, match: re.Match[str]) -> str:
    """The key of the songs in `CorpusFigures.songs_with`."""
    if match["all"]:
        return ""
    if match["decade"]:
        return f"decade:{match['decade']}"
    names = {normal_name(name): name for name in subject.knowledge.corpus.genres}
    return f"genre:{names.get(normal_name(match['genre']), match['genre'])}"


def _judge(subject: Subject, group: str, theme: str) -> Judgement:
    counted = subject.knowledge.corpus.songs_with.get(group, {})
    themes = {
        name.removeprefix(_THEME).casefold(): n for name, n in counted.items() if name.startswith(_THEME)
    }
    if not themes:
        return untold("the data set has no figures of these songs")
    most = max(themes.values())
    leading = " or ".join(sorted(name for name, count in themes.items() if count == most))
    return judge(themes.get(theme) == most, f"the most common theme is {leading}, of {most} songs")


COMMON_THEME_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = (
    (re.compile(rf"The {_MOST} {_SONGS} is (?P<theme>[^\n.;]{{1,60}}?)\.(?=\s|$)"), _common),
    (re.compile(rf"(?P<theme>[A-Z\"][^\n.;]{{1,60}}?) is the {_MOST} {_SONGS}\.(?=\s|$)"), _common),
)
