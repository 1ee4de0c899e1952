from __future__ import annotations

import pytest

from preprocess.measure.structure import find_words, measure_structure, split_sections, sung_lines
from preprocess.measure.vocabulary import moving_average_type_ratio

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


def test_a_stanza_that_returns_is_one_of_the_distinct_ones() -> None:
    a, b, c = "one two three\nfour five", "six seven\neight nine ten", "red green blue\nwhite black"
    structure = measure_structure(f"{a}\n\n{b}\n\n{c}\n\n{b}\n\n{b}")
    assert (structure.num_stanzas, structure.num_distinct_stanzas, structure.num_stanza_repeats) == (5, 3, 3)
    assert structure.form.letters == "ABCBB"


def test_stanzas_that_nearly_return_have_the_same_letter() -> None:
    chorus = "one two\nthree four\nfive six\nseven eight"
    altered, half = chorus.replace("six", "nine"), chorus.replace("six", "nine").replace("eight", "ten")
    verse = "a b c\nd e f"
    assert measure_structure(f"{chorus}\n\n{verse}\n\n{altered}").form.letters == "ABA"
    assert measure_structure(f"{chorus}\n\n{verse}\n\n{half}").form.letters == "ABC"
    # Half is enough for what is headed as the chorus; asides and doubling do not matter.
    headed = f"[Chorus]\n{chorus}\n[Verse]\n{verse}\n[Chorus]\n{half}\n[Chorus]\n{chorus} (hey)\n{chorus}"
    assert measure_structure(headed).form.letters == "ABAA"


def test_a_chorus_is_found_without_headings() -> None:
    chorus = "Carry me home, river\nCarry me on"
    song = f"one two three\nfour five\n\n{chorus}\n\nsix seven\neight nine\n\n{chorus.lower()}!"
    structure = measure_structure(song)
    assert structure.has_chorus
    assert (structure.num_choruses, structure.form.num_choruses) == (0, 2)
    assert structure.form.chorus == ("Carry me home, river", "Carry me on")
    assert not structure.form.is_headed


def test_no_return_or_nothing_but_return_is_no_chorus() -> None:
    assert not measure_structure("a b\nc d\n\ne f\ng h").has_chorus
    assert not measure_structure("a b\nc d\n\na b\nc d").has_chorus
    assert not measure_structure("la la\n\na b\nc d\n\nla la").has_chorus
    assert not measure_structure("[Verse 1]\na b\nc d\n[Bridge]\ne f\ng h").has_chorus


def test_headings_in_capitals_and_other_languages_name_the_same_kinds() -> None:
    tags = "[VERSE]\na\n[PRE-CHORUS]\nb\n[CHORUS]\nc\n[VERSE]\nd\n[CHORUS]\nc\n[BRIDGE]\ne\n[OUTRO]\nf"
    expected = (("verse", 2), ("pre-chorus", 1), ("chorus", 2), ("bridge", 1), ("outro", 1))
    structure = measure_structure(tags)
    assert structure.section_counts == expected
    assert (structure.num_verses, structure.num_choruses) == (2, 2)
    assert (structure.form.letters, structure.form.is_headed) == ("ABCDCEF", True)
    foreign = "[Куплет 1]\na\n[Предприпев]\nb\n[Припев]\nc\n[Strofa 2]\nd\n[Coro]\nc\n[Puente]\ne\n[Outro]\nf"
    assert measure_structure(foreign).section_counts == expected


def test_a_heading_alone_stands_for_what_it_headed() -> None:
    form = measure_structure(
        "[Chorus]\na b\nc d\n[Verse 1]\ne f\n[Chorus]\n[Verse 2]\ng h\n[Solo]\n[Chorus]"
    ).form
    assert form.letters == "ABACA"
    assert (form.num_choruses, form.chorus) == (3, ("a b", "c d"))
    assert measure_structure("[Chorus]\n[Verse 1]\na\n[Verse 2]\nb").form.letters == "AB"


def test_one_heading_does_not_make_the_song_one_section() -> None:
    assert measure_structure("[Intro]\n\na b\n\nc d\n\na b").form.letters == "ABA"


def test_a_refrain_ends_or_begins_the_stanzas() -> None:
    ends = measure_structure("a b c\nblow the wind\n\nd e f\nBlow the wind!\n\ng h i\nblow the wind").form
    assert (ends.refrain, ends.num_refrains, ends.refrain_place) == ("blow the wind", 3, "last")
    begins = measure_structure("blow the wind\na b c\n\nblow the wind\nd e f").form
    assert (begins.refrain, begins.num_refrains, begins.refrain_place) == ("blow the wind", 2, "first")
    # Not of most stanzas; one stanza that returns; one word.
    assert measure_structure("a\nx y\n\nb\nx y\n\nc\nd e\n\nf\ng h\n\ni\nj k").form.refrain is None
    assert measure_structure("a b\nx y\n\na b\nx y").form.refrain is None
    assert measure_structure("a b\nx\n\nc d\nx").form.refrain is None


def test_lines_are_measured_and_repeats_counted() -> None:
    structure = measure_structure("one\ntwo three\nWho are you?\ntwo, three\nwhere is it? here it is again")
    assert structure.line_lengths == (1, 2, 7)
    assert structure.num_repeated_lines == 1
    assert structure.num_questions == 2
    assert measure_structure("ومن انت؟\n你是谁\uff1f").num_questions == 2


def test_lines_that_begin_alike_are_found_with_all_that_they_share() -> None:
    song = "I want to be free\nI want to be there\nI want to go\nI want to go\nyou went"
    assert measure_structure(song).anaphora == ("i want to", 3)
    assert measure_structure("I want it\nI want her\nI want her").anaphora is None
    assert measure_structure("I go\nI stay\nI sing").anaphora is None


def test_richness_does_not_fall_with_the_length() -> None:
    verse = " ".join(f"word{chr(97 + n)}" for n in range(20))
    short, long = (measure_structure("\n".join([verse] * times)) for times in (4, 40))
    assert short.richness == long.richness == 20 / 50
    assert short.type_token_ratio > 5 * long.type_token_ratio
    assert measure_structure(verse).richness is None


def test_richness_is_the_mean_over_every_window() -> None:
    words = [f"w{chr(97 + n * n % 23)}" for n in range(130)] + ["x"] * 40 + ["y", "z"] * 9
    windows = [words[start : start + 50] for start in range(len(words) - 49)]
    expected = sum(len(set(window)) / 50 for window in windows) / len(windows)
    assert moving_average_type_ratio(words) == pytest.approx(expected)
    assert moving_average_type_ratio(words, 3) == pytest.approx(
        sum(len(set(words[n : n + 3])) / 3 for n in range(len(words) - 2)) / (len(words) - 2)
    )


def test_who_speaks_to_whom_is_told() -> None:
    voice = measure_structure("Oh baby, I love you\nI need you, baby\nI told you, she is with me").voice
    assert voice is not None
    assert (voice.speaker, voice.addressee, voice.others) == ("I", "you", None)
    assert voice.called == (("baby", 2),)
    sung = measure_structure(
        "O Lord my God, when I\nMy soul, be thou with the Lord\nthe baby sleeps and cries"
    ).voice
    assert sung is not None
    assert sung.called == (("my soul", 1),)
    listed = measure_structure("my mother, my father, my friends and the girls").voice
    assert listed is not None
    assert listed.called == ()
    assert measure_structure("Je suis ton ami, baby, dans la nuit et le jour, toi").voice is None
