from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from preprocess.clean.song import CleanSettings, clean_song
from preprocess.corpus import generate_songs
from preprocess.schema import Song

HYMNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymns.jsonl"
BODY = "I walk along the river every day\nIt sings a song to wash my fear away\n\n" * 3


def test_a_song_that_names_its_artist_is_kept_redacted_or_dropped() -> None:
    song = Song("1", BODY + "so says Mara Vale", artist="Mara Vale", year=1990)
    kept = clean_song(song, CleanSettings())
    assert kept.reason is None
    assert "Mara Vale" in kept.song.lyrics
    redacted = clean_song(song, CleanSettings(named_artist="redact"))
    assert redacted.reason is None
    assert redacted.song.lyrics.endswith("so says …")
    assert redacted.song.year == 1990
    assert redacted.traits == kept.traits
    assert clean_song(song, CleanSettings(named_artist="drop")).reason == "artist named in lyrics"
    other = Song("1", BODY, artist="Mara Vale")
    assert clean_song(other, CleanSettings(named_artist="drop")).reason is None


def test_the_language_is_filled_in_and_nothing_else_changes() -> None:
    song = Song("7", f"[Verse 1: A]\n{BODY}", "T", "A", "Pop", 1999, "B", ("love",), None, "pop", "file")
    cleaned = clean_song(song, CleanSettings())
    assert cleaned.song == Song(
        "7", f"[Verse 1]\n{BODY.strip()}", "T", "A", "Pop", 1999, "B", ("love",), "en", "pop", "file"
    )
    dropped = clean_song(Song("8", "la"), CleanSettings())
    assert (dropped.reason, dropped.song.language, dropped.traits.quality) == ("too short", "und", 0.0)


def test_headings_are_written_as_the_settings_say() -> None:
    song = Song("1", f"[Verse 1: A]\n{BODY}\n[Bridge]\nla la")
    for headings, first in (
        ("plain", "[Verse 1]"),
        ("tags", "[VERSE]"),
        ("drop", "I walk along the river every day"),
    ):
        settings = CleanSettings.model_validate({"headings": headings})
        assert clean_song(song, settings).song.lyrics.split("\n")[0] == first


def test_cleaning_a_clean_song_changes_neither_lyrics_nor_language() -> None:
    settings = CleanSettings()
    for song in generate_songs(50, seed=3):
        once = clean_song(song, settings).song
        assert clean_song(once, settings).song == once


def test_limits_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_chars 10 exceeds max_chars 9"):
        CleanSettings(min_chars=10, max_chars=9)


def test_what_is_returned_can_be_sent_to_another_process() -> None:
    cleaned = clean_song(Song("1", BODY), CleanSettings())
    assert pickle.loads(pickle.dumps(cleaned)) == cleaned


def test_made_up_songs_are_all_kept() -> None:
    settings = CleanSettings()
    for song in generate_songs(2000, seed=0):
        cleaned = clean_song(song, settings)
        assert cleaned.reason is None
        assert cleaned.song.language == "en"
        assert cleaned.traits.quality > 0.9
        assert not cleaned.traits.is_explicit
        assert not cleaned.traits.is_truncated
        assert not cleaned.traits.suspicions


@pytest.mark.skipif(not HYMNS.exists(), reason="needs the hymns")
@pytest.mark.parametrize("tag", [None, "misc"])
def test_hymns_are_all_kept_and_only_damaged_ones_are_suspicious(tag: str | None) -> None:
    settings = CleanSettings()
    for line in HYMNS.read_text(encoding="utf-8").splitlines():
        hymn = json.loads(line)
        cleaned = clean_song(
            Song("1", hymn["lyrics"], title=hymn["title"], artist=hymn["artist"], tag=tag), settings
        )
        assert cleaned.reason is None, hymn["title"]
        assert cleaned.song.language == "en"
        assert not cleaned.traits.is_explicit
        assert not cleaned.traits.is_truncated
        assert bool(cleaned.traits.suspicions) == ("\ufffd" in hymn["lyrics"])


@pytest.mark.skipif(not HYMNS.exists(), reason="needs the hymns")
@pytest.mark.parametrize("tag", [None, "misc"])
def test_hymns_written_as_one_paragraph_are_still_songs(tag: str | None) -> None:
    settings = CleanSettings()
    for line in HYMNS.read_text(encoding="utf-8").splitlines():
        words = (word for word in json.loads(line)["lyrics"].split("\n") if not word.startswith("["))
        cleaned = clean_song(Song("1", " ".join(" ".join(words).split()), tag=tag), settings)
        assert cleaned.reason != "not a song", cleaned.song.lyrics
