# ruff: noqa: RUF001 - words of many scripts
"""Why cleaned lyrics are dropped: they are empty, a stand-in, a translation, no song, too short, too long.

A song is told from prose by its form alone: words a line, sentences that end inside a line, speakers' names, numbers
and dates at the head of lines. The bar is set so that hymns with long lines and raps in one paragraph stay; it is
stricter for songs that their source files under "misc", where Genius keeps its books, speeches and track lists.
"""

from __future__ import annotations

import re
from typing import Literal

from preprocess.clean.prose import is_no_song
from preprocess.clean.sung import SungText
from preprocess.schema import Song

Reason = Literal[
    "empty",
    "placeholder",
    "translation",
    "romanization",
    "not text",
    "not a song",
    "too short",
    "too long",
    "artist named in lyrics",
]
"""Why a song is dropped."""

_PLACEHOLDER = re.compile(
    r"lyrics (?:for this song )?(?:have yet to be released|are (?:not|un)\s?available|will be (?:added|available|"
    r"updated|transcribed))|lyrics (?:not available|coming soon|to be (?:added|announced|transcribed))"
    r"|this (?:song|track) is (?:an )?instrumental|we do not have the lyrics|not licensed to display"
    r"|please check back (?:once|when|later)|lyrics from snippets?|(?:unfortunately|sorry), we (?:are not|aren't|don't)"
    r"|纯音乐[，,]?请欣赏|此歌曲为没有填词的纯音乐|暂无歌词",
    re.IGNORECASE,
)
_ONLY_INSTRUMENTAL = re.compile(
    r"\W*(?:(?:this is )?an? )?instrumental(?: track| song| break| only)?\W*", re.IGNORECASE
)
_MAX_PLACEHOLDER_CHARS = 400

_LANGUAGE = (
    r"(?:afrikaans|albanian|arabic|armenian|azerbaijani|bengali|brazilian|bulgarian|cantonese|catalan|chinese|croatian"
    r"|czech|danish|dutch|english|estonian|farsi|filipino|finnish|french|georgian|german|greek|hebrew|hindi|hungarian"
    r"|icelandic|indonesian|irish|italian|japanese|korean|latin|latvian|lithuanian|malay|mandarin|norwegian|persian"
    r"|polish|portuguese|punjabi|romanian|russian|serbian|slovak|slovenian|spanish|swahili|swedish|tagalog|tamil"
    r"|telugu|thai|turkish|ukrainian|urdu|vietnamese|welsh)"
)
_TRANSLATION_WORD = (
    r"(?:translations?|traducci[oó]n(?:es)?|traductions?|tradu[cç](?:ão|ões|ao|oes)|[uü]bersetzung(?:en)?"
    r"|traduzion[ei]|t[lł]umaczeni[ea]|перевод(?:ы)?|переклад(?:и)?|çeviri(?:si|leri|ler)?|vertaling(?:en)?"
    r"|[oö]vers[aä]ttning(?:ar)?|overs[aæ]ttelser?|oversettelser?|käännö(?:s|kset)|p[rř]eklad(?:y)?|fordítás(?:ok)?"
    r"|traducer[ei]|terjemahan|bản dịch|ترجم[ةه]|תרגום|अनुवाद|翻译|翻譯|翻訳|和訳|번역|해석)"
)
# The cheap question first: few titles have a bracket or one of the words without.
_MARKED_TITLE = re.compile(r"[(\[（【]|ranslat|omani[sz]|RANSLAT|OMANI[SZ]")
_TRANSLATED_TITLE = re.compile(
    rf"[(\[（【](?:{_LANGUAGE}(?:[ /]{_LANGUAGE})? )?(?:translation|translated(?: (?:in)?to {_LANGUAGE})?)[)\]）】]"
    rf"|(?:^|[\s-]){_LANGUAGE} translation\s*$"
    rf"|[(\[（【](?:[^\W\d_]+ |[\u3040-\u9fff\uac00-\ud7af]{{1,6}})?"
    rf"(?!translation){_TRANSLATION_WORD}(?: [^()\[\]]{{1,40}})?[)\]）】]",
    re.IGNORECASE,
)
_TRANSLATING_ARTIST = re.compile(
    rf"\bgenius\b.*{_TRANSLATION_WORD}|{_TRANSLATION_WORD}.*\bgenius\b", re.IGNORECASE
)
_ROMANIZED_TITLE = re.compile(
    r"[(\[（【](?:[^()\[\]]{0,30} )?(?:romani[sz](?:ed|ations?)|romaji|transliterat(?:ed|ions?)|pinyin|romanizad[oa]"
    r"|romanizaci[oó]n|romanização)(?: [^()\[\]]{0,30})?[)\]）】]|\bromani[sz](?:ed|ation)(?: lyrics)?\s*$",
    re.IGNORECASE,
)
_ROMANIZING_ARTIST = re.compile(r"\bgenius\b.*\bromani[sz]|\bromani[sz]\w* genius\b", re.IGNORECASE)

_MIN_LETTER_SHARE = 0.35
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_DENSE_EXTRA = 1.5


def judge_lyrics(song: Song, lyrics: str, sung: SungText, *, min_chars: int, max_chars: int) -> Reason | None:
    """Why a cleaned song is dropped, or None.

    Args:
        song: The song as read: its title, artist and tag count.
        lyrics: Its lyrics, cleaned.
        sung: What is sung in them.
        min_chars: Shorter lyrics (characters, headings included) are dropped. A character of Chinese, Japanese or
            Korean says as much as two and a half letters, and counts so here.
        max_chars: Longer ones too.
    """
    if len(lyrics) < _MAX_PLACEHOLDER_CHARS and is_placeholder(lyrics):
        return "placeholder"
    if not sung.lines:
        return "empty"
    rendered = find_rendering(song.title, song.artist)
    if rendered:
        return rendered
    if sung.letter_share < _MIN_LETTER_SHARE or not any(map(str.isalpha, sung.text)):
        return "not text"
    if is_no_song(song, sung):
        return "not a song"
    if len(lyrics) < min_chars and len(lyrics) + _DENSE_EXTRA * len(_DENSE.findall(lyrics)) < min_chars:
        return "too short"
    return "too long" if len(lyrics) > max_chars else None


def is_placeholder(text: str) -> bool:
    """Whether a short text stands where lyrics are missing, or says that there are none."""
    return bool(_ONLY_INSTRUMENTAL.fullmatch(text) or _PLACEHOLDER.search(text))


def find_rendering(title: str | None, artist: str | None) -> Literal["translation", "romanization"] | None:
    """Whether a song's title or artist says that its lyrics are another song's, translated or in Latin letters."""
    name = title if title and _MARKED_TITLE.search(title) else ""
    performer = artist or ""
    is_genius = "genius" in performer.lower()
    if _ROMANIZED_TITLE.search(name) or (is_genius and _ROMANIZING_ARTIST.search(performer)):
        return "romanization"
    if _TRANSLATED_TITLE.search(name) or (is_genius and _TRANSLATING_ARTIST.search(performer)):
        return "translation"
    return None
