# ruff: noqa: RUF001 - words of many scripts
"""The words that head a section, in the languages whose lyrics carry headings, under one English tag each."""

from __future__ import annotations

_PLAIN = {
    "VERSE": "verse verses couplet verso strofa strophe estrofa zwrotka куплет",
    "PRE-CHORUS": "pre-chorus pre-hook pré-refrain pre-refrain pre-coro pré-refrão pre-refrão pre-refrao",
    "CHORUS": "chorus estribillo coro ritornello refrão refrao refren припев приспів nakarat refrein refräng refreng",
    "POST-CHORUS": "post-chorus post-hook post-refrain post-coro pós-refrão post-refrão",
    "REFRAIN": "refrain",
    "HOOK": "hook",
    "BRIDGE": "bridge pont puente ponte бридж",
    "INTRO": "intro introduction интро",
    "OUTRO": "outro аутро",
    "INTERLUDE": "interlude",
}
# Words that are also sung by themselves, or are short enough to be.
_BRACKETED = {
    "VERSE": "vers säkeistö verze sloka bölüm бит στροφή κουπλέ κουπλε 主歌 バース ヴァース aメロ 벌스 절 المقطع مقطع"
    " ورس بيت בית अंतरा bait lời estrofe stanza",
    "PRE-CHORUS": "pre-estribillo pre-ritornello pre-refren предприпев пре-припев пред-припев передприспів"
    " ön-nakarat pre-refräng esikertosäe předrefrén predrefren pre-refrein elő-refrén 导歌 導歌 预副歌 預副歌"
    " プレコーラス bメロ 프리코러스 פרה-פזמון lift pre-verse przedrefren",
    "CHORUS": "kertosäe refrén рефрен ρεφρέν ρεφρεν ρεφραίν 副歌 サビ コーラス 후렴 코러스 كورس اللازمة لازمة"
    " کورس همخوان פזמון मुखड़ा reff điệp-khúc omkvæd kor ท่อนฮุก",
    "POST-CHORUS": "post-estribillo post-ritornello post-refren пост-припев постприпев ポストコーラス 포스트코러스",
    "HOOK": "хук フック 훅 ฮุค",
    "BRIDGE": "middle-eight middle-8 most przejście переход köprü brug brygga stick bro c-osa híd punte γέφυρα 桥段"
    " 橋段 过渡 過渡 ブリッジ cメロ 브릿지 브리지 جسر الجسر پل גשר",
    "INTRO": "opening вступление інтро вступ introducción introdução giriş εισαγωγή 前奏 引子 イントロ 인트로 مقدمة"
    " المقدمة פתיחה intro-verse prelude uvod einleitung",
    "OUTRO": "ending coda закінчення концовка кода final finale çıkış 尾奏 尾声 尾聲 アウトロ 아웃트로 아웃로 خاتمة"
    " الخاتمة סיום encerramento saída closing end",
    "INTERLUDE": "interludio interlúdio интерлюдия проигрыш інтерлюдія 间奏 間奏 インタールード 간주 מעבר interludium"
    " interlud zwischenspiel",
    "INSTRUMENTAL": "instrumental instrumental-break instrumental-solo instrumental-bridge инструментал",
    "SOLO": "solo guitar-solo piano-solo drum-solo sax-solo saxophone-solo bass-solo keyboard-solo organ-solo"
    " synth-solo harmonica-solo violin-solo trumpet-solo соло",
    "BREAK": "break breakdown beat-break drum-break guitar-break",
    "DROP": "drop",
    "BUILD": "build build-up",
    "SKIT": "skit скит",
    "SPOKEN": "spoken spoken-word spoken-intro spoken-outro parlato hablado",
    "PART": "part parte partie teil часть section movement",
    "AD-LIB": "ad-lib ad-libs",
    "VAMP": "vamp",
    "SEGUE": "segue transition",
    "TAG": "tag",
    "SAMPLE": "sample",
    "BEAT SWITCH": "beat-switch",
    "RAP": "rap rap-verse",
    "HIDDEN TRACK": "hidden-track",
}


def squeeze_word(word: str) -> str:
    """A section word without case, spaces and hyphens: the key of `TAGS`."""
    return word.casefold().replace(" ", "").replace("-", "")


def _split(table: dict[str, str]) -> tuple[str, ...]:
    # Longest first, so that an expression made of them prefers "verses" to "verse".
    words = {word for group in table.values() for word in group.split()}
    return tuple(sorted(words, key=lambda word: (-len(word), word)))


PLAIN_WORDS: tuple[str, ...] = _split(_PLAIN)
"""Words that are headings also without brackets. A hyphen stands for a hyphen, a space, or nothing."""

BRACKETED_WORDS: tuple[str, ...] = _split(_BRACKETED)
"""Words that are headings only in brackets."""

TAGS: dict[str, str] = {
    squeeze_word(word): tag
    for table in (_BRACKETED, _PLAIN)
    for tag, words in table.items()
    for word in words.split()
}
"""Section word, squeezed (`squeeze_word`) → its English tag as in "PRE-CHORUS"."""
