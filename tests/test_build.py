"""`python -m preprocess` as a user runs it: from songs to a data set, with real songs, and with wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from typer.testing import CliRunner, Result

from preprocess.__main__ import app
from preprocess.check.verify import verify_dataset
from preprocess.errors import DataError
from preprocess.manifest import named_files, read_manifest
from preprocess.prompt import find_format
from preprocess.shards import open_split
from preprocess.tokenizer import load_tokenizer
from tests.toys import make_tokenizer

OLD_HYMN = """\
[Verse 1]
O God our help in ages past
Our hope for years to come
Our shelter from the stormy blast
And our eternal home

[Verse 2]
Under the shadow of thy throne"""
NEW_HYMN = """\
[Verse 1: A Singer]
The morning bells are ringing clear
Across the fields of snow and light
And all the world that wakes to hear
Forgets the sorrow of the night"""
HYMNS = (
    {
        "title": "A",
        "artist": "Watts, Isaac (1674-1748)",
        "year": 1719,
        "tag": "hymn",
        "topics": ["Hope"],
        "lyrics": OLD_HYMN,
    },
    {"title": "B", "artist": "unknown", "year": "1800", "tag": "hymn", "topics": [], "lyrics": NEW_HYMN},
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "songs.jsonl"
    assert run("corpus", "--songs", "120", "--output", path, "--artists-per-genre", "2").exit_code == 0
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, songs: Path, tokenizer_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("built") / "data"
    result = run(
        "build", "--input", songs, "--output", folder, "--tokenizer", tokenizer_dir, "--set", "seed=3"
    )
    assert result.exit_code == 0, result.output
    return folder


def test_a_built_data_set_passes_its_own_verification_and_opens_with_datasets(dataset: Path) -> None:
    assert verify_dataset(dataset).ok
    opened = load_from_disk(str(dataset))
    manifest = read_manifest(dataset)
    for split, info in manifest.splits.items():
        assert len(opened[split]) == info.num_rows
        first = opened[split][0]
        row = open_split(dataset, split)[0]
        assert first["input_ids"] == row.input_ids.tolist()
        assert first["label_mask"] == row.label_mask.tolist()
    assert row.input_ids.dtype == np.int32


def test_every_answer_is_whole_and_ends_in_the_token_on_which_generation_stops(dataset: Path) -> None:
    manifest, tokenizer = read_manifest(dataset), load_tokenizer(dataset / "tokenizer")
    stop = tokenizer.special_id(find_format(tokenizer).stop_token)
    assert stop == manifest.stop_token_id
    for row in open_split(dataset, "train"):
        ends = np.cumsum(row.seq_lens) - 1
        for end, task in zip(ends.tolist(), row.tasks.tolist(), strict=True):
            assert bool(row.label_mask[end]) == (task >= 0)
            assert task < 0 or row.input_ids[end] == stop


def songs_of(dataset: Path, split: str) -> set[str]:
    return {song for row in open_split(dataset, split) for song in row.song_ids}


def test_no_song_is_in_both_splits_and_the_truth_of_eval_songs_is_written(dataset: Path) -> None:
    train, held_out = songs_of(dataset, "train"), songs_of(dataset, "eval")
    assert not train & held_out
    labels = json.loads((dataset / "labels.json").read_text())
    assert set(labels["artist"]["truth"]) == held_out
    assert set(labels["artist"]["truth"].values()) <= set(labels["artist"]["train_counts"])
    songs = [json.loads(line) for line in (dataset / "eval_songs.jsonl").read_text().splitlines()]
    assert {song["id"] for song in songs} == held_out


def test_the_shared_prefix_never_holds_what_a_branch_asks_for(dataset: Path) -> None:
    tokenizer = load_tokenizer(dataset / "tokenizer")
    labels = json.loads((dataset / "labels.json").read_text())["artist"]["train_counts"]
    for row in open_split(dataset, "train"):
        prefix = tokenizer.decode(row.input_ids[: row.seq_lens[0]].tolist()).casefold()
        assert not [name for name in labels if name.casefold() in prefix]


def test_the_same_input_gives_the_same_bytes(
    dataset: Path, songs: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    result = run(
        "build", "--input", songs, "--output", again, "--tokenizer", tokenizer_dir, "--set", "seed=3"
    )
    assert result.exit_code == 0
    names = sorted(path.relative_to(dataset) for path in dataset.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in names:
        assert (dataset / name).read_bytes() == (again / name).read_bytes(), name


def test_hymns_lose_no_line_and_get_no_question_whose_answer_is_not_known(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    path = tmp_path / "hymns.jsonl"
    path.write_text("".join(json.dumps(song) + "\n" for song in HYMNS))
    result = run(
        "build", "--input", path, "--output", tmp_path / "data", "--tokenizer", tokenizer_dir, "--json"
    )
    assert result.exit_code == 0, result.output
    row = open_split(tmp_path / "data", "train")[0]
    tasks = read_manifest(tmp_path / "data").tasks
    asked: dict[str, set[str]] = {song: set() for song in row.song_ids}
    for task, song in zip(row.tasks.tolist(), row.song_ids, strict=True):
        if task >= 0:
            asked[song].add(tasks[task])
    assert sorted("artist" in names for names in asked.values()) == [False, True]
    text = load_tokenizer(tokenizer_dir).decode(row.input_ids.tolist())
    assert "O God our help in ages past\nOur hope for years to come" in text
    assert "A Singer" not in text


def test_lyrics_that_do_not_fit_are_cut_at_a_line_end_and_answers_count_what_is_left(
    songs: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    overrides = ["--set", "encode.max_lyrics_tokens=80", "--set", "tasks=[artist, genre]"]
    result = run("build", "--input", songs, "--output", folder, "--tokenizer", tokenizer_dir, *overrides)
    assert result.exit_code == 0, result.output
    encode = read_manifest(folder).extra["encoding"]
    assert encode["songs_cut"] > 50
    whole = {song["id"]: song["lyrics"] for song in map(json.loads, songs.read_text().splitlines())}
    for line in (folder / "eval_songs.jsonl").read_text().splitlines():
        song = json.loads(line)
        assert len(song["lyrics"]) < len(whole[song["id"]])
        assert song["lyrics"].splitlines()[-1] in whole[song["id"]].splitlines()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 4, ["no such file"]),
        (b"", 4, ["no rows"]),
        (b'{"name": "x", "value": 3}\n', 4, ["name", "lyrics"]),
        (b'{"lyrics": ""}\n{"lyrics": 5}\n', 4, ["song"]),
        (b"\xff\xfe\x00not json", 4, ["song"]),
    ],
)
def test_input_that_is_no_song_gives_one_clear_line(
    tmp_path: Path, tokenizer_dir: Path, content: bytes | None, code: int, words: list[str]
) -> None:
    path = tmp_path / "songs.jsonl"
    if content is not None:
        path.write_bytes(content)
    result = run("build", "--input", path, "--output", tmp_path / "out", "--tokenizer", tokenizer_dir)
    assert result.exit_code == code, result.output
    assert all(word in result.output.lower() for word in words), result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["encode.seq_len=48"], 2, ["seq_len 48 is shorter than any prompt", "encode.seq_len to"]),
        (["encode.seqlen=48"], 2, ["encode.seqlen", "seq_len"]),
        (["tasks=[artist, poetry]"], 2, ["poetry", "artist, genre"]),
        (["sample.genres=[Polka]"], 2, ["no song has the genre 'Polka'", "Genres found: ", "Hip-Hop"]),
        (["sample.eval_songs=120"], 2, ["evaluation songs of 120 songs"]),
    ],
)
def test_wrong_settings_give_one_clear_line(
    songs: Path, tokenizer_dir: Path, tmp_path: Path, overrides: list[str], code: int, words: list[str]
) -> None:
    arguments = [argument for override in overrides for argument in ("--set", override)]
    result = run(
        "build", "--input", songs, "--output", tmp_path / "out", "--tokenizer", tokenizer_dir, *arguments
    )
    assert result.exit_code == code, result.output
    assert all(word in result.output for word in words), result.output


def test_an_unknown_tokenizer_is_refused(songs: Path, tmp_path: Path) -> None:
    for source, word in (
        ("/no/such/folder", "no such file"),
        ("package:no_such_package", "no Python package"),
    ):
        result = run("build", "--input", songs, "--output", tmp_path / "out", "--tokenizer", source)
        assert result.exit_code == 2
        assert word in result.output


def test_a_data_set_is_replaced_only_when_asked(songs: Path, tokenizer_dir: Path, dataset: Path) -> None:
    before = (dataset / "manifest.json").read_bytes()
    arguments: list[str | Path] = [
        "build",
        "--input",
        songs,
        "--output",
        dataset,
        "--tokenizer",
        tokenizer_dir,
        "--set",
        "seed=3",
    ]
    refused = run(*arguments[:-1], "seed=4")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert (dataset / "manifest.json").read_bytes() == before
    there = run(*arguments)
    assert there.exit_code == 0
    assert "there already: nothing to do" in there.output
    assert run(*arguments, "--overwrite").exit_code == 0
    assert (dataset / "manifest.json").read_bytes() == before


def test_the_quality_report_counts_what_is_there(songs: Path) -> None:
    result = run("quality", "--input", songs, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["num_songs"] == 120
    assert sum(report["genres"].values()) == 120
    tables = run("quality", "--input", songs).output
    assert "120" in tables
    assert "genre" in tables


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def place(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the data set, alone in its parent folder."""
    return Path(shutil.copytree(dataset, tmp_path / "place" / "data"))


@pytest.fixture
def hymns(tmp_path: Path) -> Path:
    path = tmp_path / "hymns.jsonl"
    path.write_text("".join(json.dumps(song) + "\n" for song in HYMNS))
    return path


def test_an_overwrite_that_fails_leaves_the_old_data_set_whole(
    place: Path, songs: Path, tokenizer_dir: Path
) -> None:
    before = bytes_of(place)
    arguments: list[str | Path] = ["--input", songs, "--output", place, "--tokenizer", tokenizer_dir]
    failed = run("build", *arguments, "--overwrite", "--set", "encode.seq_len=48")
    assert failed.exit_code == 2
    assert bytes_of(place) == before
    assert "goes on from there" in failed.output
    assert run("build", *arguments, "--overwrite", "--set", "encode.seq_len=512").exit_code == 0
    assert [path.name for path in place.parent.iterdir()] == ["data"]


def test_a_folder_that_is_no_data_set_is_never_touched(
    tmp_path: Path, hymns: Path, tokenizer_dir: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / "train").mkdir(parents=True)
    (mine / "train" / "data-00000-of-00001.arrow").write_bytes(b"precious")
    refused = run("build", "--input", hymns, "--output", mine, "--tokenizer", tokenizer_dir, "--overwrite")
    assert refused.exit_code == 2
    assert "no manifest.json" in refused.output
    assert bytes_of(mine) == {"train/data-00000-of-00001.arrow": b"precious"}


def test_a_data_set_with_files_of_the_users_is_not_replaced(
    place: Path, hymns: Path, tokenizer_dir: Path
) -> None:
    arguments: list[str | Path] = ["build", "--input", hymns, "--output", place, "--tokenizer", tokenizer_dir]
    (place / "train" / "data-mine.arrow").write_bytes(b"precious")
    before = bytes_of(place)
    refused = run(*arguments, "--overwrite")
    assert refused.exit_code == 2
    assert "train/data-mine.arrow" in refused.output
    assert bytes_of(place) == before
    (place / "train" / "data-mine.arrow").unlink()
    assert run(*arguments, "--overwrite").exit_code == 0
    assert verify_dataset(place).ok
    assert not (place / "eval").exists()
    assert [path.name for path in place.parent.iterdir()] == ["data"]


def test_what_a_killed_build_left_is_mended(place: Path, hymns: Path, tokenizer_dir: Path) -> None:
    arguments: list[str | Path] = ["build", "--input", hymns, "--output", place, "--tokenizer", tokenizer_dir]
    before = bytes_of(place)
    building = place.with_name("data.building")
    old = building / "old"
    building.mkdir()
    place.rename(old)  # killed between the two renames
    refused = run(*arguments)
    assert "already holds a data set" in refused.output
    assert bytes_of(place) == before
    shutil.copytree(place, old)  # killed before the old one was removed, or while a new one was written
    (building / "half").write_bytes(b"")
    assert run(*arguments, "--overwrite").exit_code == 0
    assert verify_dataset(place).ok
    assert [path.name for path in place.parent.iterdir()] == ["data"]


def test_an_empty_folder_is_filled(tmp_path: Path, hymns: Path, tokenizer_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    built = run("build", "--input", hymns, "--output", tmp_path / "empty", "--tokenizer", tokenizer_dir)
    assert built.exit_code == 0, built.output
    assert verify_dataset(tmp_path / "empty").ok


@pytest.mark.parametrize("name", [".", "eval_songs.jsonl", "eval", ".."])
def test_songs_are_not_read_out_of_the_output(place: Path, tokenizer_dir: Path, name: str) -> None:
    before = bytes_of(place)
    refused = run(
        "build", "--input", place / name, "--output", place, "--tokenizer", tokenizer_dir, "--overwrite"
    )
    assert refused.exit_code == 2
    assert "lies in --" in refused.output
    assert bytes_of(place) == before


def test_a_changed_side_file_is_found(place: Path) -> None:
    report = verify_dataset(place)
    assert report.num_checked["files"] == len(named_files(read_manifest(place))) - 2 - 1
    labels = (place / "labels.json").read_text()
    (place / "labels.json").write_text(labels.replace('"stem": "The', '"stem": "the', 1))
    (place / "quality.json").unlink()
    with pytest.raises(DataError, match="2 findings") as raised:
        verify_dataset(place)
    assert "labels.json: is not the file that was written" in str(raised.value)
    assert "quality.json: missing" in str(raised.value)


def test_files_with_the_same_ids_give_a_sound_data_set(
    tmp_path: Path, songs: Path, tokenizer_dir: Path
) -> None:
    lines = [json.loads(line) for line in songs.read_text().splitlines()]
    for number in range(2):
        part = [song | {"id": str(i)} for i, song in enumerate(lines[number::2])]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(song) + "\n" for song in part))
    arguments: list[str | Path] = ["--input", tmp_path / "0.jsonl", "--input", tmp_path / "1.jsonl"]
    built = run("build", *arguments, "--output", tmp_path / "data", "--tokenizer", tokenizer_dir)
    assert built.exit_code == 0, built.output
    assert verify_dataset(tmp_path / "data").ok
    assert sum(split.num_songs for split in read_manifest(tmp_path / "data").splits.values()) == 120


def test_labels_count_only_the_songs_that_are_asked(tmp_path: Path, songs: Path, tokenizer_dir: Path) -> None:
    lines = [json.loads(line) for line in songs.read_text().splitlines()]
    for song in lines[::3]:
        song["lyrics"] += f"\nSing along with {song['artist']}"
    (tmp_path / "songs.jsonl").write_text("".join(json.dumps(song) + "\n" for song in lines))
    folder = tmp_path / "data"
    built = run(
        "build",
        "--input",
        tmp_path / "songs.jsonl",
        "--output",
        folder,
        "--tokenizer",
        tokenizer_dir,
        "--set",
        "sample.eval_fraction=0.3",
    )
    assert built.exit_code == 0, built.output
    manifest, labels = read_manifest(folder), json.loads((folder / "labels.json").read_text())
    for task in ("artist", "genre"):
        truth, counts = labels[task]["truth"], labels[task]["train_counts"]
        assert len(truth) == manifest.splits["eval"].by_task[task]["examples"]
        assert sum(counts.values()) == manifest.splits["train"].by_task[task]["examples"]
    assert sum(labels["artist"]["train_counts"].values()) < sum(labels["genre"]["train_counts"].values())
    assert len(labels["artist"]["truth"]) < len(labels["genre"]["truth"])


@pytest.mark.parametrize(("override", "noted"), [("seed=0", True), ("sample.eval_fraction=0", False)])
def test_a_missing_eval_split_is_noted(
    tmp_path: Path, hymns: Path, tokenizer_dir: Path, override: str, noted: bool
) -> None:
    built = run(
        "build",
        "--input",
        hymns,
        "--output",
        tmp_path / "data",
        "--tokenizer",
        tokenizer_dir,
        "--set",
        override,
    )
    assert built.exit_code == 0, built.output
    assert ("note: no eval split" in built.output) == noted
