from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

import preprocess
from preprocess.themes import find_moods, find_themes, load_lexicon

LEXICONS = Path(preprocess.__file__).parent / "lexicon"
PLANNED = {
    *("love", "heartbreak", "nostalgia", "freedom", "perseverance", "faith", "home", "night life", "journey"),
    *("nature", "loss", "success", "rebellion", "friendship", "family", "time"),
}


@pytest.fixture(params=["themes", "moods"])
def entries(request: pytest.FixtureRequest) -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = yaml.safe_load(
        (LEXICONS / f"{request.param}.yaml").read_text("utf-8")
    )
    return loaded


def test_every_planned_theme_is_there_with_at_least_25_words() -> None:
    entries = yaml.safe_load((LEXICONS / "themes.yaml").read_text("utf-8"))
    assert entries.keys() >= PLANNED
    assert min(len(entry["words"].split()) + len(entry["phrases"]) for entry in entries.values()) >= 40


def test_no_entry_of_a_theme_says_what_another_of_its_entries_says(
    entries: dict[str, dict[str, object]],
) -> None:
    for entry in entries.values():
        words = str(entry["words"]).split()
        assert len(set(words)) == len(words)
        stems = [word[:-1] for word in words if word.endswith("*")]
        plain = [word.rstrip("*") for word in words]
        assert [(w, s) for w, s in itertools.product(plain, stems) if w.startswith(s) and w != s] == []


def test_names_of_themes_can_be_listed_without_ambiguity(entries: dict[str, dict[str, object]]) -> None:
    assert not [name for name in entries if "," in name or " and " in name or name != name.casefold()]


def test_a_theme_is_found_with_words_that_stand_in_the_lyrics() -> None:
    lyrics = "[Verse 1]\nThe river runs to the ocean\nUnder the moon, by the sea\nForests and mountains"
    best = find_themes(lyrics)[0]
    assert best.theme == "nature"
    assert {"river", "ocean", "moon", "by the sea", "forests"} <= set(best.words)
    assert all(word in lyrics.casefold() for word in best.words)


def test_words_match_whole_and_stems_only_from_the_beginning() -> None:
    assert find_themes("glove clover cloven plover\ndoglove slovenly") == []
    assert [item.theme for item in find_themes("prayerfully preaching, outpraying")] == ["faith"]
    assert "outpraying" not in find_themes("prayerfully preaching, outpraying")[0].words


def test_a_phrase_does_not_run_across_lines() -> None:
    assert any("take me home" in item.words for item in find_themes("take me home\nhome"))
    assert not any("take me home" in item.words for item in find_themes("take me\nhome home home"))


def test_one_word_alone_is_no_theme_and_headings_are_not_read() -> None:
    assert find_themes("a grave thing to say") == []
    assert find_themes("[Love]\n[Kiss]\nla la la") == []


def test_repeating_a_word_counts_less_than_other_words() -> None:
    once = "the mountain and the river\n" + "we walked past stones of every size " * 5
    repeated = find_themes(once + "\nriver river river river")
    varied = find_themes(once + "\nocean forest meadow valley")
    assert varied[0].theme == repeated[0].theme == "nature"
    assert varied[0].score > 1.5 * repeated[0].score


def test_a_word_claimed_by_several_themes_counts_in_part() -> None:
    lexicon = load_lexicon("themes")
    assert len(lexicon.themes_of("rose")) == 2
    alone = find_themes("rose rose rose rose")
    assert {item.theme for item in alone} == set(lexicon.themes_of("rose"))
    assert alone[0].score < find_themes("ocean ocean ocean ocean")[0].score


def test_scores_do_not_grow_with_the_length_of_unrelated_text() -> None:
    short = "the ocean and the forest"
    assert find_themes(short)[0].score > find_themes(short + "\nthis that " * 200)[0].score


def test_the_order_is_stable_and_the_number_limited() -> None:
    lyrics = "love kiss ocean forest god church road highway mother father"
    assert find_themes(lyrics, 2) == find_themes(lyrics)[:2]
    assert len(find_themes(lyrics)) == 3


def test_moods_are_found_and_other_languages_give_nothing() -> None:
    assert find_moods("I cry, tears of sorrow, lonesome blues")[0].theme == "sad"
    assert find_themes("うさぎおいし かの山") == []
    assert find_themes("") == find_moods("") == []
