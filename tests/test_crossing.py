from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from preprocess.choose.crossing import MIN_PART_SHINGLES, Crossing, CrossingIndex, find_crossing
from preprocess.choose.describe import describe_songs
from preprocess.choose.sample import SampleConfig, choose_songs
from preprocess.choose.shingles import sung_words
from preprocess.corpus import generate_songs
from preprocess.schema import Song

CORPUS = [(song.id, song.lyrics) for song in generate_songs(400, seed=3)]
WORDS = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrst"]


def sing(seed: int, num_lines: int = 16) -> str:
    chance = random.Random(seed)
    return "\n".join(" ".join(chance.choice(WORDS) for _ in range(6)) for _ in range(num_lines))


def shingles(lyrics: str) -> set[tuple[str, ...]]:
    words = sung_words(lyrics)
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def search_by_hand(
    evaluation: list[tuple[str, str]], training: list[tuple[str, str]], threshold: float, containment: float
) -> dict[tuple[str, str], tuple[float, float]]:
    """Every pair compared with every other, in plain Python: the definition."""
    found = {}
    sets = [(song_id, shingles(lyrics)) for song_id, lyrics in training]
    for eval_id, lyrics in evaluation:
        own = shingles(lyrics)
        for train_id, other in sets:
            shared, shorter = len(own & other), min(len(own), len(other))
            similarity, contained = shared / len(own | other), shared / shorter
            if similarity >= threshold or (contained >= containment and shorter >= MIN_PART_SHINGLES):
                found[eval_id, train_id] = (similarity, contained)
    return found


def vary(lyrics: str, chance: random.Random) -> str:
    """Some version of a song: words changed, lines left out or repeated, a part of it, or another song around it."""
    lines = lyrics.split("\n")
    kept = [line for line in lines if chance.random() > chance.choice((0, 0.1, 0.3))] or lines
    kept = kept[: max(1, int(len(kept) * chance.choice((1, 1, 0.6, 0.4, 0.25))))]
    kept += chance.choices(kept, k=chance.choice((0, 0, 3)))
    if chance.random() < 0.3:
        kept += sing(chance.randrange(10**6), num_lines=chance.choice((5, 20, 60))).split("\n")
    share = chance.choice((0, 0, 0.03, 0.1))
    return "\n".join(
        " ".join("la" if chance.random() < share else word for word in line.split()) for line in kept
    )


@pytest.mark.parametrize(("threshold", "containment"), [(0.5, 0.8), (0.3, 0.6), (0.8, 0.5), (0.9, 1.0)])
def test_the_index_finds_what_comparing_every_pair_finds(threshold: float, containment: float) -> None:
    chance = random.Random(f"{threshold}")
    training = CORPUS[:250]
    training = training + [(f"v{n}", vary(chance.choice(CORPUS)[1], chance)) for n in range(250)]
    training += [("short", "la la la"), ("word", "hey"), ("none", ""), ("numbers", "1 2 3")]
    evaluation = [*CORPUS[200:], *training[300:350], *training[-4:]]
    expected = search_by_hand(evaluation, training, threshold, containment)
    found = find_crossing(evaluation, training, threshold, containment)
    assert {(item.eval_id, item.train_id): (item.similarity, item.containment) for item in found} == expected
    assert len(found) == len(expected) > 120
    unlike = [item for item in found if item.eval_id != item.train_id]
    assert len(unlike) > 20


def test_a_planted_cover_is_found_and_an_honest_song_is_not() -> None:
    song = sing(1)
    lines = song.split("\n")
    planted = {
        "copy": (song.upper().replace("\n", "\n\n[Chorus]\n", 1), "copy"),
        "cover": (
            "\n".join([*lines[:5], "another line that nobody sang before", *lines[6:]]),
            "near-duplicate",
        ),
        "half": ("\n".join(lines[:8]), "part"),
        "medley": (song + "\n" + sing(2, 60), "part"),
    }
    training = [(name, lyrics) for name, (lyrics, _) in planted.items()] + [
        ("honest", sing(3)),
        ("e1", sing(4)),
    ]
    found = find_crossing([("e1", song), ("e2", sing(5))], training)
    assert [(item.train_id, item.kind) for item in found] == [
        (name, kind) for name, (_, kind) in planted.items()
    ]
    assert {item.eval_id for item in found} == {"e1"}
    assert found[0] == Crossing("e1", "copy", 1.0, 1.0, "copy")


def test_a_short_refrain_is_no_part_of_every_song_that_sings_it() -> None:
    refrain = "la la la\noh oh oh\nla la la"
    training = [("long", sing(1) + "\n" + refrain), ("same", refrain + "\n" + refrain)]
    assert [item.train_id for item in find_crossing([("e", refrain)], training)] == ["same"]


@pytest.mark.parametrize(
    "script", ["月落烏啼霜滿天江楓漁火對愁眠姑蘇城外寒山寺夜半鐘聲到客船", "กขคงจฉชซฌญฎฏฐฑฒณดตถทธนบป"]
)
def test_scripts_without_spaces_are_compared_by_their_characters(script: str) -> None:
    chance = random.Random(0)
    song = ["".join(chance.choice(script) for _ in range(7)) for _ in range(12)]
    other = ["".join(chance.choice(script) for _ in range(7)) for _ in range(12)]
    changed = [*song[:4], other[0], *song[5:]]
    found = find_crossing(
        [("e", "\n".join(song))], [("cover", "\n".join(changed)), ("other", "\n".join(other))]
    )
    assert [(item.train_id, item.kind) for item in found] == [("cover", "near-duplicate")]
    assert 0.6 < found[0].similarity < 0.95


def test_songs_are_streamed_past_an_index_that_can_be_asked_again() -> None:
    index = CrossingIndex(CORPUS[:50])

    def stream() -> Iterator[tuple[str, str]]:
        yield from CORPUS * 2

    found = list(index.search(stream()))
    assert found == 2 * list(index.search(CORPUS))
    assert len(index) == 50
    assert list(index.search([])) == list(CrossingIndex([]).search(CORPUS)) == []


def test_nothing_crosses_a_choice_from_which_what_was_found_is_taken_out() -> None:
    chance = random.Random(2)
    songs = [Song(f"s{n}", sing(n), artist=f"Artist {n % 30}", genre="Rock") for n in range(300)]
    songs += [
        replace(song, id=f"half {song.id}", lyrics="\n".join(song.lyrics.split("\n")[:7]))
        for song in songs[:90]
    ]
    songs += [
        replace(song, id=f"cover {song.id}", artist="Cover Band", lyrics=vary(song.lyrics, chance))
        for song in songs[90:180]
    ]
    config = SampleConfig(songs_per_artist=500, eval_fraction=0.2, eval_unseen_fraction=0.1)

    def split(config: SampleConfig) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        choice = choose_songs(describe_songs(songs), config, 0)
        held_out = [*choice.evaluation.tolist(), *choice.eval_unseen.tolist()]
        pairs = [[(songs[n].id, songs[n].lyrics) for n in part] for part in (held_out, choice.train.tolist())]
        return pairs[0], pairs[1]

    held_out, train = split(config)
    found = find_crossing(held_out, train)
    without = find_crossing(*split(config.model_copy(update={"near_duplicates": False})))
    assert 0 < len(found) < len(without)
    crossing = {item.train_id for item in found}
    left = [pair for pair in train if pair[0] not in crossing]
    assert not find_crossing(held_out, left)
    assert not search_by_hand(held_out, left, 0.5, 0.8)
    assert search_by_hand(held_out, train, 0.5, 0.8)
