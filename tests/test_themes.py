from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import preprocess
from preprocess.corpus import generate_songs
from preprocess.measure.evidence import find_evidence
from preprocess.measure.lexicons import read_lexicon
from preprocess.measure.structure import measure_structure
from preprocess.measure.themes import find_moods, find_themes

Entries = dict[str, dict[str, Any]]

LEXICONS = Path(preprocess.__file__).parent / "measure" / "lexicon"
PLANNED = {
    *("love", "heartbreak", "nostalgia", "freedom", "perseverance", "faith", "home", "night life", "journey"),
    *("nature", "loss", "success", "rebellion", "friendship", "family", "time"),
}


@pytest.fixture(params=["themes", "moods"])
def entries(request: pytest.FixtureRequest) -> Entries:
    loaded: Entries = yaml.safe_load((LEXICONS / f"{request.param}.yaml").read_text("utf-8"))
    return loaded


def own_words(entry: dict[str, Any]) -> list[str]:
    return f"{entry['words']} {entry.get('weak', '')}".split()


def test_every_planned_theme_is_there_with_words_enough() -> None:
    entries = yaml.safe_load((LEXICONS / "themes.yaml").read_text("utf-8"))
    assert entries.keys() >= PLANNED
    assert min(len(own_words(entry)) + len(entry["phrases"]) for entry in entries.values()) >= 40


def test_no_entry_of_a_theme_says_what_another_of_its_entries_says(entries: Entries) -> None:
    for entry in entries.values():
        words = own_words(entry)
        assert len(set(words)) == len(words)
        stems = [word[:-1] for word in words if word.endswith("*")]
        plain = [word.rstrip("*") for word in words]
        assert [(w, s) for w, s in itertools.product(plain, stems) if w.startswith(s) and w != s] == []


def test_every_exception_concerns_a_word_of_its_theme(entries: Entries) -> None:
    for theme, entry in entries.items():
        words = set(own_words(entry))
        stems = tuple(word[:-1] for word in words if word.endswith("*")) or ("*",)
        for phrase in entry.get("not", []):
            assert any(word in words or word.startswith(stems) for word in phrase.split()), (theme, phrase)
        assert set(entry.get("secular", "").split()) <= words, theme
        assert not set(entry.get("not", [])) & set(entry["phrases"]), theme


def test_every_key_of_an_entry_is_known(entries: Entries) -> None:
    known = {"about", "words", "weak", "phrases", "needs", "not", "secular", "sacred", "deniable"}
    assert all(entry.keys() <= known for entry in entries.values())


def test_names_of_themes_can_be_listed_without_ambiguity(entries: Entries) -> None:
    assert not [name for name in entries if "," in name or " and " in name or name != name.casefold()]


def test_a_theme_is_found_with_words_that_stand_in_the_lyrics() -> None:
    lyrics = "[Verse 1]\nThe river runs to the ocean\nUnder the moon, by the sea\nForests and mountains"
    best = find_themes(lyrics)[0]
    assert best.theme == "nature"
    assert {"river", "ocean", "moon", "by the sea", "forests"} <= set(best.words)
    assert all(word in lyrics.casefold() for word in best.words)


def test_words_match_whole_and_stems_only_from_the_beginning() -> None:
    assert find_themes("the glove clover cloven plover\ndoglove slovenly") == []
    (found,) = find_themes("they with rejoicings, celebrating, unjoyful")
    assert (found.theme, found.words) == ("joy", ("celebrating", "rejoicings"))


def test_a_phrase_does_not_run_across_lines() -> None:
    assert any("take me home" in item.words for item in find_themes("oh take me home\nhome"))
    assert not any("take me home" in item.words for item in find_themes("oh take me\nhome home home"))


def test_one_word_alone_is_no_theme_and_headings_are_not_read() -> None:
    assert find_themes("it is a grave thing that you say") == []
    assert find_themes("[Love]\n[Kiss]\nthe la la la") == []


def test_repeating_a_word_counts_less_than_other_words() -> None:
    once = (
        "the mountain and the river, an ocean and the forest\n" + "we walked past stones of every size " * 5
    )
    repeated = find_themes(once + "\nriver river river river")
    varied = find_themes(once + "\neagle thunder meadow valley canyon ocean snow lake")
    assert varied[0].theme == repeated[0].theme == "nature"
    assert varied[0].score > 1.4 * repeated[0].score


LEXICON = """
sea: {about: x, words: ocean wave, weak: blue deep salt, phrases: [by the sea], not: [blue moon, wave goodbye]}
night: {about: x, words: wave moon, phrases: [by the light], secular: moon}
church: {about: x, words: altar hymn* psalm, weak: deep, phrases: [let us pray], sacred: true}
days: {about: x, words: clock, weak: hour year, phrases: [long ago], needs: 3}
fire: {about: x, words: ember flame ash, phrases: [burn for you], deniable: true, not: [no ash]}
"""


@pytest.fixture
def evidence() -> Callable[[str], dict[str, dict[str, float]]]:
    lexicon = read_lexicon(LEXICON)
    return lambda lyrics: find_evidence(lyrics + "\nand the with you and", lexicon)


Find = Callable[[str], dict[str, dict[str, float]]]


def test_a_word_claimed_by_several_themes_counts_in_part(evidence: Find) -> None:
    found = evidence("wave ocean moon")
    assert found["sea"] == {"wave": 0.5, "ocean": 1}
    assert found["night"] == {"wave": 0.5, "moon": 1}


def test_a_weak_word_counts_half_and_in_company_alone(evidence: Find) -> None:
    assert evidence("blue salt blue salt blue") == {}
    assert evidence("blue salt ocean") == {"sea": {"ocean": 1, "blue": 0.5, "salt": 0.5}}
    assert evidence("by the sea so blue")["sea"] == {"by the sea": 1, "blue": 0.5}
    # Three of them keep each other company; "deep" is claimed by two themes.
    assert evidence("blue salt deep") == {"sea": {"blue": 0.5, "salt": 0.5, "deep": 0.25}}


def test_in_an_exception_the_words_of_its_theme_do_not_count(evidence: Find) -> None:
    assert "blue" not in evidence("ocean wave, a blue moon").get("sea", {})
    assert evidence("ocean wave, a blue moon, a blue sail")["sea"]["blue"] == 0.5
    # "wave" is excepted for the sea alone.
    assert evidence("moon, wave goodbye") == {"night": {"wave": 0.5, "moon": 1}}


def test_one_strong_word_needs_to_come_three_times_and_a_phrase_twice(evidence: Find) -> None:
    assert evidence("ocean ocean") == {}
    assert list(evidence("ocean ocean ocean")) == ["sea"]
    assert evidence("by the sea") == {}
    assert list(evidence("by the sea\nby the sea")) == ["sea"]


def test_some_themes_need_more_words_than_others(evidence: Find) -> None:
    assert evidence("clock hour clock hour clock") == {}
    assert list(evidence("clock hour year")) == ["days"]


def test_secular_words_do_not_count_in_a_religious_song(evidence: Find) -> None:
    assert "moon" in evidence("moon wave altar hymns")["night"]
    assert "night" in evidence("moon wave by the light altar hymns")
    assert "moon" not in evidence("moon wave by the light altar hymns psalm")["night"]
    # Weak words of a sacred theme want more company.
    assert evidence("deep deep deep") == {}
    assert evidence("deep psalm") == {"church": {"psalm": 1, "deep": 0.25}}


@pytest.mark.parametrize(
    "line",
    ["not an ember", "never any flame", "there is no ember", "ain't got no flame", "nothing of an ash",
     "no ash", "without an ember", "I don't burn for you", "you won't burn for you"],
)  # fmt: skip
def test_what_is_denied_shows_nothing(evidence: Find, line: str) -> None:
    assert evidence(f"{line}\n{line}\n{line}") == {}
    # It is one occurrence that is denied, not the word.
    assert evidence(f"{line}\nember\nflame\nash")["fire"] == {"ember": 1, "flame": 1, "ash": 1}


@pytest.mark.parametrize(
    "line",
    ["not a thing in the world but ember", "can't stop the ember", "never lose the ember", "ember not",
     "can't be without ember", "oh no you ember", "the night is not\nember", "not that I ember"],
)  # fmt: skip
def test_a_negation_ends_with_its_line_its_clause_or_a_contrary(evidence: Find, line: str) -> None:
    assert evidence(f"{line}\nflame")["fire"] == {"ember": 1, "flame": 1}


def test_only_themes_that_can_be_denied_are(evidence: Find) -> None:
    assert evidence("no ocean, no wave")["sea"] == {"ocean": 1, "wave": 0.5}


AMBIGUOUS = {
    "love": "Oh my heart is beating fast as the engine\nMy heart, it pumps and my arms they ache",
    "heartbreak": "The valley lies in the morning sun\nThe village lies there, it lies the same as before",
    "loss": "I'm dying to see you, I'd die for you\nYou look drop dead gorgeous, I'm lost in your smile",
    "nature": "He rose from the table, she rose with a smile\nThen they rose up together in style",
    "faith": "Oh my god, I can't believe it\nGod knows I will not leave it",
    "friendship": "They say that we are just friends but we're more than friends",
    "freedom": "They gave it out for free and time flies when it's for free, for free",
    "salvation": "I prayed in the church when I was young\n"
    "He rose like a kite, wide open and free, with the power he paid for\n"
    "He died in his debt, they wash the blood from his grave",
    "war": "Kill the lights, we are killing time\nKill the lights, there's a battle of bands",
    "heartbreak denied": "You never hurt me, no lies and no tears\nI don't miss you, not sorry, not jealous",
    "love denied": "I don't love you, I never loved you\nno kiss from you, nothing of love",
    "divine love": "I love you, I love the way you hold my heart\nYour love is sweet and tender, dear",
}


@pytest.mark.parametrize("theme", AMBIGUOUS)
def test_words_meant_otherwise_do_not_show_a_theme(theme: str) -> None:
    assert theme.removesuffix(" denied") not in [found.theme for found in find_themes(AMBIGUOUS[theme], 9)]


def test_an_oath_is_no_faith() -> None:
    assert find_themes("Jesus Christ, what is that?\nHell yeah, oh what the hell") == []
    assert find_themes("Jesus Christ is here, and that is what we know")[0].theme == "faith"


MEANT = {
    "love": "My heart beats for you, I need you in my arms\nI love you",
    "heartbreak": "You broke my heart with all your lies\nand I still miss you, goodbye",
    "loss": "They buried him and now he's gone, he died\nwe mourn him",
    "nature": "The rose in the garden, the river, the trees\nThe mountains and the summer breeze",
    "faith": "I fell on my knees and I prayed to the Lord\nand I had faith in Jesus",
    "friendship": "A friend like you, the best of friends\nyou have my back",
    "freedom": "Break these chains and set me free, I'm free",
    "salvation": "The sinner is redeemed by the blood\nHe died on the cross for me",
    "divine love": "Jesus loves me, this I know\nFor the Bible tells me so, God so loved the world, O praise",
    "praise": "Praise the Lord, his glory and his throne\nHallelujah to the King",
    "christmas": "In the manger the child was born in Bethlehem\nNoel, Noel",
}


@pytest.mark.parametrize("theme", MEANT)
def test_words_meant_so_show_the_theme(theme: str) -> None:
    assert theme in [found.theme for found in find_themes(MEANT[theme])]


def test_the_love_of_god_is_not_romance() -> None:
    hymn = (
        "O love divine, my Saviour's love\nWe praise Thy name, we pray, and worship\nThy holy Gospel, beloved"
    )
    names = [found.theme for found in find_themes(hymn, 9)]
    assert "love" not in names
    assert "divine love" in names


def test_scores_do_not_grow_with_the_length_of_unrelated_text() -> None:
    short = "the ocean and the forest, the river and the lake"
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
