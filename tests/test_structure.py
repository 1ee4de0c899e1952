from __future__ import annotations

from preprocess.measure.structure import find_words, measure_structure, split_sections, sung_lines

SONG = """[Verse 1]
I walk the river road alone
My river sings to me

[Chorus]
Carry me home, river
Carry me home, river

[Verse 2]
I left the town, I left my shoes

[Chorus]
carry me home river!
Carry me home, river"""


def test_sections_verses_and_choruses_are_counted() -> None:
    structure = measure_structure(SONG)
    assert (structure.num_verses, structure.num_choruses, structure.num_stanzas) == (2, 2, 4)
    assert structure.num_lines == 7
    assert structure.num_stanza_repeats == 2


def test_a_line_counts_as_repeated_whatever_its_case_and_marks() -> None:
    assert measure_structure(SONG).repeated_line == ("Carry me home, river", 4)
    assert measure_structure("one two three\nfour five six").repeated_line is None


def test_words_are_counted_without_the_headings() -> None:
    structure = measure_structure("[Verse 1]\nsun sun moon\n[Verse 2]\nsun moon star")
    assert structure.num_words == 6
    assert structure.num_distinct_words == 3
    assert structure.type_token_ratio == 0.5
    assert structure.words_per_line == 3
    assert structure.frequent_words == (("sun", 3), ("moon", 2))


def test_the_person_needs_a_clear_leader() -> None:
    assert measure_structure(SONG).person == "I"
    assert measure_structure("you and I\nyou and I\nyou and I").person is None
    assert measure_structure("when we go, we stay, let us go").person == "we"
    assert measure_structure("the sea the sea").person is None


def test_lyrics_without_headings_split_at_empty_lines() -> None:
    structure = measure_structure("a b c\nd e f\n\nx y z\n\na b c\nd e f")
    assert (structure.num_stanzas, structure.num_stanza_repeats, structure.num_verses) == (3, 2, 0)


def test_an_empty_line_inside_a_headed_section_does_not_split_it() -> None:
    sections = split_sections("[Verse 1]\na\n\nb\n[Chorus]\nc")
    assert [(section.kind, section.lines) for section in sections] == [
        ("verse", ("a", "b")),
        ("chorus", ("c",)),
    ]
    assert list(sung_lines("[Verse 1]\na\n\n b ")) == ["a", "b"]


def test_words_of_every_script_stay_whole() -> None:
    assert find_words("Don\u2019t STOP, rock'n'roll 99") == ["don't", "stop", "rock'n'roll"]
    assert find_words("naïve cafe\u0301 Straße") == ["naïve", "cafe\u0301", "strasse"]
    assert find_words("हिन्दी गाना") == ["हिन्दी", "गाना"]
    assert find_words("שָׁלוֹם עולם") == ["שָׁלוֹם", "עולם"]


def test_empty_lyrics_have_no_structure() -> None:
    structure = measure_structure("")
    assert (structure.num_lines, structure.num_words, structure.num_stanza_repeats) == (0, 0, 0)
    assert structure.type_token_ratio == structure.words_per_line == 0


def test_a_hook_beside_a_chorus_is_not_counted_as_its_return() -> None:
    assert measure_structure("[Hook]\na\n[Chorus]\nb\n[Chorus]\nb").num_choruses == 2
    assert measure_structure("[Hook]\na\n[Verse 1]\nb\n[Hook]\na").num_choruses == 2
    assert measure_structure("[Pre-Chorus]\na\n[Verse 1]\nb").num_choruses == 0
