"""Texts on which two ways of encoding must agree: scripts, spaces, digits, contractions, emoji, look-alikes."""

# ruff: noqa: RUF001 - letters that look like others are the point

from __future__ import annotations

from itertools import product

_TEXTS = (
    "Hello darkness, my old friend\nI've come to talk with you again",
    "  leading, trailing  \n\n\nand   inner   spaces\t\ttabs \n \n  ",
    "C'est l'été — « déjà vu » naïve, I'LL we'Ve don't you'D it'ſ I'M 1234567 3.14",
    "雨の夜に歌を聴く。我愛你、中國人\n水光潋滟晴方好，山色空蒙雨亦奇。",
    "Дорога домой, ночь без сна — ВЕСНА",
    "شمس الليل والقمر ١٢٣ ؟",
    "हिन्दी गीत के बोल १२",
    "노래 가사 사랑해 \u1112\u1161\u11ab",
    "ฉันรักเธอ เพลงไทย ๑๒",
    "Tình yêu việc gì, Đêm nay",
    "שלום עולם, לילה טוב",
    "😀\U0001f469\u200d\U0001f467 ♪♫ e\u0301 \ufb01 \uff57\uff49\uff44\uff45 \u200b\u00a0\u3000x",
    "\r\nWindows lines\r\n\r\nCR\ronly\x0b\x0c\x1c\x85\u2028\u2029end",
    "1 12 123 1234 12345 ²³ ½ ⅷ 1,000.50 '90s 20s'",
    "<|im_end|><|eot_id|><|endoftext|> <s></s>[INST] [/INST]<unk><pad> <|start_header_id|>user",
    '[Verse 1]\nOh-oh-oh, na na na (na na)\n\n[CHORUS]\n"Hey!" -- yeah... $100 #1 @you /path/ \\n',
    "ALL CAPS THEN mixedCase WordsLikeThis iPhone McDonald ǅungla ǈ ʰʷ",
    "a" * 300 + " " * 300 + "b" + "\n" * 50 + "!" * 200,
    "",
)

_FRAGMENTS = (
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u2003",
        "a",
        "É",
        "雨",
        "1",
        "²",
        "'s",
        "'LL",
        "'",
        "!",
        "/",
    ),
    *("e\u0301", "\u0301", "\u200d", "😀", "_", "\x00"),
)

PROBES = (
    *_TEXTS,
    *("".join(pair) for pair in product(_FRAGMENTS, repeat=2)),
    *("".join("".join(tail) + first for tail in product(_FRAGMENTS, repeat=2)) for first in _FRAGMENTS),
)
"""Texts by hand, every pair of the fragments, and every three of them behind one another in long texts."""

_LETTERS = (*map(chr, range(ord("A"), ord("Z") + 1)), *map(chr, range(ord("a"), ord("z") + 1)))
_FOLDING = ("\u017f", "\u212a", "\u0131", "\u0130")
"""Long s, Kelvin and the two Turkish i: the letters beyond ASCII whose other case is, or looks, ASCII."""

CONTRACTIONS = tuple(
    f"'{first}{second}'{first}"
    for first in (*_LETTERS, *_FOLDING)
    for second in ("E", "e", "L", "l", *_FOLDING, " ")
)
"""What "'s", "'re" and their like could match blind to case."""
