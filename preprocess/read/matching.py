"""When two tables speak of the same song: by artist and title in any spelling, or by the words that are sung."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from preprocess.clean.lyrics import clean_lyrics, lyrics_hash

_GUESTS = re.compile(
    r"\s*[(\[](?:feat|ft|featuring|with)\b\.?[^()\[\]]*[)\]]|\s+(?:feat|ft|featuring)\b\.?\s.*",
    re.IGNORECASE | re.DOTALL,
)
_LATIN_MARKS = re.compile("[\u0300-\u036f]")
_THE = re.compile(r"the\s+(?=\S)", re.IGNORECASE)


def normalise_name(name: str) -> str:
    """A title or an artist's name without case, accents, punctuation and guests; a leading "the" is dropped.

    What stands in brackets stays, unless it names guests: "Hello (Live)" is another recording than "Hello".
    """
    bare = _THE.sub("", _GUESTS.sub("", name).strip().replace("&", " and "), count=1) if name else ""
    if not bare.isascii():
        bare = unicodedata.normalize("NFKC", _LATIN_MARKS.sub("", unicodedata.normalize("NFKD", bare)))
    letters = "".join(filter(str.isalnum, bare.casefold()))
    return letters or name.casefold().strip()


def find_lyrics_key(lyrics: str) -> int:
    """The fingerprint of lyrics, cleaned so that a page's residue in one of two tables does not matter."""
    return lyrics_hash(clean_lyrics(lyrics))


def find_keys(title: str | None, artist: str | None, lyrics_key: int | None) -> list[int]:
    """Numbers of 64 bits under which a song is found, the surest first.

    Args:
        title: Title, or None.
        artist: Artist, or None.
        lyrics_key: `find_lyrics_key` of the lyrics, or None without lyrics.

    Returns:
        By artist and title; by artist and lyrics; by lyrics alone. Those that can be made.
    """
    keys = []
    performer = normalise_name(artist) if artist else ""
    if performer and title:
        keys.append(_hash(f"title\x1f{performer}\x1f{normalise_name(title)}"))
    if performer and lyrics_key is not None:
        keys.append(_hash(f"lyrics\x1f{performer}\x1f{lyrics_key}"))
    if lyrics_key is not None:
        keys.append(lyrics_key)
    return keys


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
