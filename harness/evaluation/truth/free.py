"""What free text says of a song: its artist, genre, time, album, title, language, themes, and other songs.

Only what is said in so many words is read ("performed by X", "this rock song", "from the 1980s"). A name that is merely
there, a comparison ("sounds like X"), a denial, and a supposition are no statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from harness.evaluation.truth.found import Found, found
from harness.evaluation.truth.free_names import (
    NAME,
    QUOTE,
    SONG,
    artist_claims,
    read_name,
    unquote,
    work_claims,
)
from harness.evaluation.truth.free_sung import sung_claims
from harness.evaluation.truth.free_times import ADJECTIVE, DECADE, LIKELY, YEAR, time_claims
from harness.evaluation.truth.names import OTHER_GENRES, genre_of, genre_pattern
from harness.evaluation.truth.sentences import stated
from harness.evaluation.truth.subject import Judgement, Subject, judge, untold
from preprocess.knowledge import normal_name
from preprocess.measure.themes import load_lexicon
from preprocess.schema import GENRES

_ALBUM_RULES = (
    re.compile(
        rf"\balbum(?:,| is| was|:\**)?(?: called| titled| entitled| named)?,? (?P<name>{QUOTE}|{NAME})"
    ),
    re.compile(
        rf"\b(?:from|on|off)(?: the| his| her| their)? (?P<name>{QUOTE}|{NAME})(?:,)?(?: the)? album\b"
    ),
    re.compile(rf"^\W*Album\W{{1,4}}(?P<name>{QUOTE}|{NAME})"),
)
_NAMED_SONG = re.compile(
    rf"^\W*(?:the )?(?:lyrics (?:of|to|for) )?(?:the |this )?(?:song|track) (?P<name>{QUOTE})"
    r"(?= (?:is|are|was|were|has|have|tells?|explores?|by|describes?|speaks?|deals?)\b)",
    re.IGNORECASE,
)
_TITLE_RULES = (
    re.compile(
        rf"\b(?:song|track|lyrics|piece|ballad)(?:'s title)?(?:,)?(?: is| are| was)?"
        rf"(?: called| titled| entitled| named) (?P<name>{QUOTE})",
        re.IGNORECASE,
    ),
    _NAMED_SONG,
    re.compile(rf"\btitle(?: of (?:the|this) {SONG})?(?: is| was|:\**) (?P<name>{QUOTE})", re.IGNORECASE),
)

_GENRES = frozenset({*GENRES, *OTHER_GENRES})

_LANGUAGES = {
    "English": "en", "Spanish": "es", "French": "fr", "German": "de", "Italian": "it", "Portuguese": "pt",
    "Japanese": "ja", "Korean": "ko", "Chinese": "zh", "Russian": "ru", "Arabic": "ar", "Hindi": "hi", "Dutch": "nl",
    "Swedish": "sv", "Polish": "pl", "Turkish": "tr",
}  # fmt: skip
_LANGUAGE = re.compile(
    rf"\b(?:sung|written|performed|lyrics are|{SONG} is|language(?: of [^.,;]{{1,30}})? is|words are)"
    rf"(?: entirely| mostly| mainly)?"
    rf"(?: in)? (?P<language>{'|'.join(_LANGUAGES)})\b(?! [a-z]*(?:band|singer|artist|song|folk))",
)

_THEME_LISTS = (
    re.compile(
        r"\bthemes?(?: (?:of|in) (?:the|this|these) (?:song|lyrics|track|piece))?(?: here)?"
        r"(?: (?:is|are|includes?|such as|like|of|would be|around|revolves? around|centers? on)|:\**|,? including)"
        r"(?: (?:likely|primarily|mainly|mostly|the|that of|those of))* (?P<list>[^.;:\n]+)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:(?:{SONG}|it|they|artist|singer|lyrics) "
        rf"(?:is|are|sings?|talks?|speaks?|tells?|deals?|explores?|addresses|touches)|this is a {SONG})"
        r"(?: (?:mainly|mostly|primarily|all|largely|really))*(?: (?:about|of|with|on))?(?: the)?(?: themes? of)?"
        r" (?P<list>[^.;:\n]+)",
        re.IGNORECASE,
    ),
)
_MOOD_RULES = (
    re.compile(
        r"\bmood(?: (?:of|in) (?:the|this|these) \w+)? (?:is|of)(?: an?)?(?: one of)? (?P<mood>[a-z]+)",
        re.IGNORECASE,
    ),
    re.compile(rf"\b(?:is|are)(?: a| an)? (?P<mood>[a-z]+) (?:{SONG}|in mood)\b", re.IGNORECASE),
)


_OF_ANOTHER = frozenset({"genre", "decade", "year", "album", "language", "theme", "mood"})
"""What a sentence says behind the name of another song may be said of that one."""


class FreeText:
    """Reads free text about one song, sentence after sentence.

    Args:
        subject: The song.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def read(self, sentence: str) -> list[Found]:
        """The claims of a sentence, at their places in it."""
        if sentence.rstrip("\"')\u201d").endswith("?"):
            return []
        claims = [
            *work_claims(self.subject, sentence),
            *self._names(sentence),
            *artist_claims(self.subject, sentence),
            *self._genres(sentence),
            *time_claims(self.subject, sentence),
            *self._languages(sentence),
            *self._themes(sentence),
            *self._moods(sentence),
            *sung_claims(self.subject, sentence),
        ]
        others = [one.end for one in claims if one.kind == "similar"]
        if others:
            claims = [one for one in claims if one.kind not in _OF_ANOTHER or one.start < min(others)]
        return claims

    def _names(self, sentence: str) -> Iterator[Found]:
        song = self.subject.song
        for kind, rules, true in (("title", _TITLE_RULES, song.title), ("album", _ALBUM_RULES, song.album)):
            for match in stated(rules, "name", sentence):
                told = unquote(read_name(match["name"]))
                is_own = true is not None and normal_name(told) == normal_name(true)
                if kind == "album" and not is_own and (told.isdigit() or genre_of(told) in _GENRES):
                    continue
                judgement = self.subject.name(told, true, kind)
                if match.re is _NAMED_SONG and judgement[0] == "contradicted":
                    judgement = self._judge_naming(told, judgement)
                yield found(kind, match, "name", judgement, told)

    def _judge_naming(self, told: str, judgement: Judgement) -> Judgement:
        """A song may be named by words that it sings: 'the song "carry me home" is' tells no title."""
        is_sung = self.subject.sings(told)[0] == "supported"
        return untold("the song is named by its words") if is_sung else judgement

    def _genres(self, sentence: str) -> Iterator[Found]:
        known = self.subject.song.genre, *self.subject.knowledge.corpus.genres
        own = frozenset(genre for genre in known if genre)
        for match in stated(_genre_rules(own), "genre", sentence):
            told = match["genre"]
            yield found("genre", match, "genre", self.subject.genre(told), genre_of(told) or told)

    def _languages(self, sentence: str) -> Iterator[Found]:
        for match in stated((_LANGUAGE,), "language", sentence):
            yield found("language", match, "language", self._judge_language(_LANGUAGES[match["language"]]))

    def _judge_language(self, code: str) -> Judgement:
        known = self.subject.song.language
        if known in (None, "und"):
            known = "en" if self.subject.measures.is_english else None
        if known is None:
            return untold("the language is not known")
        return judge(code == known, f"the language is {known}")

    def _themes(self, sentence: str) -> Iterator[Found]:
        names = {*load_lexicon("themes").about, *(theme.casefold() for theme in self.subject.themes)}
        for match in stated(_THEME_LISTS, "list", sentence):
            for part in _ITEM.finditer(match["list"]):
                bare = _BEFORE_ITEM.sub("", part[0])
                name = bare.strip(' "\u201d\u201c*,').casefold()
                begin = match.start("list") + part.end() - len(bare)
                if name in names:
                    judgement = self.subject.theme(name, is_main=False)
                    yield Found("theme", begin, begin + len(bare.rstrip()), judgement, name)

    def _moods(self, sentence: str) -> Iterator[Found]:
        moods = load_lexicon("moods").about
        for match in stated(_MOOD_RULES, "mood", sentence):
            if match["mood"].casefold() in moods:
                yield found("mood", match, "mood", self.subject.mood(match["mood"], is_main=False))


_ITEM = re.compile(r"(?:(?!, and |, | and | as well as |\(| - ).)+")
_BEFORE_ITEM = re.compile(r"^(?:[, ]+)?(?:and |as well as |the |both |\"|\u201c|\*)*")


@lru_cache(maxsize=64)
def _genre_names(own: frozenset[str]) -> str:
    names = "|".join(sorted(map(re.escape, own), key=len, reverse=True))
    one = f"(?:{genre_pattern()}{'|' if names else ''}{names})"
    return rf"{one}(?:(?:/|-| and | & ){one})?"


@lru_cache(maxsize=64)
def _genre_rules(own: frozenset[str]) -> tuple[re.Pattern[str], ...]:
    genre = rf"(?P<genre>{_genre_names(own)})"
    be = rf"(?:is|are|was|were|'s|would be|seems(?: to be)?|appears to be)(?: {LIKELY})*"
    apart = "".join(
        rf"(?<!\b{part} )" for part in ("instrumentation", "arrangement", "beat", "drums", "riff")
    )
    filed = (
        r"(?:classified|categori[sz]ed|described|filed|labell?ed|identified|considered|seen|regarded|known)"
    )
    patterns = (
        rf"\b(?:this|that|the|an?|his|her|their)(?: (?:{ADJECTIVE}|{DECADE}|{YEAR})){{0,3}}?[ ]{genre} {SONG}\b",
        rf"{apart}\b{be}(?: (?!and\b|or\b){ADJECTIVE}){{0,2}} {genre}(?: music| {SONG}| lyrics)?(?=[.,;!]|\s*$)",
        (
            rf"\b(?:genre|style of music|musical style|type of music)s?(?: of [^.,;:]{{1,40}})?(?: {be}|:\**)"
            rf"(?: an?| the)? \W{{0,3}}{genre}\b"
        ),
        (
            rf"\b(?:belongs?|falls?|fits?|{filed})(?: {LIKELY})?(?: best| squarely| neatly)? "
            rf"(?:in|to|into|under|within|as)"
            rf"(?: the| an?)?(?: (?:realm|category|genre|world|field) of)?(?: {ADJECTIVE})? {genre}\b"
        ),
        rf"\b(?:is|are|was|were|be|song|track|lyrics) (?:in|from|of) the {genre} (?:genre|category|tradition)\b",
        rf"\bgenre of {genre}\b",
        rf"^\W*(?:genre\W+)?{genre}(?: music| {SONG})?\W*$",
    )
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
