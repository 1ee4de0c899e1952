from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

import preprocess
from preprocess.corpus import generate_songs
from preprocess.measure.structure import measure_structure
from preprocess.measure.themes import find_moods, find_themes, load_lexicon

LEXICONS = Path(preprocess.__file__).parent / "measure" / "lexicon"
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
    assert find_themes("the glove clover cloven plover\ndoglove slovenly") == []
    assert [item.theme for item in find_themes("they, prayerfully preaching, outpraying")] == ["faith"]
    assert "outpraying" not in find_themes("they, prayerfully preaching, outpraying")[0].words


def test_a_phrase_does_not_run_across_lines() -> None:
    assert any("take me home" in item.words for item in find_themes("oh take me home\nhome"))
    assert not any("take me home" in item.words for item in find_themes("oh take me\nhome home home"))


def test_one_word_alone_is_no_theme_and_headings_are_not_read() -> None:
    assert find_themes("it is a grave thing that you say") == []
    assert find_themes("[Love]\n[Kiss]\nthe la la la") == []


def test_repeating_a_word_counts_less_than_other_words() -> None:
    once = "the mountain and the river\n" + "we walked past stones of every size " * 5
    repeated = find_themes(once + "\nriver river river river")
    varied = find_themes(once + "\nocean forest meadow valley")
    assert varied[0].theme == repeated[0].theme == "nature"
    assert varied[0].score > 1.5 * repeated[0].score


def test_a_word_claimed_by_several_themes_counts_in_part() -> None:
    lexicon = load_lexicon("themes")
    assert len(lexicon.themes_of("rose")) == 2
    alone = find_themes("the rose rose rose rose")
    assert {item.theme for item in alone} == set(lexicon.themes_of("rose"))
    assert alone[0].score < find_themes("the ocean ocean ocean ocean")[0].score


def test_scores_do_not_grow_with_the_length_of_unrelated_text() -> None:
    short = "the ocean and the forest"
    assert find_themes(short)[0].score > find_themes(short + "\nthis that " * 200)[0].score


def test_the_order_is_stable_and_the_number_limited() -> None:
    lyrics = "the love kiss ocean forest and god church road highway mother father"
    assert find_themes(lyrics, 2) == find_themes(lyrics)[:2]
    assert len(find_themes(lyrics)) == 3


def test_moods_are_found_and_other_languages_give_nothing() -> None:
    assert find_moods("I cry the tears of sorrow, lonesome blues")[0].theme == "sad"
    assert find_themes("うさぎおいし かの山") == []
    assert find_themes("") == find_moods("") == []


FOREIGN = {
    "German": """Die Nacht war lang und ich war allein
Die Sterne sind so kalt, ich will bei dir sein
Wir waren in der Stadt und was war da so schön
Die Liebe ist das Land, in dem wir gehen""",
    "Spanish": """Me dices que no, me dices que sí
Me muero de amor, me muero por ti
No me dejes solo, no me digas adiós
Que la noche es larga y somos los dos""",
    "Polish": """I noc, i dzień, i ty, i ja
To my, to my na cały świat
I nie ma nic, i nie ma nas
My we dwoje, to nasz czas""",
    "French": """Je ne sais plus qui je suis sans toi
On est là, on s'en va, on or sur les doigts
Ma mine est si triste, mon rose est fané
Or, me dire de partir, c'est me faire pleurer""",
    "Italian": """Ti amo e non so perché, i giorni vanno via
La notte è lunga e me ne vado in malinconia
I baci, i fiori, i sogni miei, non so se tornerò
Come il mare, come il sole, sempre ti amerò""",
    "Portuguese": """A saudade me mata, no mar do amor
As ondas me levam, no fim da dor
O sol me consome, me chama a paixão
Por que me deixaste, no meu coração""",
    "Dutch": """Ik weet dat je was in de nacht of is
We zijn alleen en ik zie hoe het is
Is dit de tijd, of was het te laat
Ik zie wie je is, ik zie wie daar gaat""",
}


@pytest.mark.parametrize("language", FOREIGN)
def test_other_languages_show_no_theme_mood_or_person(language: str) -> None:
    lyrics = FOREIGN[language]
    assert find_themes(lyrics) == find_moods(lyrics) == []
    assert measure_structure(lyrics).person is None
    # The words alone would have shown something: it is the language that is refused.
    english = lyrics + "\nand the" * 20
    assert (
        find_themes(english)
        or find_moods(english)
        or measure_structure(english).person
        or language == "Dutch"
    )


def test_english_lyrics_count_as_english() -> None:
    songs = [song for length in ("full", "short") for song in generate_songs(300, 3, length=length)]
    assert all(measure_structure(song.lyrics).is_english for song in songs)
    assert measure_structure("I left my mother's house, I took the road\nMy heart is heavy").is_english
