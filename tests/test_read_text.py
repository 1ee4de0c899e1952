from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.read import csv_rows, json_rows
from preprocess.read.chunks import BadLine, JsonText
from preprocess.read.csv_rows import read_cells
from preprocess.read.json_rows import read_json_array, read_json_lines
from preprocess.read.text_files import open_text, read_lines

CELLS = st.text(alphabet='ab",\n é', max_size=8)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module", autouse=True)
def _small_windows() -> object:
    """Windows so small that everything crosses their ends."""
    patch = pytest.MonkeyPatch()
    patch.setattr(csv_rows, "_BLOCK_LINES", 2)
    patch.setattr(json_rows, "_BLOCK_CHARS", 3)
    yield None
    patch.undo()


def read_csv(text: str, rows_per_chunk: int = 3) -> list[tuple[int, list[str] | BadLine]]:
    chunks = list(read_cells(io.StringIO(text, newline=""), ",", rows_per_chunk))
    assert all(num_rows == rows_per_chunk for _, num_rows, _ in chunks[:-1])
    return [row for _, _, cells in chunks for row in cells.rows]


def write_csv(rows: list[tuple[str, str, str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("x", "y", "z"), *rows])
    return text.getvalue()


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_whatever_the_csv_module_writes_is_read(rows: list[tuple[str, str, str]]) -> None:
    read = read_csv(write_csv(rows))
    assert [cells for _, cells in read] == [list(row) for row in rows]
    lines, line = [], 2
    for row in rows:
        lines.append(line)
        line += 1 + "".join(row).count("\n")
    assert [line for line, _ in read] == lines


PLAIN = st.lists(
    st.tuples(*[st.text(alphabet="abc d\n", min_size=1, max_size=8)] * 3), min_size=1, max_size=6
)


@given(
    PLAIN,
    PLAIN,
    st.sampled_from(['"a","b"c","d"\n', '"a","never\n', '"a\n\n"b"\n', 'a,b,"\n', '"a,b\nc","d"\n']),
)
@settings(max_examples=150, deadline=None)
def test_rows_before_and_after_a_broken_one_survive(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]], broken: str
) -> None:
    text = write_csv(before) + broken
    read = read_csv(text + write_csv(after))
    good = [cells for _, cells in read if isinstance(cells, list)]
    bad = [(line, cells) for line, cells in read if isinstance(cells, BadLine)]
    assert good == [list(row) for row in before] + [["x", "y", "z"]] + [list(row) for row in after]
    ((line, row),) = bad
    assert line == write_csv(before).count("\n") + 1
    assert broken.startswith(row.raw)


@pytest.mark.parametrize("is_quoted", [True, False])
def test_lines_of_lyrics_after_a_broken_quote_are_no_rows_of_a_table_of_two_columns(is_quoted: bool) -> None:
    quote = '"' if is_quoted else ""
    told = "Generate a song verse in the style of "
    rows = [f'{quote}{told}artist {n}{quote},"la, la\n{n}"\n' for n in range(30)]
    broken = f'{quote}{told}x{quote},"he "said"\noh, baby\nno comma\nah, me\n"\n'
    read = read_csv("Instruction,Label\n" + "".join(rows) + broken + "".join(rows))
    assert [line for line, cells in read if isinstance(cells, BadLine)] == [62]
    assert sum(isinstance(cells, list) for _, cells in read) == 60


def test_rows_that_begin_otherwise_are_found_again_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "_MAX_LOST_LINES", 5)
    text = "x,y\n" + '"a","b"\n' * 30 + '"a","b"c\n' + "a,b\n" * 10
    read = read_csv(text)
    assert [line for line, cells in read if isinstance(cells, BadLine)] == [32]
    assert [cells for _, cells in read].count(["a", "b"]) == 30 + 5


def test_a_quote_never_closed_is_told_apart_within_the_longest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW_CHARS", 100)
    head, row = "x,y,z\n", "a,b,c\n"
    read = read_csv(head + row + 'a,"b,c\n' + row * 50)
    assert [line for line, cells in read if isinstance(cells, BadLine)] == [3]
    assert len(read) == 52
    csv.field_size_limit(csv_rows.MAX_ROW_CHARS)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), min_size=1, max_size=6), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_json_module_writes_is_read(rows: list[dict[str, object]], is_inside: bool) -> None:
    document = {"n": 12, "rows": rows, "after": [1, 2]} if is_inside else rows
    for indent in (None, 2):
        file = io.StringIO(json.dumps(document, indent=indent))
        chunks = [chunk for _, _, chunk in read_json_array(Path("a"), file, 4)]
        assert [row for chunk in chunks for _, row in chunk.unpack()] == rows
    text = "".join(json.dumps(row) + "\n" for row in rows)
    lines = [chunk for _, _, chunk in read_json_lines(io.StringIO(text), 4)]
    assert [row for chunk in lines for _, row in chunk.unpack()] == rows


def test_empty_lines_are_counted_and_give_nothing() -> None:
    rows = list(JsonText(7, '\n{"a": 1}\n\n{"a": 2}\n').unpack())
    assert rows == [(8, {"a": 1}), (10, {"a": 2})]


def test_lines_that_are_too_long_are_cut_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.read.text_files.MAX_LINE_CHARS", 10)
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfab\n" + b"x" * 35 + b"\ncd\n" + b"y" * 9 + b"\nend")
    with open_text(path) as file:
        assert list(read_lines(file)) == ["ab\n", "x" * 10, "cd\n", "y" * 9 + "\n", "end"]
