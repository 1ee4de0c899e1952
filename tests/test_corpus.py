"""The made-up corpus: the same bytes for the same seed, true to its truth, and each artist recognizable."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocess.corpus import ARTISTS, THEMES, generate_songs, write_corpus
from preprocess.corpus.grammar import add_article, compile_line, conjugate, find_stems, split_line
from preprocess.corpus.material import find_families, load_eras
from preprocess.corpus.output import ROWS_PER_BATCH, Shape
from preprocess.corpus.palette import build_palette
from preprocess.corpus.songwriter import count_couplets, list_orders
from preprocess.errors import ConfigError, DataError
from preprocess.schema import GENRES, Song

HEADER = re.compile(r"^\[.*\]$")
LEXICON: dict[str, tuple[str, ...]] = {
    "PLACE": ("the pier", "the quay"),
    "THING": ("oar", "lamp"),
    "THINGS": ("gulls", "oars"),
    "SKY": ("the wind",),
    "ADJ": ("grey",),
}


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    return list(generate_songs(3000, seed=5))


def list_lines(song: Song) -> list[str]:
    """Sung lines: no headers, no blank lines."""
    return [line for line in song.lyrics.split("\n") if line and not HEADER.match(line)]


def count_words(song: Song) -> Counter[str]:
    return Counter(re.findall(r"[a-z']+", " ".join(list_lines(song)).lower()))


def measure_accuracy(songs: list[Song], labels: list[str], num_train: int) -> float:
    """Accuracy of multinomial naive Bayes on the songs after the first `num_train`."""
    bags = [count_words(song) for song in songs]
    columns = {word: i for i, word in enumerate(sorted(set().union(*bags)))}
    counts = np.zeros((len(songs), len(columns)), dtype=np.float32)
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            counts[row, columns[word]] = count
    names = sorted(set(labels))
    truth = np.array([names.index(label) for label in labels])
    sums = np.stack([counts[:num_train][truth[:num_train] == k].sum(axis=0) for k in range(len(names))]) + 0.1
    guesses = (counts[num_train:] @ np.log(sums / sums.sum(axis=1, keepdims=True)).T).argmax(axis=1)
    return float((guesses == truth[num_train:]).mean())


# ---------------------------------------------------------------- the grammar


def test_a_template_agrees_with_each_person() -> None:
    def render(template: str, person: str, other: str) -> str:
        return compile_line(template, person, other, LEXICON).text  # type: ignore[arg-type]

    template = "{I} {carry} {my} {heart^} to {thee} and {I'm} {thy} own"
    assert render(template, "I", "you") == "I carry my heart to you and I'm your own"
    assert render(template, "she", "he") == "she carries her heart to him and she's his own"
    assert render(template, "we", "you") == "we carry our hearts to you and we're your own"
    assert render(template, "you", "she") == "you carry your heart to her and you're her own"


def test_verbs_take_the_ending_of_the_third_person() -> None:
    verbs = {
        "walk": "walks",
        "carry": "carries",
        "play": "plays",
        "watch": "watches",
        "go": "goes",
        "have": "has",
    }
    assert {verb: conjugate(verb, "he") for verb in verbs} == verbs
    assert {conjugate(verb, "we") for verb in verbs} == set(verbs)


def test_an_article_follows_the_sound() -> None:
    assert [add_article(noun) for noun in ("oar", "lamp", "hour", "union card")] == [
        "an oar",
        "a lamp",
        "an hour",
        "a union card",
    ]


def test_a_filling_that_repeats_a_word_of_the_line_is_left_out() -> None:
    lexicon = LEXICON | {"THING": ("gull feather", "lamp", "rope")}
    assert compile_line("{A:THING} among the gulls", "I", "you", lexicon).pools == (("a lamp", "a rope"),)
    assert len(compile_line("{A:THING} among the rocks", "I", "you", lexicon).pools[0]) == 3


def test_a_short_line_is_not_split_and_a_long_one_is_split_at_its_comma() -> None:
    assert split_line("deep in the night") == ["deep in the night"]
    assert split_line("the map is folded, the ticket is torn") == ["the map is folded", "the ticket is torn"]


@pytest.mark.parametrize("num_items", [1, 2, 6, 7, 13])
def test_an_order_visits_every_item_once(num_items: int) -> None:
    assert all(sorted(order) == list(range(num_items)) for order in list_orders(num_items))


# ---------------------------------------------------------------- the material


def test_there_are_six_artists_in_each_genre_with_names_that_share_no_first_word() -> None:
    assert Counter(artist.genre for artist in ARTISTS) == dict.fromkeys(GENRES, 6)
    assert len({artist.name.split()[0] for artist in ARTISTS}) == len(ARTISTS) == 42
    assert all(1 <= len(artist.name.split()) <= 3 for artist in ARTISTS)


def test_every_artist_has_enough_words_and_known_themes() -> None:
    for artist in ARTISTS:
        assert set(artist.themes) <= set(THEMES), artist.name
        assert all(len(words) >= 5 for words in artist.lexicon.values()), artist.name
        assert len(artist.couplets) * 2 >= 12, artist.name
        assert len(artist.hooks) == 4, artist.name
        assert len(build_palette(artist.name).genre) * 2 >= 25, artist.genre


def test_every_couplet_rhymes_on_two_different_words() -> None:
    for artist in ARTISTS:
        palette = build_palette(artist.name)
        groups = [palette.own, palette.genre, *palette.themes.values(), *palette.eras.values()]
        for couplet in (couplet for group in groups for couplet in group):
            ends = couplet.first[-1].end, couplet.second[-1].end
            assert couplet.families, f"{artist.name}: {ends} do not rhyme"
            assert ends[0] != ends[1], f"{artist.name}: {ends}"


def test_words_of_different_sound_do_not_rhyme() -> None:
    assert find_families("night") & find_families("light")
    assert not find_families("night") & find_families("door")


def test_an_artist_has_material_for_every_verse() -> None:
    for artist in ARTISTS:
        assert count_couplets(artist, artist.form) <= len(artist.couplets) + 13, artist.name


def test_decades_and_themes_have_their_lines() -> None:
    assert list(load_eras()) == [f"{year}s" for year in range(1950, 2030, 10)]
    assert len(THEMES) == 16
    assert set().union(*(artist.decades for artist in ARTISTS)) == set(load_eras())


def test_the_first_two_artists_of_a_genre_span_all_decades() -> None:
    first = [artist for i, artist in enumerate(ARTISTS) if i % 6 < 2]
    assert set().union(*(artist.decades for artist in first)) == set(load_eras())


# ---------------------------------------------------------------- determinism


def test_the_same_seed_gives_the_same_songs_and_another_seed_others() -> None:
    first = list(generate_songs(50, seed=1))
    assert first == list(generate_songs(50, seed=1))
    other = list(generate_songs(50, seed=2))
    assert sum(a.lyrics == b.lyrics for a, b in zip(first, other, strict=True)) == 0


def test_a_song_does_not_depend_on_how_many_are_asked_for() -> None:
    assert list(generate_songs(20, seed=3)) == list(islice(generate_songs(5_000_000, seed=3), 20))


def test_songs_do_not_depend_on_the_hash_seed_or_the_locale(tmp_path: Path) -> None:
    code = "import sys; from preprocess.corpus import *; write_corpus(sys.argv[1], generate_songs(40, 0), 'genius', 40)"
    written = []
    for hash_seed, locale in (("1", "C"), ("2", "C.UTF-8")):
        path = tmp_path / f"{hash_seed}.csv"
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": locale, "TZ": f"UTC{hash_seed}"}
        root = Path(__file__).parents[1]
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment, cwd=root)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_generation_is_lazy_and_writing_holds_one_batch_at_a_time(tmp_path: Path) -> None:
    alive, most = Counter[str](), 0

    def count_reads() -> Iterator[Song]:
        nonlocal most
        path = tmp_path / "songs.jsonl"
        for i, song in enumerate(
            generate_songs(2 * ROWS_PER_BATCH + 1, 0, length="short", artists_per_genre=1)
        ):
            if i == 2 * ROWS_PER_BATCH:
                # By now the first batches must be in the partial file, not in a list.
                alive["written"] = sum(p.stat().st_size for p in tmp_path.iterdir())
                assert not path.exists()
            yield song

    assert iter(generate_songs(5_000_000, 0)).__next__().id == "made-000000"
    num_songs = write_corpus(tmp_path / "songs.jsonl", count_reads(), "jsonl", 2 * ROWS_PER_BATCH + 1)
    assert num_songs == 2 * ROWS_PER_BATCH + 1
    assert alive["written"] > ROWS_PER_BATCH * 100


# ---------------------------------------------------------------- the truth


def test_artists_are_recognizable_by_their_words_and_shuffled_labels_are_not(songs: list[Song]) -> None:
    labels = [str(song.artist) for song in songs]
    num_train = 30 * len(ARTISTS)
    assert measure_accuracy(songs, labels, num_train) > 0.9
    shuffled = list(np.random.default_rng(0).permutation(labels))
    assert measure_accuracy(songs, shuffled, num_train) < 0.08


def test_genres_decades_and_themes_are_recognizable_too(songs: list[Song]) -> None:
    for labels, floor in (
        ([str(song.genre) for song in songs], 0.85),
        ([str(song.decade) for song in songs], 0.5),
        ([song.themes[0] for song in songs], 0.6),
    ):
        assert measure_accuracy(songs, labels, 2000) > floor


def test_artists_of_one_genre_differ_in_length_person_and_rhyme() -> None:
    for genre in GENRES:
        members = [artist for artist in ARTISTS if artist.genre == genre]
        assert len({artist.person for artist in members}) >= 4, genre
        assert len({artist.scheme for artist in members}) >= 2, genre
        assert len({(artist.form, artist.chorus) for artist in members}) == 6, genre


def test_every_fact_of_a_song_fits_its_artist(songs: list[Song]) -> None:
    by_name = {artist.name: artist for artist in ARTISTS}
    for song in songs:
        artist = by_name[str(song.artist)]
        assert song.genre == artist.genre
        assert song.decade in artist.decades
        assert (song.album, song.year) in [(album.title, album.year) for album in artist.albums]
        assert 1 <= len(set(song.themes)) == len(song.themes) <= 3


def test_all_artists_themes_and_decades_occur(songs: list[Song]) -> None:
    assert {song.artist for song in songs} == {artist.name for artist in ARTISTS}
    assert {theme for song in songs for theme in song.themes} == set(THEMES)
    assert {song.decade for song in songs} == set(load_eras())


def test_lines_of_one_decade_occur_in_that_decade_only(songs: list[Song]) -> None:
    for word, decades in (("jukebox was", {"1950s"}), ("dial-up", {"1990s"}), ("livestream", {"2020s"})):
        assert {song.decade for song in songs if word in song.lyrics.lower()} == decades


FIRST_YEARS = {
    "sputnik": 1957,
    "mini-skirts": 1965,
    "love beads": 1967,
    "love-in": 1967,
    "man on the moon": 1969,
    "lunar module": 1969,
    "cb radio": 1975,
    "disco ball turned": 1975,
    "dial-up": 1995,
    "profile page": 2005,
    "selfie at": 2013,
    "app-rented": 2017,
}


def test_no_song_sings_of_what_came_after_its_year() -> None:
    many = list(generate_songs(12000, seed=5, length="short"))
    first = {
        thing: min(song.year or 0 for song in many if thing in song.lyrics.lower()) for thing in FIRST_YEARS
    }
    assert {thing for thing, year in first.items() if year < FIRST_YEARS[thing]} == set()
    years = {song.year for song in many}
    # There are songs of the years before, that could have sung it.
    assert all(
        any(year and year // 10 * 10 == limit // 10 * 10 and year < limit for year in years)
        for limit in FIRST_YEARS.values()
    )


def test_every_year_of_a_decade_has_couplets_to_sing() -> None:
    for decade, era in load_eras().items():
        assert sum(year == int(decade[:4]) for year in era.first_years) >= 2, decade
        assert all(f"{year // 10 * 10}s" == decade for year in era.first_years)


def test_a_title_comes_from_the_words_of_the_song(songs: list[Song]) -> None:
    assert all(str(song.title).lower() in song.lyrics.lower() for song in songs)


# ---------------------------------------------------------------- the words


def test_no_artist_is_named_in_the_lyrics_outside_headers(songs: list[Song]) -> None:
    names = [artist.name.lower() for artist in ARTISTS]
    for song in songs:
        text = "\n".join(list_lines(song)).lower()
        assert not [name for name in names if name in text]
    assert any(str(song.artist) in song.lyrics for song in songs)  # else the check above could not fail


def test_headers_come_with_a_name_bare_and_not_at_all(songs: list[Song]) -> None:
    named = sum(f": {song.artist}]" in song.lyrics for song in songs)
    bare = sum("[" in song.lyrics and ": " not in song.lyrics for song in songs)
    none = sum("[" not in song.lyrics for song in songs)
    assert named + bare + none == len(songs)
    assert min(named, bare, none) > 0.15 * len(songs)


def test_no_mark_is_left_and_articles_and_words_are_right(songs: list[Song]) -> None:
    wrong_article = re.compile(r"\b(a [aeio]|an [^aeiouh])", re.IGNORECASE)
    for song in songs:
        assert not re.search(r"[{}@%^]|  ", song.lyrics), song.lyrics
        for line in list_lines(song):
            assert not wrong_article.search(line.replace("a one", "")), line
            words = re.findall(r"[a-z']+", line.lower())
            doubled = {a for a, b in pairwise(words) if a == b}
            assert not doubled & {"a", "an", "the", "and", "of", "to", "i", "my", "is", "with"}, line
            assert line[0].isupper() or line[0] in "('", line


def test_the_articles_check_sees_a_wrong_article() -> None:
    assert re.search(r"\b(a [aeio]|an [^aeiouh])", "with a umbrella or an lamp and a oar")


def test_a_noun_of_a_slot_does_not_come_twice_in_a_line(songs: list[Song]) -> None:
    fillings = {word for artist in ARTISTS for kind in ("THING", "THINGS") for word in artist.lexicon[kind]}
    for song in songs[:800]:
        for line in list_lines(song):
            first = line.split(",")[0]  # a hook says its phrase twice, on both sides of its comma
            words = [
                w.rstrip("s") for w in re.findall(r"[a-z]+", first.lower()) if len(w) > 4 and w in fillings
            ]
            assert len(words) == len(set(words)), line


def test_no_line_comes_twice_within_a_verse(songs: list[Song]) -> None:
    for song in songs:
        for block in song.lyrics.split("\n\n"):
            if block.startswith("[Verse"):
                lines = [re.sub(r" \(.*\)$", "", line) for line in block.split("\n")[1:]]
                assert len(lines) == len(set(lines)), block


def test_the_chorus_repeats(songs: list[Song]) -> None:
    by_name = {artist.name: artist for artist in ARTISTS}
    for song in songs:
        form = by_name[str(song.artist)].form
        blocks = [re.sub(r"^\[.*\]\n", "", block) for block in song.lyrics.split("\n\n")]
        assert len(blocks) == len(form)
        choruses = [block for block, section in zip(blocks, form, strict=True) if section == "C"]
        verses = [block for block, section in zip(blocks, form, strict=True) if section[0] == "V"]
        assert len(set(choruses)) == 1
        assert len(set(verses)) == len(verses)


def test_short_songs_are_short_and_full_songs_typical(songs: list[Song]) -> None:
    short = [sum(count_words(song).values()) for song in generate_songs(1000, 0, length="short")]
    full = [sum(count_words(song).values()) for song in songs]
    assert 40 <= np.percentile(short, 10) < np.percentile(short, 75) <= 76
    assert 90 <= np.percentile(full, 5) < np.percentile(full, 75) <= 165
    assert max(full) <= 240


# ---------------------------------------------------------------- the files


def read_rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("shape", ["genius", "hub", "jsonl"])
def test_every_shape_is_read_back_from_every_format(tmp_path: Path, shape: Shape, ending: str) -> None:
    made = list(generate_songs(60, seed=9))
    path = tmp_path / f"songs{ending}"
    assert write_corpus(path, made, shape, 60) == 60
    rows = read_rows(path)
    assert [row["Label" if shape == "hub" else "lyrics"] for row in rows] == [song.lyrics for song in made]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_genius_shape_has_its_eleven_columns_and_features(tmp_path: Path) -> None:
    write_corpus(tmp_path / "g.parquet", generate_songs(600, seed=0), "genius", 600)
    table = pq.read_table(tmp_path / "g.parquet")
    assert table.column_names == (
        "title tag artist year views features lyrics id language_cld3 language_ft language".split()  # noqa: SIM905
    )
    tags = {"rap", "rock", "pop", "country", "rb", "electronic", "folk"}
    assert set(table["tag"].to_pylist()) == tags
    guests = {features for features in table["features"].to_pylist() if features != "{}"}
    assert guests
    assert all(re.fullmatch(r'\{("[^"]+"|\w+)\}', features) for features in guests)


def test_the_hub_shape_names_artist_and_genre_with_and_without_a_dot(tmp_path: Path) -> None:
    write_corpus(tmp_path / "h.jsonl", generate_songs(50, seed=0), "hub", 50)
    texts = [str(row["Instruction"]) for row in read_rows(tmp_path / "h.jsonl")]
    song = next(generate_songs(1, seed=0))
    assert texts[0].startswith(
        f"Generate a song verse in the style of {str(song.artist).lower()} in the genre of "
    )
    assert {text.endswith(".") for text in texts} == {True, False}


def test_the_truth_shape_holds_the_whole_song(tmp_path: Path) -> None:
    made = list(generate_songs(20, seed=4))
    write_corpus(tmp_path / "t.jsonl", made, "jsonl", 20)
    rows = read_rows(tmp_path / "t.jsonl")
    back = [Song(**{**row, "themes": tuple(row["themes"])}) for row in rows]  # type: ignore[arg-type]
    assert back == made


@pytest.mark.parametrize(("name", "shape"), [("s.txt", "hub"), ("no/s.csv", "hub"), ("s.csv", "other")])
def test_a_target_that_cannot_be_is_refused_before_any_song_is_made(
    tmp_path: Path, name: str, shape: str
) -> None:
    def fail() -> Iterator[Song]:
        pytest.fail("a song was read")
        yield  # type: ignore[unreachable]

    with pytest.raises(ConfigError):
        write_corpus(tmp_path / name, fail(), shape, 1)  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")

    def break_off() -> Iterator[Song]:
        yield from generate_songs(3, 0)
        raise OSError(5, "Input/output error")

    with pytest.raises(DataError, match="Input/output"):
        write_corpus(path, break_off(), "hub", 9)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]


@pytest.mark.parametrize("arguments", [{"num_songs": -1}, {"artists_per_genre": 7}, {"length": "long"}])
def test_arguments_out_of_range_are_refused_at_the_call(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        generate_songs(**{"num_songs": 1, "seed": 0, **arguments})  # type: ignore[arg-type]


def test_artists_per_genre_takes_the_first_of_each() -> None:
    names = {song.artist for song in generate_songs(400, 0, artists_per_genre=2)}
    assert names == {artist.name for i, artist in enumerate(ARTISTS) if i % 6 < 2}


def test_stems_ignore_small_words_and_a_plural() -> None:
    assert find_stems("the old lanterns") & find_stems("a lantern")
    assert not find_stems("the old oak") & find_stems("the sea")
