"""What a user can say to a build: columns, genres, metadata, limits, workers, cache, splits, tasks, tokens."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from preprocess.__main__ import app
from preprocess.check.verify import verify_dataset
from preprocess.choose.crossing import find_crossing
from preprocess.corpus import generate_songs, write_corpus
from preprocess.manifest import read_manifest
from preprocess.schema import Song
from preprocess.shards import open_split
from preprocess.tokenizer import load_tokenizer
from tests.toys import make_tokenizer


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(make_tokenizer().to_json(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    return list(generate_songs(1500, seed=5, length="short"))


@pytest.fixture(scope="module")
def genius(tmp_path_factory: pytest.TempPathFactory, songs: list[Song]) -> Path:
    path = tmp_path_factory.mktemp("songs") / "genius.csv"
    write_corpus(path, songs, "genius", len(songs))
    return path


def build(source: Path, output: Path, tokenizer: Path, *more: str | Path) -> Result:
    basic = ("--input", source, "--output", output, "--tokenizer", tokenizer)
    return run("build", *basic, "--set", "encode.seq_len=1024", *more)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_one_and_two_workers_and_a_cache_give_the_same_bytes(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    small = ("--set", "sample.songs_per_genre=30")
    cache = ("--cache", tmp_path / "cache")
    for name, more in (("one", ("--workers", "1")), ("two", ("--workers", "2", *cache)), ("cached", cache)):
        assert build(genius, tmp_path / name, tokenizer_file, *small, *more).exit_code == 0
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == digest(tmp_path / "cached")
    assert build(genius, tmp_path / "other", tokenizer_file, *small, "--set", "seed=1").exit_code == 0
    assert digest(tmp_path / "one") != digest(tmp_path / "other")


def test_a_cached_scan_is_used_for_another_sample_and_not_for_another_cleaning(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for name, setting in (("a", "seed=0"), ("b", "seed=1"), ("c", "clean.headings=drop")):
        more = ("--cache", cache, "--set", "sample.songs_per_genre=5", "--set", setting)
        assert build(genius, tmp_path / name, tokenizer_file, *more).exit_code == 0
    assert len(list(cache.iterdir())) == 2


def test_songs_of_unseen_artists_are_set_aside_and_not_asked_for_the_artist(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    # Many artists with few songs, as real collections have them.
    told = [{**_row(song), "artist": f"{song.artist} {int(song.id[-4:]) % 25}"} for song in songs]
    write_table(tmp_path / "songs.csv", told)
    more = ("--set", "sample.songs_per_genre=200", "--set", "sample.eval_unseen_fraction=0.1")
    result = build(tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, *more)
    assert result.exit_code == 0, result.output
    assert verify_dataset(tmp_path / "data").ok
    seen, unseen = (read_lines(tmp_path / "data" / f"{name}_songs.jsonl") for name in ("eval", "eval_unseen"))
    labels = json.loads((tmp_path / "data" / "labels.json").read_text(encoding="utf-8"))
    trained = labels["artist"]["train_counts"]
    assert len(seen) > 50
    assert len(unseen) > 50
    assert {song["artist"] for song in seen} <= trained.keys()
    assert not {song["artist"] for song in unseen} & trained.keys()
    manifest = read_manifest(tmp_path / "data")
    asked = manifest.splits["eval_unseen"].by_task
    assert asked.get("artist", {"examples": 0})["examples"] == 0
    assert asked["genre"]["examples"] > 50
    assert {song["id"] for song in unseen} <= labels["genre"]["truth"].keys()


def _row(song: Song) -> dict[str, object]:
    return {
        "id": song.id,
        "artist": song.artist,
        "genre": song.genre,
        "year": song.year,
        "lyrics": song.lyrics,
    }


def test_a_cover_of_a_held_out_song_is_not_trained_on(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    # Every song a second time by another artist, half a stanza longer: near-duplicates are not looked for.
    more = "\nAnd so we sing it once again tonight\nAnd nobody will ever turn out the light"
    covers = [
        {**_row(song), "id": f"c{song.id}", "artist": "Cover Band", "lyrics": song.lyrics + more}
        for song in songs[:300]
    ]
    write_table(tmp_path / "songs.csv", [*map(_row, songs[:300]), *covers])
    off = ("--set", "sample.near_duplicates=false", "--set", "sample.songs_per_artist=1000")
    assert build(tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, *off).exit_code == 0
    manifest = read_manifest(tmp_path / "data")
    assert manifest.extra["crossing_songs_left_out"] > 20
    assert verify_dataset(tmp_path / "data").ok
    held_out = [
        (str(song["id"]), str(song["lyrics"])) for song in read_lines(tmp_path / "data" / "eval_songs.jsonl")
    ]
    whole = {str(row["id"]): str(row["lyrics"]) for row in [*map(_row, songs[:300]), *covers]}
    trained = {song_id for row in open_split(tmp_path / "data", "train") for song_id in row.song_ids}
    assert find_crossing(held_out, ((song_id, whole[song_id]) for song_id in sorted(trained))) == []
    # The negative control: without that step the covers would be there.
    assert find_crossing(held_out, whole.items())


def test_columns_can_be_named_and_wrong_names_are_refused(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    rows = [{"words": song.lyrics, "by": song.artist, "kind": song.genre} for song in songs[:100]]
    write_table(tmp_path / "songs.csv", rows)
    unnamed = build(tmp_path / "songs.csv", tmp_path / "data", tokenizer_file)
    assert unnamed.exit_code == 4
    assert "words, by, kind" in unnamed.output
    wrong = build(tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, "--columns", "lyrics=word")
    assert wrong.exit_code in (2, 4)
    assert "words" in wrong.output
    named = build(
        tmp_path / "songs.csv",
        tmp_path / "data",
        tokenizer_file,
        "--columns",
        "lyrics=words,artist=by,genre=kind",
    )
    assert named.exit_code == 0, named.output
    labels = json.loads((tmp_path / "data" / "labels.json").read_text(encoding="utf-8"))
    assert labels["artist"]["train_counts"]
    assert labels["genre"]["train_counts"]


def test_rejected_rows_are_kept_with_their_reason_and_too_many_refuse_the_input(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    lines = [json.dumps(_row(song)) for song in songs[:97]]
    lines[10:10] = ['{"lyrics": ""}', "{broken", '{"lyrics": 5}']
    (tmp_path / "songs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    refused = build(tmp_path / "songs.jsonl", tmp_path / "data", tokenizer_file, "--max-bad-fraction", "0.02")
    assert refused.exit_code == 4
    assert "3 of 100 rows are no songs, 3.00%" in refused.output
    assert (
        build(
            tmp_path / "songs.jsonl", tmp_path / "data", tokenizer_file, "--max-bad-fraction", "0.03"
        ).exit_code
        == 0
    )
    rejected = read_lines(tmp_path / "data" / "rejected.jsonl")
    assert [row["line"] for row in rejected] == [11, 12, 13]
    assert all(row["reason"] for row in rejected)
    assert all(row["source"] == "songs.jsonl" for row in rejected)
    assert rejected[1]["row"] == "{broken"


def test_a_second_table_fills_in_what_the_two_columns_lack_and_its_disagreements_are_reported(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "songs.parquet", songs[:200], "hub", 200)
    facts = [
        {"lyrics": song.lyrics, "title": song.title, "year": song.year, "genre": song.genre}
        for song in songs[:200]
    ]
    for fact in facts[:40]:
        fact["genre"] = "Polka"
    write_table(tmp_path / "facts.csv", facts)
    without = build(tmp_path / "songs.parquet", tmp_path / "without", tokenizer_file)
    assert without.exit_code == 0, without.output
    assert read_manifest(tmp_path / "without").splits["train"].by_task["context"]["examples"] == 0
    filled = build(
        tmp_path / "songs.parquet", tmp_path / "filled", tokenizer_file, "--metadata", tmp_path / "facts.csv"
    )
    assert filled.exit_code == 0, filled.output
    split = read_manifest(tmp_path / "filled").splits["train"]
    assert split.by_task["context"]["examples"] == split.num_songs
    assert "title of 200, year of 200" in filled.output
    assert read_manifest(tmp_path / "filled").extra["filled_from_metadata"] == {"title": 200, "year": 200}
    quality = json.loads((tmp_path / "filled" / "quality.json").read_text(encoding="utf-8"))["quality"]
    assert quality["metadata_disagreements"]["genre"] == 40
    assert "Polka" not in quality["genres"]


def test_spellings_of_genres_can_be_added(songs: list[Song], tokenizer_file: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "songs.csv", [{**_row(song), "genre": "bachata moderna"} for song in songs[:60]])
    (tmp_path / "genres.yaml").write_text("bachata moderna: Latin\n", encoding="utf-8")
    built = build(
        tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, "--genres", tmp_path / "genres.yaml"
    )
    assert built.exit_code == 0, built.output
    labels = json.loads((tmp_path / "data" / "labels.json").read_text(encoding="utf-8"))
    assert list(labels["genre"]["train_counts"]) == ["Latin"]


TITLE_TASK = """
from preprocess.tasks.task import Answer, Draw, Facts, Task


def answer(facts: Facts, draw: Draw) -> Answer | None:
    title = facts.song.title
    return None if title is None else Answer(f"The title is {title}.", label=title)


TASK = Task("title", ("What is this song called?",), "The title is ", answer)
"""


def test_a_users_task_and_lyrics_in_a_style_are_made_when_asked_for(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "title_task.py").write_text(TITLE_TASK, encoding="utf-8")
    tasks = (
        "--set",
        f"task_files=[{tmp_path / 'title_task.py'}]",
        "--set",
        "tasks=[artist, title, generation]",
    )
    built = build(genius, tmp_path / "data", tokenizer_file, *tasks, "--set", "sample.songs_per_genre=10")
    assert built.exit_code == 0, built.output
    assert verify_dataset(tmp_path / "data").ok
    split = read_manifest(tmp_path / "data").splits["train"]
    assert split.by_task["title"]["examples"] > 50
    assert split.by_task["generation"]["examples"] == split.num_songs
    shown = run("inspect", tmp_path / "data", "--task", "generation", "--limit", "1")
    assert "without lyrics" in shown.output


def test_music_tokens_become_ids_of_their_own(genius: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    tokens = ("--set", "encode.music_tokens=true", "--set", "sample.songs_per_genre=10")
    refused = build(genius, tmp_path / "data", tokenizer_file, *tokens)
    assert refused.exit_code == 2
    assert "clean.headings" in refused.output
    built = build(genius, tmp_path / "data", tokenizer_file, *tokens, "--set", "clean.headings=tags")
    assert built.exit_code == 0, built.output
    assert verify_dataset(tmp_path / "data").ok
    manifest, plain = read_manifest(tmp_path / "data"), load_tokenizer(tokenizer_file)
    assert manifest.vocab_size == plain.vocab_size + 7
    ids = {id_ for row in open_split(tmp_path / "data", "train") for id_ in row.input_ids.tolist()}
    assert {
        load_tokenizer(tmp_path / "data" / "tokenizer").special_id(tag) for tag in ("[VERSE]", "[CHORUS]")
    } <= ids


POEM = (
    "東風夜放花千樹\uff0c更吹落\uff0c星如雨。\n"
    "寶馬雕車香滿路\uff0c鳳簫聲動\uff0c玉壺光轉\uff0c一夜魚龍舞。\n\n"
    "蛾兒雪柳黃金縷\uff0c笑語盈盈暗香去。\n"
    "眾裏尋他千百度\uff0c驀然回首\uff0c那人卻在\uff0c燈火闌珊處。"
)


def test_chinese_songs_are_kept_whole(tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [
        {
            "author": f"詞人{name}",
            "rhythmic": "青玉案",
            "paragraphs": [*POEM.split("\n"), f"{name}首歌唱春風"],
        }
        for name in "甲乙丙"
    ]
    (tmp_path / "ci.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    off = ("--set", "sample.near_duplicates=false", "--set", "sample.eval_fraction=0")
    built = build(tmp_path / "ci.json", tmp_path / "data", tokenizer_file, *off)
    assert built.exit_code == 0, built.output
    manifest = read_manifest(tmp_path / "data")
    assert manifest.splits["train"].num_songs == 3
    tokenizer = load_tokenizer(tmp_path / "data" / "tokenizer")
    text = "".join(tokenizer.decode(row.input_ids.tolist()) for row in open_split(tmp_path / "data", "train"))
    assert POEM in text
    quality = json.loads((tmp_path / "data" / "quality.json").read_text(encoding="utf-8"))["quality"]
    assert quality["languages"] == {"zh": 3}


def test_the_quality_command_writes_its_page(genius: Path, tmp_path: Path) -> None:
    result = run("quality", "--input", genius, "--html", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["num_songs"] + sum(report["dropped"].values()) == 1500
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "genius.csv" in page


def test_songs_that_are_alike_only_when_they_are_cut_do_not_cross(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    # Pairs that share their beginning and part ways after it: only what fits the row is the same.
    pairs = [
        {**_row(one), "id": f"{place}-{half}", "lyrics": f"{one.lyrics}\n\n{other.lyrics}\n\n{third.lyrics}"}
        for place in range(60)
        for half, one, other, third in (
            (0, songs[place], songs[100 + place], songs[200 + place]),
            (1, songs[place], songs[300 + place], songs[400 + place]),
        )
    ]
    write_table(tmp_path / "songs.csv", pairs)
    cut = ("--set", "encode.max_lyrics_tokens=60", "--set", "sample.near_duplicates=false")
    built = build(
        tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, *cut, "--set", "sample.eval_fraction=0.2"
    )
    assert built.exit_code == 0, built.output
    assert read_manifest(tmp_path / "data").extra["crossing_songs_left_out"] > 5
    assert verify_dataset(tmp_path / "data").ok


def test_what_leaves_nothing_to_train_on_is_told_and_nothing_is_written(
    songs: list[Song], tokenizer_file: Path, tmp_path: Path
) -> None:
    write_table(tmp_path / "songs.csv", [{"lyrics": song.lyrics} for song in songs[:40]])
    no_task = build(tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, "--set", "tasks=[artist]")
    assert no_task.exit_code == 4
    assert "no training example is left" in no_task.output
    no_song = build(
        tmp_path / "songs.csv", tmp_path / "data", tokenizer_file, "--set", "clean.min_chars=4999"
    )
    assert no_song.exit_code == 4
    assert "cleaning dropped every song: too short (40)" in no_song.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [("return 1 / 0", "ZeroDivisionError"), ("return 'a text'", "gave str")],
)
def test_a_users_task_that_fails_is_named(
    genius: Path, tokenizer_file: Path, tmp_path: Path, body: str, told: str
) -> None:
    path = tmp_path / "mine.py"
    head = "from preprocess.tasks.task import Task\n\n\ndef answer(facts, draw):\n    "
    path.write_text(f"{head}{body}\n\n\nTASK = Task('mine', ('What?',), '', answer)\n", encoding="utf-8")
    # Named by its file alone, it is asked beside the others.
    more = ("--set", f"task_files=[{path}]", "--set", "sample.songs_per_genre=5")
    failed = build(genius, tmp_path / "data", tokenizer_file, *more)
    assert failed.exit_code == 2
    assert "task 'mine'" in failed.output
    assert told in failed.output


def test_folders_that_hold_one_another_are_refused(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    inside = build(genius.parent, genius.parent / "data", tokenizer_file)
    cache = build(genius, tmp_path / "data", tokenizer_file, "--cache", tmp_path / "data" / "cache")
    root = build(genius, Path("/"), tokenizer_file)
    for result, words in ((inside, "lies in --input"), (cache, "--cache"), (root, "--output /")):
        assert result.exit_code == 2, result.output
        assert words in result.output


def test_a_folder_of_the_users_beside_the_output_is_not_touched(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    small = ("--set", "sample.songs_per_genre=5")
    assert build(genius, tmp_path / "data", tokenizer_file, *small).exit_code == 0
    shutil.copytree(tmp_path / "data", tmp_path / "data.old")
    before = digest(tmp_path / "data.old")
    for more in ((), ("--overwrite",)):
        assert build(genius, tmp_path / "data", tokenizer_file, *small, *more).exit_code == 0
        assert digest(tmp_path / "data.old") == before


def test_a_damaged_data_set_is_shown_as_a_table_and_as_json(
    genius: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    assert (
        build(genius, tmp_path / "data", tokenizer_file, "--set", "sample.songs_per_genre=5").exit_code == 0
    )
    (tmp_path / "data" / "labels.json").write_text("{}", encoding="utf-8")
    shown, told = run("verify", tmp_path / "data"), run("verify", tmp_path / "data", "--json")
    assert (shown.exit_code, told.exit_code) == (4, 4)
    assert "files" in shown.output
    assert json.loads(told.stdout)["checks"]["files"]["found"] == 1
