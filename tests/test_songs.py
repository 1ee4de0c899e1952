from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.errors import DataError
from preprocess.read.columns import read_artist, read_genre, read_themes, read_year
from preprocess.read.songs import find_files, read_songs, recognise_schema
from preprocess.schema import Song

GENIUS = ["title", "tag", "artist", "year", "views", "features", "lyrics", "id"]


class Rejects(list[tuple[str, int, str]]):
    def __call__(self, source: str, line: int, reason: str) -> None:
        self.append((source, line, reason))


def write_csv(path: Path, header: list[str], *rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(*paths: Path) -> tuple[list[Song], Rejects]:
    rejects = Rejects()
    return list(read_songs(paths, on_reject=rejects)), rejects


def test_the_genius_csv_gives_every_fact_with_its_line_breaks(tmp_path: Path) -> None:
    lyrics = '[Verse 1]\nOne, "two"\n\nthree'
    row = ["Song", "rap", "Some One", "1994", "12", '{"A, B"}', lyrics, "77"]
    songs, rejects = read(write_csv(tmp_path / "g.csv", GENIUS, row))
    expected = Song(
        "77", lyrics, "Song", "Some One", "Hip-Hop", 1994, tag="rap", source=str(tmp_path / "g.csv")
    )
    assert songs == [expected]
    assert rejects == []


@pytest.mark.parametrize("dot", ["", "."])
def test_the_pair_splits_at_the_last_genre(tmp_path: Path, dot: str) -> None:
    told = f"Generate a song verse in the style of lost in the genre of pop in the genre of rb{dot}"
    songs, _ = read(write_csv(tmp_path / "p.csv", ["Instruction", "Label"], [told, "la la"]))
    assert (songs[0].artist, songs[0].genre) == ("lost in the genre of pop", "R&B")
    assert [songs[0].title, songs[0].year, songs[0].album] == [None] * 3


def test_a_pair_of_another_kind_is_rejected(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "p.csv",
        ["Instruction", "Label"],
        ["Translate this.", "la la"],
        ["Generate a song verse in the style of a in the genre of pop", "la"],
    )
    songs, rejects = read(path)
    assert [song.artist for song in songs] == ["a"]
    assert rejects == [(str(path), 2, "instruction names no artist and genre")]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz"])
def test_every_format_gives_the_same_song(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"songs{suffix}"
    row = {"artist": "Ángel", "song": "Día", "link": "/x", "text": "uno\ndos 東京"}
    table = pa.Table.from_pylist([row])
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        plain = path.with_suffix("") if suffix.endswith(".gz") else path
        if ".jsonl" in suffix:
            write_jsonl(plain, row)
        else:
            with plain.open("w", newline="", encoding="utf-8") as file:
                delimiter = "\t" if suffix == ".tsv" else ","
                csv.writer(file, delimiter=delimiter).writerows([row.keys(), row.values()])
        if suffix.endswith(".gz"):
            path.write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
    (song,), rejects = read(path)
    assert (song.artist, song.title, song.lyrics) == ("Ángel", "Día", "uno\ndos 東京")
    assert rejects == []
    assert len(song.id) == 16


def test_bad_json_rows_are_rejected_with_their_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    lines = [
        b'{"lyrics": "good", "artist": "unknown"}',
        b"{broken",
        b"[1]",
        b'{"lyrics": ""}',
        b'{"lyrics": "\xff"}',
        b'{"lyrics": "\\ud800"}',
        b'{"lyrics": 5}',
        b"[" * 100_000,
        b'{"words": "other"}',
        b"",
        b'{"lyrics": "also good"}',
    ]
    path.write_bytes(b"\n".join(lines))
    songs, rejects = read(path)
    assert [song.lyrics for song in songs] == ["good", "also good"]
    assert songs[0].artist is None
    assert [(line, reason) for _, line, reason in rejects] == [
        (2, "broken JSON"),
        (3, "not a JSON object"),
        (4, "no lyrics"),
        (5, "invalid UTF-8"),
        (6, "invalid UTF-8"),
        (7, "lyrics are not text"),
        (8, "broken JSON"),
        (9, "columns not recognised"),
    ]


def test_bad_csv_rows_do_not_stop_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    huge = b'"' + b"x" * 1_100_000 + b'"'
    rows = [b"\xef\xbb\xbftitle,lyrics", b"a,one", b"b", b"c,\xff\xfe", huge + b",z", b'd,"two\nlines"']
    path.write_bytes(b"\n".join(rows))
    songs, rejects = read(path)
    assert [(song.title, song.lyrics) for song in songs] == [("a", "one"), ("d", "two\nlines")]
    assert [line for _, line, _ in rejects] == [3, 4, 5]
    assert [reason for _, _, reason in rejects][:2] == ["1 fields instead of 2", "invalid UTF-8"]


def test_parquet_strings_that_are_no_utf8_are_rejected_alone(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"\xff", b"three"], pa.binary())
    damaged = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"lyrics": damaged}), path)
    songs, rejects = read(path)
    assert [song.lyrics for song in songs] == ["one", "three"]
    assert rejects == [(str(path), 2, "invalid UTF-8")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b"", "has no rows"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"title,lyrics\n", "has no rows"),
        ("a.csv", b"title,lyrics\nx,\ny,\n", "no lyrics (2 rows)"),
        ("a.csv", b"foo,bar\n1,2\n", "Found: foo, bar"),
        ("a.jsonl", b'{"foo": 1}\n', "Found: foo"),
        ("a.csv", b"track_id,word,count\n", "bag of words"),
        ("a.parquet", b"PAR1 no", "damaged"),
        ("a.arrow", b"no", "damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"lyrics": "x"}\n', mtime=0)[:-9], "damaged"),
        ("a.jsonl.gz", b"no gzip", "damaged"),
        ("a.docx", b"x", "'.docx' is not known"),
    ],
)
def test_a_file_without_songs_is_an_error_that_says_why(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.") as error:
        read(path)
    assert told in str(error.value)
    assert error.value.exit_code == 4


def test_a_missing_file_is_an_error_and_a_folder_and_a_pattern_are_searched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="without song files"):
        find_files([tmp_path])
    (tmp_path / "sub").mkdir()
    first = write_jsonl(tmp_path / "sub" / "a.jsonl", {"lyrics": "x"})
    second = write_jsonl(tmp_path / "sub" / "b.jsonl", {"lyrics": "y"})
    (tmp_path / "sub" / "notes.txt").write_text("z")
    assert find_files([tmp_path]) == [first, second]
    assert find_files([f"{tmp_path}/**/b.*"]) == [second]


def test_unknown_keys_condemn_a_long_file_early(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", *[{"foo": n} for n in range(500)])
    rejects = Rejects()
    with pytest.raises(DataError, match="Found: foo"):
        list(read_songs([path], on_reject=rejects))
    assert len(rejects) < 100


def test_a_schema_describes_itself() -> None:
    schema = recognise_schema(GENIUS)
    assert schema.name == "Genius"
    assert "genre from 'tag'" in schema.description
    assert schema.ignored == ("views", "features")
    assert recognise_schema(["Artist", "Song", "Link", "Text"]).name == "Spotify"
    with pytest.raises(DataError, match="text, sentiment"):
        recognise_schema(["text", "sentiment"])


def test_genres_are_mapped_and_other_words_kept() -> None:
    told = [
        "rap",
        "rb",
        "R&B",
        "hip hop",
        "misc",
        "hymn",
        "EDM",
        "k-pop",
        "children's music",
        "",
        None,
        "フォーク",
    ]
    expected = ["Hip-Hop", "R&B", "R&B", "Hip-Hop", None, "Hymn", "Electronic", "K-Pop", "Children's Music"]
    assert [read_genre(value) for value in told] == [*expected, None, None, "フォーク"]
    assert read_genre("['rock', 'pop']") == "Rock"


def test_years_outside_the_possible_are_none() -> None:
    told = [
        1994,
        "1994",
        "1994.0",
        1994.0,
        "1994-05-01",
        999,
        2101,
        "20000",
        "soon",
        None,
        True,
        float("nan"),
    ]
    assert [read_year(value) for value in told] == [1994] * 5 + [None] * 7


def test_catalogue_names_are_put_into_natural_order_and_others_left() -> None:
    assert read_artist("Luther, Martin (1483-1546)") == "Martin Luther"
    assert read_artist("German;Luther, Martin (1483-1546);unknown") == "Martin Luther"
    assert read_artist("Moore, T. (1779-1852);Hastings, T. (1784-1872)") == "T. Moore & T. Hastings"
    assert read_artist("Earth, Wind & Fire") == "Earth, Wind & Fire"
    assert read_artist("Free (1968 band)") == "Free (1968 band)"


def test_artists_in_a_list_written_as_a_string_are_read_like_the_list() -> None:
    assert read_artist("['Prince']") == read_artist(["Prince"]) == "Prince"
    assert read_artist('["Sonny", "Cher"]') == "Sonny & Cher"
    assert read_artist("[]") is None
    assert read_artist("[spunge]") == "[spunge]"


def test_themes_come_from_lists_and_strings() -> None:
    assert read_themes(["God, As King", "Power &amp; Grace", "Throne (also see God)"]) == (
        "God, As King",
        "Power & Grace",
        "Throne",
    )
    assert read_themes('["a", "b"]') == read_themes("a; b") == read_themes("a,b,a") == ("a", "b")
    assert read_themes(None) == ()


def test_a_content_id_depends_on_the_content_alone(tmp_path: Path) -> None:
    rows = [{"lyrics": "x", "title": "t"}, {"lyrics": "y", "title": "t"}]
    forward, _ = read(write_jsonl(tmp_path / "a.jsonl", *rows))
    backward, _ = read(write_jsonl(tmp_path / "b.jsonl", *reversed(rows)))
    assert [song.id for song in forward] == [song.id for song in reversed(backward)]
    assert forward[0].id != forward[1].id
