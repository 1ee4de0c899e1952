"""Artists and songs that free text names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, found
from harness.evaluation.truth.names import artist_forms
from harness.evaluation.truth.sentences import is_likened, is_stated, scope_before
from harness.evaluation.truth.subject import Subject, untold
from preprocess.knowledge import normal_name

SONG = (
    r"(?:song|track|hit|single|ballad|tune|anthem|number|piece|lyrics|record|recording|classic|lullaby|hymn|lament|"
    r"jam|banger)"
)

_CAPITAL = r"(?:[^\W\d_a-z\u00df-\u00f6\u00f8-\u00ff][\w'\u2019.&!$-]*|\d[\w'\u2019-]*)"
NAME = rf"(?:{_CAPITAL}(?: (?:(?:and|of|the|&|de|von|van|la|du|feat\.?|ft\.?|with) )?{_CAPITAL}){{0,6}})"
"""A name as running text has it: words with capitals, and little words between them."""

QUOTE = r"(?:\"[^\"\n]{1,120}\"|\u201c[^\u201d\n]{1,120}\u201d|\*{1,2}[^*\n]{1,120}\*{1,2}|(?<!\w)'[^'\n]{1,80}'(?!\w))"

_ROLE = r"(?:artist|singer|band|performer|rapper|musician|vocalist|group|duo|singer-songwriter|act|star)"
_LIKELY = r"(?:(?:most |very |quite )?(?:likely|probably|clearly|definitely|certainly|obviously|undoubtedly|indeed) )?"
_PEOPLE = "American|British|English|Canadian|Australian|Irish|Scottish|Welsh|Swedish|German|French"
_LITTLE = "from|of|in|at|with|for|to|on|about|who|whose|that|and"
_TITLES = (
    rf"(?:the |an? )?(?:(?!(?:{_LITTLE})\b)(?:[a-z-]+|{_PEOPLE}) ){{0,3}}?(?:{_ROLE},? )?"
    r"(?:(?:formerly )?known as |named |called )?"
)

_WHO = rf"(?!(?:{_PEOPLE}) [a-z])(?P<name>{NAME})"

_ARTIST_RULES = tuple(
    re.compile(pattern)
    for pattern in (
        (
            rf"\b(?i:performed|sung|recorded|released|rapped|delivered|made famous|done) by:?\** {_LIKELY}{_TITLES}"
            rf"{_WHO}"
        ),
        (
            rf"\b(?i:{SONG}|these|this|it)(?: "
            rf"(?:is|are|was|were|comes|come))?,? {_LIKELY}by {_LIKELY}{_TITLES}{_WHO}"
        ),
        (
            rf"\b(?:is|are|was|were) {_LIKELY}(?:an? |the )?(?:[a-zA-Z&-]+ ){{0,3}}(?i:{SONG}) "
            rf"(?:from|by) {_LIKELY}{_TITLES}{_WHO}"
        ),
        (
            rf"\b(?i:{_ROLE})(?: (?:behind|of|for|performing|singing|on) (?i:this|these|the)(?: (?i:{SONG}))?)?"
            rf"(?: here| most likely to (?:perform|sing|have (?:sung|performed)) (?:this|the) (?i:{SONG}))?"
            rf"(?: (?:is|was|would be)|:\**) {_LIKELY}{_TITLES}{_WHO}"
        ),
        rf"\b(?:attributed|credited|belongs?|belong) to {_LIKELY}{_TITLES}{_WHO}",
        rf"\b(?:identif(?:y|ied)|recogni[sz]ed?) (?:the {_ROLE} |it |this )?as {_LIKELY}{_TITLES}{_WHO}",
        rf"(?P<name>{NAME})(?:'s|\u2019s|'|\u2019) (?i:(?:[a-z-]+ ){{0,2}}(?:{SONG}|voice|vocals))\b",
        (
            rf"^\W*(?:(?:[Ii]n|[Oo]n|[Tt]hroughout) (?:this|the) (?i:{SONG}), )?(?P<name>{NAME}),? "
            rf"{_LIKELY}(?:sings?|sang|raps?|rapped|performs?|performed|is the "
            r"(?:artist|singer|performer)|recorded|released|delivers)\b"
        ),
        rf"^\W*(?i:artist|singer|performer|band)\W+(?P<name>{NAME})",
        rf"\b[Tt]his is (?!the|a|an)(?P<name>{NAME})[.,!]",
        rf"\b(?:hit|success|single) (?:for|of) {_TITLES}{_WHO}",
        rf"\b(?:is|was|are) {_LIKELY}an? (?P<name>{_CAPITAL}(?: {_CAPITAL})+) (?i:{SONG})\b",
    )
)
_WRITER = re.compile(
    rf"\b(?i:written|composed|penned|produced|co-written)(?: and [a-z]+)? by {_LIKELY}{_TITLES}{_WHO}"
)
_NO_NAMES = frozenset(
    word
    for words in (
        "singer narrator speaker artist band rapper song songs lyrics this it i we you he she they these verse chorus",
        "bridge english unknown anonymous various god jesus lord love here there in on based overall however also a an",
        "mama mamma momma mom mother daddy dad papa father grandma grandpa baby everybody everyone somebody nobody",
        "hip hop rock pop country folk electronic r b american british",
    )
    for word in words.split()
)


def unquote(text: str) -> str:
    """A quotation without its marks."""
    return text.strip("\"\u201c\u201d*'").rstrip(".,;:!?") if re.fullmatch(QUOTE, text) else text


def read_name(name: str) -> str:
    """A name without the punctuation and the possessive at its end."""
    return re.sub(r"(?:['\u2019]s|[.,;:!?'\u2019])+$", "", name)


def artist_claims(subject: Subject, sentence: str) -> Iterator[Found]:
    """Who a sentence says the song's artist is."""
    seen: set[int] = set()
    for rule in (*_ARTIST_RULES, _WRITER):
        for match in rule.finditer(sentence):
            place = match.start("name")
            if place in seen or not is_stated(sentence, place):
                continue
            name = _known_name(subject, sentence, place) or read_name(match["name"])
            own = subject.song.artist
            if own and sentence[: place + len(name)].endswith(own):
                name, place = own, place + len(name) - len(own)
            if is_no_name(name) and subject.artist(name)[0] != "supported":
                continue
            if is_likened(sentence, match.start()) or _is_of_work(sentence, match.start(), place, len(name)):
                continue
            seen |= {place, match.start("name")}
            yield _artist_claim(subject, name, place, is_writer=rule is _WRITER)
    bare = _bare_artist(subject, sentence)
    if bare is not None and not seen:
        yield Found("artist", 0, len(sentence), subject.artist(bare), normal_name(bare))


_IS_NO_NAME = re.compile(rf"\d+'?s?|{_PEOPLE}")


def is_no_name(name: str) -> bool:
    """Whether words with capitals name nobody: "Unknown", "American", "1987"."""
    return normal_name(name) in _NO_NAMES or _IS_NO_NAME.fullmatch(name) is not None


def _artist_claim(subject: Subject, name: str, place: int, *, is_writer: bool) -> Found:
    judgement = subject.artist(name)
    if is_writer and judgement[0] == "contradicted":
        judgement = untold("who writes a song need not sing it")
    elif not is_writer:
        subject.told_artist = name
    return Found("artist", place, place + len(name), judgement, normal_name(name))


def _known_name(subject: Subject, sentence: str, place: int) -> str | None:
    """The known artist's name at a place, which capitals do not bound ("Tyler, The Creator", "Men at Work")."""
    own = artist_forms(subject.song.artist) if subject.song.artist else frozenset()
    return subject.knowledge.find_artist_at_start(sentence[place:], own)


_OF_WORK = re.compile(rf"{QUOTE},? (?:by|from|performed by|sung by)\W*(?:(?:[a-z]+|{_PEOPLE}) ){{0,4}}$")
_WORK_OF = re.compile(rf"(?:'s|\u2019s|'|\u2019) (?:[a-z-]+ ){{0,3}}{QUOTE}")


def _is_of_work(sentence: str, begin: int, place: int, length: int) -> bool:
    """Whether a name is that of another song's artist, as in '"T" by X' and "X's 'T'"."""
    before = _OF_WORK.search(sentence[max(0, begin - 130) : place])
    return before is not None or _WORK_OF.match(sentence[place + length :]) is not None


def _bare_artist(subject: Subject, sentence: str) -> str | None:
    """A known artist whose name is all that a sentence says."""
    told = sentence.strip(" .!*\"'")
    if not told or len(told) > 80 or normal_name(told) in _NO_NAMES:
        return None
    is_own = subject.song.artist is not None and normal_name(told) in artist_forms(subject.song.artist)
    return told if is_own or subject.knowledge.by_artist(told) else None


_WORK_RULES = (
    re.compile(
        rf"(?P<title>{QUOTE})(?:,)?(?: \([^()\n]{{1,30}}\))?,? (?:(?:performed|sung|recorded) )?(?:by|from) "
        rf"(?:the )?(?:(?:(?:{_PEOPLE}) )?(?:[a-z-]+ )?{_ROLE} )?{_WHO}"
    ),
    re.compile(rf"(?P<name>{NAME})(?:'s|\u2019s|'|\u2019) (?:[a-z-]+ ){{0,3}}(?P<title>{QUOTE})"),
    re.compile(rf"(?P<title>{QUOTE}) (?:[-\u2013\u2014]|\() ?(?P<name>{NAME})"),
    re.compile(rf"^(?P<title>{NAME}) (?:by|[-\u2013\u2014]) (?P<name>{NAME})\W*$"),
)


def work_claims(subject: Subject, sentence: str) -> Iterator[Found]:
    """The songs that a sentence names with their artists: this one, or others."""
    seen: set[int] = set()
    for rule in _WORK_RULES:
        for match in rule.finditer(sentence):
            place = match.start("title")
            first = min(place, match.start("name"))
            if place in seen or not is_stated(sentence, first):
                continue
            seen.add(place)
            name = _known_name(subject, sentence, match.start("name")) or read_name(match["name"])
            is_other = _OTHERS.search(scope_before(sentence, first)) is not None
            yield from _work(subject, match, name, is_other=is_other)


_OTHERS = re.compile(
    r"\b(?:similar|like|other|another|also|such as|remind\w*|recommend\w*|compar\w+|reminiscent|akin|close|near\w*|"
    r"along with|inspired|check out|listen|try|relat\w+|include|works?|songs|suggest\w*|"
    r"nods?|tribute|references?|variations?|associated)\b|^\W*\d*\W*$",
    re.IGNORECASE,
)


_THIS = re.compile(
    rf"\b(?i:{SONG})(?: (?:that )?you [a-z ]{{1,30}})?(?: is| are| was)?(?: called| titled| named)?,? $"
)


_OPENING = re.compile(
    r"[^.;:\n]{0,60}?\b(?:is|was|has|tells?|explores?|describes?|speaks?|deals?|captures?)\b"
)
"""What follows a title that a sentence opens with, unlike one in a list."""


def _work(subject: Subject, match: re.Match[str], name: str, *, is_other: bool) -> Iterator[Found]:
    song, title = subject.song, unquote(match["title"])
    is_own_title = song.title is not None and normal_name(title) == normal_name(song.title)
    if is_own_title and _OPENING.match(match.string, match.end()):
        is_other = is_other and match.string[: match.start("title")].strip(" *") != ""
    if not is_other:
        is_this = _THIS.search(match.string[: match.start()])
        if is_own_title or is_this:
            yield found("title", match, "title", subject.name(title, song.title, "title"), title)
            place = match.start("name")
            subject.told_artist = name
            yield Found("artist", place, place + len(name), subject.artist(name), normal_name(name))
            return
    judgement, _ = subject.find_work(title, name)
    begin = min(match.start("title"), match.start("name"))
    last = max(match.end("title"), match.start("name") + len(name))
    yield Found("similar", begin, last, judgement, f"{normal_name(title)} by {normal_name(name)}")
