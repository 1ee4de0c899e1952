from __future__ import annotations

import csv
import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.corpus import generate_songs
from preprocess.errors import DataError
from preprocess.read.files import find_files, is_hub_id
from preprocess.read.hub import HubName, parse_hub_name
from preprocess.read.songs import (
    ReadOptions,
    Rejection,
    Source,
    check_outcome,
    fingerprint,
    open_sources,
    read_chunks,
    read_songs,
    songs_of_chunk,
)
from preprocess.schema import Song

datasets = pytest.importorskip("datasets")

SUFFIXES = [".csv", ".tsv.gz", ".jsonl", ".ndjson.zst", ".json", ".json.gz", ".parquet", ".arrow"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [
        {"id": song.id, "title": song.title, "artist": song.artist, "tag": song.genre, "lyrics": song.lyrics}
        for song in generate_songs(53, seed=1)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    suffix = next(suffix for suffix in path.suffixes if suffix not in (".gz", ".zst"))
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
        return path
    if suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        return path
    with path.with_name("plain").open("w", newline="", encoding="utf-8") as file:
        if suffix == ".json":
            json.dump({"version": 1, "data": rows}, file, indent=1)
        elif suffix in (".csv", ".tsv"):
            csv.writer(file, delimiter="," if suffix == ".csv" else "\t").writerows(
                [rows[0].keys(), *(row.values() for row in rows)]
            )
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    content = path.with_name("plain").read_bytes()
    path.with_name("plain").unlink()
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.output_stream(str(path), compression=compression) as stream:
        stream.write(content)
    return path


def songs_of(source: Source, rows_per_chunk: int) -> Iterator[Song | Rejection]:
    for chunk in read_chunks(source, rows_per_chunk):
        yield from songs_of_chunk(pickle.loads(pickle.dumps(chunk)), ReadOptions())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chunks_hold_a_fixed_number_of_rows_and_the_same_songs(
    tmp_path: Path, rows: list[dict[str, Any]], suffix: str
) -> None:
    (source,) = open_sources([write(tmp_path / f"songs{suffix}", rows)])
    chunks = list(read_chunks(source, 10))
    assert [chunk.num_rows for chunk in chunks] == [10] * 5 + [3]
    assert [chunk.number for chunk in chunks] == list(range(6))
    songs = list(songs_of(source, 10))
    assert songs == list(songs_of(source, 1)) == list(songs_of(source, 1000))
    assert [(song.id, song.lyrics) for song in songs if isinstance(song, Song)] == [
        (row["id"], row["lyrics"]) for row in rows
    ]
    assert songs == list(read_songs([tmp_path], on_reject=lambda *_: pytest.fail("rejected")))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_first_rows_of_chunks_are_lines_or_rows(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [{"lyrics": f"one\n{number}", "id": number} for number in range(5)]
    (source,) = open_sources([write(tmp_path / f"a{suffix}", rows)])
    firsts = [chunk.first_row for chunk in read_chunks(source, 2)]
    assert firsts == ([2, 6, 10] if suffix == ".csv" else [1, 3, 5])


def test_chunks_end_early_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [{"lyrics": "x" * 100} for _ in range(10)]
    for module in ("csv_rows", "json_rows", "arrow_rows"):
        monkeypatch.setattr(f"preprocess.read.{module}.MAX_CHUNK_CHARS", 300)
    for suffix in (".csv", ".jsonl", ".arrow"):
        (source,) = open_sources([write(tmp_path / f"a{suffix}", rows)])
        sizes = [chunk.num_rows for chunk in read_chunks(source, 1000)]
        assert sum(sizes) == 10
        assert max(sizes) <= 7


def test_memory_does_not_grow_with_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    random = np.random.default_rng(0)
    schema = pa.schema({"lyrics": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(40):
            lines = [random.bytes(5000).hex() for _ in range(50)]
            writer.write_table(pa.table({"lyrics": lines}, schema))
    assert path.stat().st_size > 10_000_000
    (source,) = open_sources([path])
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_chunks(source, 50)]
    assert len(held) == 40
    assert max(held) < 4_000_000


def test_a_rejection_keeps_its_row_shortened_and_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"lyrics": "", "title": "t" * 5000, "note": "日本", "n": 10**30, "list": [1] * 5000, "ok": True},
        "words",
    ]
    path.write_bytes(
        "".join(json.dumps(row) + "\n" for row in rows).encode() + b'{"lyrics": "\xff' + b"y" * 9000
    )
    (source,) = open_sources([path])
    rejections = list(songs_of(source, 100))
    kept = [json.loads(item.to_json()) for item in rejections if isinstance(item, Rejection)]
    assert [(item["line"], item["reason"]) for item in kept] == [
        (1, "no lyrics"),
        (2, "not a JSON object"),
        (3, "invalid UTF-8"),
    ]
    assert all(item["source"] == str(path) for item in kept)
    assert kept[0]["row"]["title"].startswith("ttt")
    assert (kept[0]["row"]["note"], kept[0]["row"]["ok"]) == ("日本", True)
    assert kept[2]["row"].startswith('{"lyrics": "\udcff')
    for item in rejections:
        assert isinstance(item, Rejection)
        assert len(item.row) < 2300
        assert item.to_json().encode().count(b"\n") == 0


def test_a_source_says_what_was_recognised(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"artist": "A", "song": "S", "link": "l", "text": "x"}]
    (source,) = open_sources([write(tmp_path / "a.jsonl", rows)])
    told = "Spotify: lyrics from 'text', title from 'song', artist from 'artist'; ignored: link"
    assert source.description == f"{source.name}: {told}"


def test_a_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"lyrics": "x"}])
    (source,) = open_sources([path])
    before = fingerprint(path)
    assert source.fingerprint() == before == fingerprint(str(path))
    path.write_bytes(path.read_bytes().replace(b"x", b"y"))
    assert source.fingerprint() != before
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint(tmp_path / "none.csv")


def test_a_source_without_songs_is_refused_with_its_reasons() -> None:
    check_outcome("a", 1, {})
    with pytest.raises(DataError, match=r"none of its 1,003 rows is a song: b \(1,000 rows\), a \(3 rows\)"):
        check_outcome("a", 0, {"a": 3, "b": 1000})


def test_a_saved_data_set_gives_all_its_splits_and_no_cache(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    whole = datasets.Dataset.from_list(rows)
    parts = datasets.DatasetDict(train=whole.select(range(40)), test=whole.select(range(40, 53)))
    parts.save_to_disk(tmp_path / "saved")
    stray = tmp_path / "saved" / "train" / "cache-1234.arrow"
    stray.write_bytes(b"no data set")
    songs = list(read_songs([tmp_path / "saved"], on_reject=lambda *_: None))
    assert sorted(song.id for song in songs) == sorted(row["id"] for row in rows)
    assert stray not in find_files([tmp_path / "saved"])
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    assert len(list(read_songs([tmp_path / "one"], on_reject=lambda *_: None))) == 53
    assert len(find_files([tmp_path / "one"])) == 3


def test_folders_pass_over_hidden_and_side_files(tmp_path: Path) -> None:
    for name in (".a.csv", ".git/b.csv", "dataset_info.json", "notes.txt", "c.csv.gz", "d.parquet.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files([tmp_path]) == [tmp_path / "c.csv.gz"]


def test_hub_names_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").touch()
    told = ["hub:owner/name", "owner/other", "owner/name", "a/b.csv", "a/b/c", "a/*", "songs.csv", "/a/b"]
    assert [is_hub_id(name) for name in told] == [True, True] + [False] * 6
    assert parse_hub_name("hub:a-b/c.d@v1.0/x#en") == HubName("a-b/c.d", "v1.0/x", "en")
    assert parse_hub_name("a/b") == HubName("a/b")
    with pytest.raises(DataError, match="expected hub:owner/name"):
        parse_hub_name("hub:only")


def test_a_data_set_of_the_hub_is_streamed(
    tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write(tmp_path / "data.jsonl", rows)
    asked: list[tuple[str, str | None, str | None]] = []
    load = datasets.load_dataset_builder

    def load_local(name: str, config: str | None, revision: str | None) -> object:
        asked.append((name, config, revision))
        return load("json", data_files={"train": str(local)}, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset_builder", load_local)
    (source,) = open_sources(["hub:owner/songs@abc#en"])
    assert asked == [("owner/songs", "en", "abc")]
    assert source.schema.columns["genre"] == "tag"
    songs = list(songs_of(source, 10))
    assert [song.id for song in songs if isinstance(song, Song)] == [row["id"] for row in rows]
    assert [chunk.num_rows for chunk in read_chunks(source, 10)] == [10] * 5 + [3]
    before = source.fingerprint()
    assert before == open_sources(["hub:owner/songs@abc#en"])[0].fingerprint()
    assert before != open_sources(["hub:owner/others"])[0].fingerprint()


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/songs' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(
        DataError, match=r"owner/songs@main: no such path.*Couldn't reach.*hf download"
    ) as error:
        open_sources(["owner/songs@main"])
    assert "owner/songs`" in str(error.value)


def test_gzip_of_several_members_and_of_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress("title\tlyrics\nü\tx".encode("utf-16")))
    (song,) = read_songs([path], on_reject=lambda *_: None)
    assert (song.title, song.lyrics) == ("ü", "x")
