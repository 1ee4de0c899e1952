"""A table of broken inputs: what each gives, and that the good rows around a bad one survive."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.errors import DataError
from preprocess.read.songs import read_songs
from preprocess.schema import Song


@dataclass(frozen=True)
class Case:
    """A file, and what becomes of it.

    Attributes:
        told: What the test is called.
        name: Name of the file; its suffix is its format.
        content: Its bytes.
        songs: Lyrics that are read, in order.
        rejects: Line and reason of each rejected row.
        error: A part of the error that ends the reading; None: none does.
    """

    told: str
    name: str
    content: bytes
    songs: list[str] = field(default_factory=list)
    rejects: list[tuple[int, str]] = field(default_factory=list)
    error: str | None = None


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def arrow(num_batches: int = 1, *, is_file: bool = False, **columns: object) -> bytes:
    sink = io.BytesIO()
    table = pa.table(columns)
    opener = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with opener(sink, table.schema) as writer:
        for _ in range(num_batches):
            writer.write_table(table)
    return sink.getvalue()


def arrow_twice() -> bytes:
    sink = io.BytesIO()
    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["lyrics", "lyrics"])
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def damaged_strings(*values: bytes) -> pa.Array:
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), raw.buffers())


HEAD = b"title,lyrics,id\n"
A, Z = b"a,first,1\n", b"z,last,9\n"
JA, JZ = b'{"lyrics": "first"}\n', b'{"lyrics": "last"}\n'
BOTH = ["first", "last"]
ROWS = [{"lyrics": "first"}, {"lyrics": "last"}]
CELL = b"x" * 5_000_000
LINES = b"some words of a song\n" * 60_000  # more than a row may have
QUOTE = "a quote that is never closed, or one inside a cell that is not doubled"
UNCLOSED = "a quote that is never closed"
LONG = "row too long, or a quote that is never closed"
UTF8 = "invalid UTF-8"
BROKEN = "broken JSON"
NOT_TEXT = "lyrics are not text"
NOT_OBJECT = "not a JSON object"
ODD_DATES = pa.array([9131, 2**31 - 1], pa.int32()).cast(pa.date32())

CASES = [
    # Encodings
    Case("a byte order mark", "a.csv", codecs.BOM_UTF8 + HEAD + A + Z, BOTH),
    Case("two byte order marks", "a.csv", codecs.BOM_UTF8 * 2 + HEAD + A + Z, BOTH),
    Case("a byte order mark before JSON", "a.jsonl", codecs.BOM_UTF8 + JA + JZ, BOTH),
    Case("two byte order marks before JSON", "a.jsonl", codecs.BOM_UTF8 * 2 + JA + JZ, BOTH),
    Case("a byte order mark before an array", "a.json", codecs.BOM_UTF8 + json.dumps(ROWS).encode(), BOTH),
    Case("byte order marks of files put together", "a.jsonl", JA + codecs.BOM_UTF8 + JZ, BOTH),
    Case("UTF-16 with its mark", "a.csv", (HEAD + A + Z).decode().encode("utf-16"), BOTH),
    Case(
        "UTF-16, the other order",
        "a.jsonl",
        codecs.BOM_UTF16_BE + (JA + JZ).decode().encode("utf-16-be"),
        BOTH,
    ),
    Case("UTF-32 with its mark", "a.csv", (HEAD + A + Z).decode().encode("utf-32"), BOTH),
    Case("UTF-16 in gzip", "a.csv.gz", gzip.compress((HEAD + A + Z).decode().encode("utf-16")), BOTH),
    Case("UTF-16 without a mark", "a.csv", (HEAD + A).decode().encode("utf-16-le"), error="UTF-16 without"),
    Case("UTF-16 without a mark, other order", "a.jsonl", JA.decode().encode("utf-16-be"), error="UTF-16"),
    Case("UTF-16 cut in a character", "a.csv", (HEAD + A).decode().encode("utf-16")[:-1], error="damaged"),
    Case("Latin-1 in a row", "a.csv", HEAD + A + b"b,caf\xe9,2\n" + Z, BOTH, [(3, UTF8)]),
    Case("Latin-1 in a row of JSON", "a.jsonl", JA + b'{"lyrics": "caf\xe9"}\n' + JZ, BOTH, [(2, UTF8)]),
    Case("Latin-1 where nothing is read", "a.jsonl", b'{"lyrics": "first", "x": "\xe9"}\n' + JZ, BOTH),
    Case("Latin-1 in the title", "a.csv", HEAD + A + b"\xe9,one,2\n" + Z, BOTH, [(3, UTF8)]),
    Case("Latin-1 everywhere", "a.csv", HEAD + b"b,\xe9t\xe9,2\n", [], [(2, UTF8)], error="Latin-1"),
    Case("Latin-1 in the header", "a.csv", b"title,lyrics,\xe9\n" + A, error="header is not UTF-8"),
    Case("an overlong encoding", "a.csv", HEAD + A + b"b,\xc0\xaf,2\n" + Z, BOTH, [(3, UTF8)]),
    Case("an encoded surrogate", "a.csv", HEAD + A + b"b,\xed\xa0\x80,2\n" + Z, BOTH, [(3, UTF8)]),
    Case("a lone surrogate escaped", "a.jsonl", JA + b'{"lyrics": "\\ud800x"}\n' + JZ, BOTH, [(2, UTF8)]),
    Case("a pair of surrogates", "a.jsonl", JA + b'{"lyrics": "\\ud83d\\ude00"}\n', ["first", "\U0001f600"]),
    Case(
        "a lone surrogate in an array",
        "a.json",
        b'[{"lyrics": "first"}, {"lyrics": "\\udc00"}, {"lyrics": "last"}]',
        BOTH,
        [(2, UTF8)],
    ),
    Case("a NUL in the lyrics", "a.csv", HEAD + A + b"b,x\0y,2\n" + Z, ["first", "x\0y", "last"]),
    Case("a raw NUL in JSON", "a.jsonl", JA + b'{"lyrics": "x\0y"}\n' + JZ, BOTH, [(2, BROKEN)]),
    Case("an escaped NUL in JSON", "a.jsonl", JA + b'{"lyrics": "x\\u0000y"}\n', ["first", "x\0y"]),
    Case("NULs for rows", "a.jsonl", JA + b"\0" * 50 + b"\n" + JZ, BOTH, [(2, BROKEN)]),
    # Line ends
    Case("CRLF", "a.csv", (HEAD + A + Z).replace(b"\n", b"\r\n"), BOTH),
    Case("CR alone", "a.csv", (HEAD + A + Z).replace(b"\n", b"\r"), BOTH),
    Case("CR alone in JSON", "a.jsonl", (JA + JZ).replace(b"\n", b"\r"), BOTH),
    Case("CRLF in JSON", "a.jsonl", (JA + JZ).replace(b"\n", b"\r\n"), BOTH),
    Case("empty lines", "a.csv", HEAD + b"\n\r\n" + A + b"\n" + Z + b"\n\n", BOTH),
    Case("spaces for lines", "a.jsonl", JA + b"   \n\t\n" + JZ, BOTH),
    Case("no end of the last line", "a.csv", HEAD + A + Z.rstrip(), BOTH),
    Case(
        "CR in a bare cell",
        "a.csv",
        HEAD + A + b"b,x\ry,2\n" + Z,
        BOTH,
        [(3, "a carriage return in a cell without quotes")],
    ),
    Case(
        "CRLF inside a quoted cell", "a.csv", HEAD + A + b'b,"x\r\ny",2\r\n' + Z, ["first", "x\r\ny", "last"]
    ),
    Case(
        "a line separator inside JSON", "a.jsonl", '{"lyrics": "x\u2028y\x85z"}\n'.encode(), ["x\u2028y\x85z"]
    ),
    # Quoting
    Case(
        "a quote never closed, quotes later",
        "a.csv",
        HEAD + A + b'b,"oh,2\nc,"mid",3\n' + Z,
        ["first", "mid", "last"],
        [(3, QUOTE)],
    ),
    Case(
        "a quote never closed, none later",
        "a.csv",
        HEAD + A + b'b,"oh,2\n' + Z * 3,
        ["first", *["last"] * 3],
        [(3, UNCLOSED)],
    ),
    Case(
        "a quote never closed, many rows later",
        "a.csv",
        HEAD + A + b'b,"oh,2\n' + Z * 150_000,
        ["first", *["last"] * 150_000],
        [(3, LONG)],
    ),
    Case("a quote in a quoted cell", "a.csv", HEAD + A + b'b,"say "hi" now",2\n' + Z, BOTH, [(3, QUOTE)]),
    Case(
        "a quote in a long quoted cell",
        "a.csv",
        HEAD + A + b'b,"say\n"hi" now\n\nand go",2\n' + Z,
        BOTH,
        [(3, QUOTE)],
    ),
    Case("a backslash before a quote", "a.csv", HEAD + A + b'b,"say \\"hi\\"",2\n' + Z, BOTH, [(3, QUOTE)]),
    Case("a quote in a bare cell", "a.csv", HEAD + A + b'b,5" deep,2\n' + Z, ["first", '5" deep', "last"]),
    Case("a quote opened in the last row", "a.csv", HEAD + A + b'b,"oh\nno\n', ["first"], [(3, UNCLOSED)]),
    Case("only quotes", "a.csv", HEAD + A + b'"""""\n' + Z, BOTH, [(3, UNCLOSED)]),
    Case("an empty quoted cell", "a.csv", HEAD + A + b'"","",""\n' + Z, BOTH, [(3, "no lyrics")]),
    # Ragged rows
    Case("a row too short", "a.csv", HEAD + A + b"b\n" + Z, BOTH, [(3, "1 fields instead of 3")]),
    Case("a row too long", "a.csv", HEAD + A + b"b,x,2,3\n" + Z, BOTH, [(3, "4 fields instead of 3")]),
    Case(
        "a short row of several lines",
        "a.csv",
        HEAD + A + b'b,"x\ny"\n' + Z,
        BOTH,
        [(3, "2 fields instead of 3")],
    ),
    Case("the last row cut", "a.csv", HEAD + A + b"b,wor", ["first"], [(3, "2 fields instead of 3")]),
    Case("the same column twice", "a.csv", b"lyrics,lyrics,id\nx,y,1\n", error="2 columns called 'lyrics'"),
    Case("an unused column twice", "a.csv", b"lyrics,x,x\nfirst,1,2\n", ["first"]),
    Case("columns without names", "a.csv", b",lyrics,\n0,first,\n1,last,\n", BOTH),
    Case(
        "a header that is quoted wrongly",
        "a.csv",
        b'"title,lyrics\nx,y\n',
        error="names the columns, is broken: a quote",
    ),
    # Sizes
    Case("a cell of 5 MB", "a.csv", HEAD + A + b"b," + CELL + b",2\n" + Z, BOTH, [(3, LONG)]),
    Case("a quoted cell of 5 MB", "a.csv", HEAD + A + b'b,"' + CELL + b'",2\n' + Z, BOTH, [(3, LONG)]),
    Case("a cell of 60,000 lines", "a.csv", HEAD + A + b'b,"' + LINES + b'",2\n' + Z, BOTH, [(3, LONG)]),
    Case(
        "a line of 20 MB of JSON",
        "a.jsonl",
        JA + b'{"lyrics": "' + CELL * 4 + b'"}\n' + JZ,
        BOTH,
        [(2, "row too long")],
    ),
    Case(
        "an integer of 10,000 digits",
        "a.jsonl",
        JA + b'{"year": ' + b"9" * 10_000 + b"}\n" + JZ,
        BOTH,
        [(2, BROKEN)],
    ),
    Case(
        "a large integer for a year",
        "a.jsonl",
        b'{"lyrics": "first", "year": 1' + b"0" * 30 + b"}\n",
        ["first"],
    ),
    # JSON
    Case("NaN for lyrics", "a.jsonl", JA + b'{"lyrics": NaN}\n' + JZ, BOTH, [(2, "no lyrics")]),
    Case("null for lyrics", "a.jsonl", JA + b'{"lyrics": null}\n' + JZ, BOTH, [(2, "no lyrics")]),
    Case("a number for lyrics", "a.jsonl", JA + b'{"lyrics": 7}\n' + JZ, BOTH, [(2, NOT_TEXT)]),
    Case("an object for lyrics", "a.jsonl", JA + b'{"lyrics": {"a": "b"}}\n', ["first"], [(2, NOT_TEXT)]),
    Case(
        "lines for lyrics",
        "a.jsonl",
        b'{"lyrics": ["x", "y"]}\n{"lyrics": [["x"], ["y", "z"]]}\n',
        ["x\ny", "x\n\ny\nz"],
    ),
    Case(
        "lines and numbers for lyrics", "a.jsonl", JA + b'{"lyrics": ["x", 1]}\n', ["first"], [(2, NOT_TEXT)]
    ),
    Case(
        "wrong types for facts",
        "a.jsonl",
        b'{"lyrics": "first", "artist": {"n": 1}, "title": true, "year": [], "genre": 3.5}\n',
        ["first"],
    ),
    Case(
        "an array, not an object",
        "a.jsonl",
        JA + b"[1]\nnull\n" + JZ,
        BOTH,
        [(2, NOT_OBJECT), (3, NOT_OBJECT)],
    ),
    Case("a very deep array", "a.jsonl", JA + b"[" * 100_000 + b"\n" + JZ, BOTH, [(2, BROKEN)]),
    Case("a cut row in the middle", "a.jsonl", JA + b'{"lyrics": "b\n' + JZ, BOTH, [(2, BROKEN)]),
    Case("a cut row at the end", "a.jsonl", JA + b'{"lyrics": "b', ["first"], [(2, BROKEN)]),
    Case(
        "two objects on a line", "a.jsonl", JA + b'{"lyrics": "b"}{"lyrics": "c"}\n', ["first"], [(2, BROKEN)]
    ),
    Case("a comma after each row", "a.jsonl", JA + b'{"lyrics": "b"},\n' + JZ, BOTH, [(2, BROKEN)]),
    Case("a key twice", "a.jsonl", b'{"lyrics": "x", "lyrics": "first"}\n', ["first"]),
    Case("an empty key", "a.jsonl", b'{"": 1, "lyrics": "first"}\n', ["first"]),
    Case(
        "other keys in one row", "a.jsonl", JA + b'{"foo": "b"}\n' + JZ, BOTH, [(2, "columns not recognised")]
    ),
    Case("lines in a .json file", "a.json", JA + JZ, BOTH),
    Case(
        "an object with the rows inside", "a.json", json.dumps({"n": 2, "data": ROWS, "x": {}}).encode(), BOTH
    ),
    Case(
        "an object with two arrays of rows",
        "a.json",
        json.dumps({"a": ROWS, "b": ROWS}).encode(),
        error="both 'a' and 'b'",
    ),
    Case("an object without rows", "a.json", b'{"meta": {"lyrics": "x"}, "n": [1]}', error="Found: meta, n"),
    Case(
        "an array of other things",
        "a.json",
        b'[{"lyrics": "first"}, 3, null, {"lyrics": "last"}]',
        BOTH,
        [(2, NOT_OBJECT), (3, NOT_OBJECT)],
    ),
    Case("an array cut", "a.json", json.dumps(ROWS * 2).encode()[:-5], error="after 3 objects"),
    Case("an array without its end", "a.json", json.dumps(ROWS).encode()[:-1], error="end of the file"),
    Case(
        "a broken object in an array",
        "a.json",
        b'[{"lyrics": "first"}, {"lyrics" "b"}]',
        error="after 1 objects",
    ),
    Case("a very deep value in an array", "a.json", b'[{"lyrics": ' + b"[" * 100_000, error="too deeply"),
    Case("something after an array", "a.json", json.dumps(ROWS).encode() + b"x", error="something follows"),
    Case("a string for a document", "a.json", b'"lyrics"', error="neither [ nor {"),
    # Nothing in it
    Case("an empty file", "a.csv", b"", error="has no rows"),
    Case("an empty JSON file", "a.json", b" \n", error="has no rows"),
    Case("an empty array", "a.json", b"[]", error="has no rows"),
    Case("an empty compressed file", "a.jsonl.gz", gzip.compress(b""), error="has no rows"),
    Case("a byte order mark alone", "a.jsonl", codecs.BOM_UTF8, error="has no rows"),
    Case("a header alone", "a.csv", HEAD, error="has no rows"),
    Case("a table without rows", "a.parquet", parquet(lyrics=pa.array([], pa.string())), error="has no rows"),
    Case(
        "only bad rows",
        "a.csv",
        HEAD + b"b\nc\n",
        [],
        [(2, "1 fields instead of 3"), (3, "1 fields instead of 3")],
        error="none of its 2 rows",
    ),
    # Wrong names
    Case("tabs in a .csv file", "a.csv", (HEAD + A + Z).replace(b",", b"\t"), BOTH),
    Case("semicolons in a .csv file", "a.csv", (HEAD + A + Z).replace(b",", b";"), BOTH),
    Case("commas in a .tsv file", "a.tsv", HEAD + A + Z, BOTH),
    Case("CSV called JSON", "a.jsonl", HEAD + A + Z, error="none of its first rows is an object"),
    Case("JSON called CSV", "a.csv", JA + JZ, error="columns are not those of a song table"),
    Case("gzip called CSV", "a.csv", gzip.compress(HEAD + A), error="a.csv"),
    Case("plain text called gzip", "a.csv.gz", HEAD + A, error="damaged"),
    Case("plain text called zst", "a.csv.zst", HEAD + A, error="damaged"),
    Case("CSV called Parquet", "a.parquet", HEAD + A, error="damaged"),
    Case("Parquet called Arrow", "a.arrow", parquet(lyrics=["x"]), error="damaged"),
    Case(
        "gzip of a Parquet file", "a.parquet.gz", gzip.compress(parquet(lyrics=["x"])), error="is not known"
    ),
    Case("no suffix", "songs", HEAD + A, error="(no suffix)"),
    # Files cut short
    Case("gzip cut", "a.jsonl.gz", gzip.compress(JA + JZ)[:-9], error="damaged"),
    Case("gzip with its sum wrong", "a.jsonl.gz", gzip.compress(JA + JZ)[:-8] + b"\0" * 8, error="damaged"),
    Case("two gzips in one", "a.jsonl.gz", gzip.compress(JA) + gzip.compress(JZ), BOTH),
    Case("zst", "a.jsonl.zst", zst(JA + JZ), BOTH),
    Case("zst cut", "a.jsonl.zst", zst(JA + JZ)[:-5], error="damaged"),
    Case("Parquet cut", "a.parquet", parquet(lyrics=["x"])[:-9], error="damaged"),
    Case("an Arrow stream cut in a batch", "a.arrow", arrow(2, lyrics=["x"])[:-20], error="damaged"),
    Case("an Arrow stream cut between batches", "a.arrow", arrow(2, lyrics=["x"])[:-8], error="no end mark"),
    Case("an Arrow file cut", "a.arrow", arrow(is_file=True, lyrics=["x"])[:-9], error="damaged"),
    Case("an Arrow file whole", "a.arrow", arrow(2, is_file=True, lyrics=["x"]), ["x", "x"]),
    # Tables with other types
    Case(
        "numbers for lyrics in Parquet",
        "a.parquet",
        parquet(lyrics=[1, 2]),
        [],
        [(1, NOT_TEXT), (2, NOT_TEXT)],
        error="not text (2 rows)",
    ),
    Case(
        "lists of lines in Parquet",
        "a.parquet",
        parquet(lyrics=[["x", "y"], None, []]),
        ["x\ny"],
        [(2, "no lyrics"), (3, "no lyrics")],
    ),
    Case("bytes for lyrics", "a.parquet", parquet(lyrics=[b"x"]), [], [(1, NOT_TEXT)], error="not text"),
    Case(
        "bytes that are no UTF-8",
        "a.parquet",
        parquet(lyrics=damaged_strings(b"first", b"\xff", b"last")),
        BOTH,
        [(2, UTF8)],
    ),
    Case(
        "a dictionary for lyrics",
        "a.parquet",
        parquet(lyrics=pa.array(["first", "last"]).dictionary_encode()),
        BOTH,
    ),
    Case(
        "large strings and views",
        "a.arrow",
        arrow(lyrics=pa.array(BOTH, pa.string_view()), title=pa.array(BOTH, pa.large_string())),
        BOTH,
    ),
    Case("a date that Python has not", "a.parquet", parquet(lyrics=BOTH, year=ODD_DATES), BOTH),
    Case(
        "nulls in every column",
        "a.parquet",
        parquet(lyrics=["first", None], title=pa.nulls(2)),
        ["first"],
        [(2, "no lyrics")],
    ),
    Case(
        "a struct for lyrics", "a.parquet", parquet(lyrics=[{"a": 1}]), [], [(1, NOT_TEXT)], error="not text"
    ),
    Case("the same column twice in Arrow", "a.arrow", arrow_twice(), error="2 columns called 'lyrics'"),
    Case("a bag of words", "a.csv", b"track_id,mxm_tid,word,count\n1,2,love,3\n", error="bag of words"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.told)
def test_a_broken_input_gives_the_outcome_expected(tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    songs, rejects, error = read(path)
    assert [song.lyrics for song in songs][:20] == case.songs[:20]
    assert len(songs) == len(case.songs)
    assert rejects == case.rejects
    assert (error is None) == (case.error is None), error
    if error is not None and case.error is not None:
        assert case.error in error
        assert str(path) in error


def read(path: Path) -> tuple[list[Song], list[tuple[int, str]], str | None]:
    songs: list[Song] = []
    rejects: list[tuple[int, str]] = []
    try:
        for song in read_songs([path], on_reject=lambda _, line, reason: rejects.append((line, reason))):
            songs.append(song)  # noqa: PERF402 - what came before an error counts too
    except DataError as error:
        return songs, rejects, str(error)
    return songs, rejects, None


def test_the_table_holds_at_least_sixty_inputs_each_with_its_own_name() -> None:
    assert len({case.told for case in CASES}) == len(CASES) >= 60


def test_a_good_row_stands_between_the_bad_ones_of_a_whole_file(tmp_path: Path) -> None:
    bad = [
        case
        for case in CASES
        if case.name == "a.csv"
        and case.content.startswith(HEAD + A)
        and case.content.endswith(Z)
        and len(case.content) < 1000
    ]
    path = tmp_path / "all.csv"
    path.write_bytes(HEAD + b"".join(case.content.removeprefix(HEAD) for case in bad))
    songs, rejects, error = read(path)
    assert error is None
    assert len(bad) > 10
    lyrics = [song.lyrics for song in songs]
    assert lyrics.count("first") == len(bad)
    assert lyrics.count("last") == sum(case.songs.count("last") for case in bad)
    assert len(rejects) == sum(len(case.rejects) for case in bad)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere.csv")


@pytest.mark.parametrize(
    ("make", "told"),
    [(make_folder, "without song files"), (make_dangling, "no such file")],
    ids=["folder", "link"],
)
def test_a_name_that_is_no_file_is_an_error(tmp_path: Path, make: Callable[[Path], None], told: str) -> None:
    make(tmp_path / "x.csv")
    assert told in str(read(tmp_path / "x.csv")[2])


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + A)

    def refuse(*_: object, **__: object) -> None:  # root may read everything, whatever the file's mode
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied. Ask for the right to read it." in str(read(path)[2])
