# ruff: noqa: RUF001 - lyrics in many languages
from __future__ import annotations

import pytest

from preprocess.clean.language import MIN_SCORE, detect_language, settle_language

LYRICS = {
    "en": "I walk along the river and I think about you\nevery day the water takes my sorrow to the sea",
    "es": "te quiero, mi amor, y no puedo vivir sin ti\nesta noche la luna nos mira desde el cielo",
    "fr": "je t'aime et je ne peux pas vivre sans toi\ntoute la nuit je pense à tes yeux",
    "de": "ich liebe dich und kann nicht ohne dich leben\ndie ganze Nacht denke ich an deine Augen",
    "pt": "eu te amo e não posso viver sem você\na noite inteira penso nos teus olhos",
    "it": "ti amo e non posso vivere senza di te\ntutta la notte penso ai tuoi occhi",
    "pl": "kocham cię i nie mogę bez ciebie żyć\ncałą noc myślę o twoich oczach",
    "tr": "seni seviyorum ve sensiz yaşayamam\nbütün gece gözlerini düşünüyorum",
    "ru": "я люблю тебя и не могу жить без тебя\nвсю ночь я думаю о твоих глазах",
    "uk": "я люблю тебе і не можу жити без тебе\nвсю ніч я думаю про твої очі, моя кохана",
    "ar": "أحبك يا حبيبي ولا أستطيع أن أعيش بدونك\nطوال الليل أفكر في عينيك",
    "fa": "دوستت دارم و بدون تو نمی‌توانم زندگی کنم\nتمام شب به چشمانت فکر می‌کنم",
    "hi": "मैं तुमसे प्यार करता हूँ और तुम्हारे बिना नहीं जी सकता\nसारी रात तुम्हारी आँखों के बारे में सोचता हूँ",
    "zh": "我們在夜裡看著月亮\n想起從前的愛情\n你說過永遠不離開",
    "ja": "今夜は君と一緒に歩きたい\n夜空の星を見ながら",
    "ko": "너를 사랑해 baby\n밤새 너의 눈을 생각해 tonight",
    "th": "ฉันรักเธอและไม่สามารถอยู่ได้โดยไม่มีเธอ",
    "he": "אני אוהב אותך ולא יכול לחיות בלעדייך",
    "el": "σ' αγαπώ και δεν μπορώ να ζήσω χωρίς εσένα",
    "ta": "நான் உன்னை காதலிக்கிறேன் உன்னை இல்லாமல் வாழ முடியாது",
}


@pytest.mark.parametrize("code", LYRICS)
def test_languages_are_told(code: str) -> None:
    found, score = detect_language(f"[Verse 1]\n{LYRICS[code]}")
    assert found == code
    assert MIN_SCORE <= score <= 1


def test_simplified_and_traditional_chinese_are_told_from_japanese_by_kana() -> None:
    assert detect_language("我们在夜里看着月亮，想起从前的爱情") == ("zh", 1.0)
    assert detect_language("東京の夜に雨が降る")[0] == "ja"
    # One kana for style does not make a song Japanese.
    assert detect_language("我們在夜裡看著月亮\n想起從前の愛情\n你說過永遠不離開")[0] == "zh"


@pytest.mark.parametrize(
    "lyrics",
    [
        "",
        "1 2 3",
        "yeah na na oh la la yeah oh hey na na na\n" * 8,
        "oh baby",
        "saranghae neoreul saranghae yeongwonhi hamkke haejwo",
        "kimi no koto ga suki dakara zutto soba ni ite hoshii no",
        "да",
        "♪ ♪",
    ],
)
def test_what_cannot_be_told_is_undetermined(lyrics: str) -> None:
    assert detect_language(lyrics)[0] == "und"


def test_capitals_and_slang_stay_english() -> None:
    assert detect_language(LYRICS["en"].upper())[0] == "en"
    slang = "yo I'm finna pull up on the block wit my dawgs, skrrt skrrt, ice on my neck cost ten racks"
    assert detect_language(slang) == ("en", MIN_SCORE)


def test_headings_tell_no_language() -> None:
    assert detect_language(f"[Strophe 1]\n{LYRICS['en']}\n[Strophe 2]\n{LYRICS['en']}")[0] == "en"


def test_a_chorus_that_returns_does_not_outweigh_the_rest() -> None:
    more = "mañana voy a caminar por la calle de mi casa\npara ver el mar y olvidar todo lo que fue"
    lyrics = "let me go, let me go, I'm alive\n" * 40 + f"{LYRICS['es']}\n{more}"
    assert detect_language(lyrics)[0] == "es"


@pytest.mark.parametrize(
    ("given", "detected", "score", "language", "conflict"),
    [
        (None, "en", 0.9, "en", None),
        (None, "und", 0.2, "und", None),
        ("fr", "und", 0.2, "fr", None),
        ("fr", "en", 0.6, "fr", None),
        ("fr", "en", 0.9, "en", "language given as fr, reads as en"),
        ("EN-us", "en", 0.9, "en", None),
        ("eng", "en", 0.9, "en", None),
        ("und", "en", 0.6, "en", None),
        ("no", "da", 0.95, "no", None),
        ("hr", "sr", 0.95, "hr", None),
        ("English!", "en", 0.9, "en", None),
    ],
)
def test_the_source_yields_only_to_a_sure_reading(
    given: str | None, detected: str, score: float, language: str, conflict: str | None
) -> None:
    assert settle_language(given, detected, score) == (language, conflict)
