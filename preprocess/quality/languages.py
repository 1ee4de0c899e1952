"""English names of the languages that songs are most often in."""

from __future__ import annotations

_TABLE = """
    af=Afrikaans ar=Arabic az=Azerbaijani be=Belarusian bg=Bulgarian bn=Bengali bs=Bosnian ca=Catalan cs=Czech
    cy=Welsh da=Danish de=German el=Greek en=English eo=Esperanto es=Spanish et=Estonian eu=Basque fa=Persian
    fi=Finnish fr=French ga=Irish gl=Galician he=Hebrew hi=Hindi hr=Croatian ht=Haitian hu=Hungarian hy=Armenian
    id=Indonesian is=Icelandic it=Italian ja=Japanese jv=Javanese ka=Georgian kk=Kazakh ko=Korean la=Latin
    lt=Lithuanian lv=Latvian mk=Macedonian ml=Malayalam mr=Marathi ms=Malay ne=Nepali nl=Dutch no=Norwegian
    pa=Punjabi pl=Polish pt=Portuguese ro=Romanian ru=Russian sk=Slovak sl=Slovenian so=Somali sq=Albanian
    sr=Serbian sv=Swedish sw=Swahili ta=Tamil te=Telugu th=Thai tl=Tagalog tr=Turkish uk=Ukrainian ur=Urdu
    uz=Uzbek vi=Vietnamese yo=Yoruba zh=Chinese zu=Zulu
"""

_NAMES = dict(entry.split("=") for entry in _TABLE.split())


def language_name(code: str) -> str:
    """As in "French (fr)"; a code without a known name stands for itself."""
    if code in _NAMES:
        return f"{_NAMES[code]} ({code})"
    return {"": "(not looked at)", "und": "cannot be told (und)"}.get(code, code)
