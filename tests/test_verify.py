from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from preprocess import shards
from preprocess.check import split_checks
from preprocess.check.verify import CHECKS, MAX_FINDINGS_KEPT, find_damage, print_report, verify_dataset
from preprocess.durable import sha256_of
from preprocess.errors import DataError
from preprocess.forest import PackedRow, concatenate
from preprocess.manifest import read_manifest, write_manifest
from preprocess.prompt import encode_pieces, find_format
from preprocess.row_batch import SCHEMA, RowBatch
from preprocess.schema import ROOT
from preprocess.shards import write_split
from tests.test_shards import cut_at_batch_boundary
from tests.toys import (
    TASKS,
    Family,
    encode_songs,
    make_dataset,
    make_songs,
    make_tokenizer,
    write_sealed,
    write_toy_manifest,
)

SEQ_LEN = 512


def findings(folder: Path) -> list[str]:
    """Findings as lines; each also makes `verify_dataset` refuse with exit code 4 and say so."""
    report = find_damage(folder)
    lines = [str(finding) for finding in report.findings]
    if report.ok:
        verify_dataset(folder)
        return lines
    with pytest.raises(DataError) as raised:
        verify_dataset(folder)
    assert raised.value.exit_code == 4
    assert lines[0] in str(raised.value)
    return lines


def first_shard(folder: Path, split: str = "train") -> Path:
    return folder / split / read_manifest(folder).splits[split].shards[0].file


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_an_untouched_data_set_passes(tmp_path: Path, family: Family, share_prefix: bool) -> None:
    manifest = make_dataset(tmp_path, family=family, share_prefix=share_prefix)
    report = verify_dataset(tmp_path)
    assert report.ok
    assert report.findings == []
    num_shards = sum(len(split.shards) for split in manifest.splits.values())
    num_rows = sum(split.num_rows for split in manifest.splits.values())
    num_examples = sum(split.num_examples for split in manifest.splits.values())
    num_lyrics = report.num_checked["lyrics"]
    assert num_lyrics == 15 if share_prefix else 15 < num_lyrics <= num_examples
    numbers = [1, 1, num_shards, num_rows, num_examples, 32, 15, num_lyrics, 5]
    assert [report.num_checked[name] for name in CHECKS] == numbers


def test_songs_split_over_groups_pass(tmp_path: Path) -> None:
    make_dataset(tmp_path, seq_len=150)
    assert findings(tmp_path) == []
    assert read_manifest(tmp_path).splits["train"].num_rows > 12


def test_progress_counts_every_row(toy_dataset: Path) -> None:
    seen: list[int] = []
    report = verify_dataset(toy_dataset, seen.append)
    assert sum(seen) == report.num_checked["rows"] == 8


def test_a_flipped_bit_is_found(toy_dataset: Path) -> None:
    path = first_shard(toy_dataset)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    (line,) = findings(toy_dataset)
    assert line.startswith("train/data-00000-of-00003.arrow: ")
    assert "sha256 differs" in line


def test_a_shard_cut_at_a_batch_boundary_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BATCH", 1)
    make_dataset(tmp_path)
    cut_at_batch_boundary(first_shard(tmp_path), 1)
    (line,) = findings(tmp_path)
    assert "data-00000-of-00003.arrow" in line


def test_a_cut_shard_whose_hash_was_made_to_fit_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BATCH", 1)
    manifest = make_dataset(tmp_path)
    path = first_shard(tmp_path)
    cut_at_batch_boundary(path, 1)
    split = manifest.splits["train"]
    forged = replace(split.shards[0], num_bytes=path.stat().st_size, sha256=sha256_of(path))
    new_split = replace(split, shards=(forged, *split.shards[1:]))
    write_manifest(tmp_path, replace(manifest, splits={**manifest.splits, "train": new_split}))
    (line,) = findings(tmp_path)
    assert "1 rows, expected 2" in line


def test_a_deleted_shard_is_found_and_the_others_are_still_read(toy_dataset: Path) -> None:
    first_shard(toy_dataset, "eval").unlink()
    (line,) = findings(toy_dataset)
    assert line.startswith("eval/data-00000-of-00001.arrow: ")
    assert "missing" in line
    assert find_damage(toy_dataset).num_checked["rows"] == 6


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("num_rows", "train num_rows"),
        ("num_songs", "train num_songs"),
        ("num_examples", "train num_examples"),
        ("num_tokens", "train num_tokens"),
        ("num_supervised", "train num_supervised"),
        ("unshared_tokens", "train unshared_tokens"),
    ],
)
def test_a_changed_count_is_found(toy_dataset: Path, name: str, place: str) -> None:
    manifest = read_manifest(toy_dataset)
    split = manifest.splits["train"]
    changed = replace(split, **{name: getattr(split, name) + 1})
    write_manifest(toy_dataset, replace(manifest, splits={**manifest.splits, "train": changed}))
    (line,) = findings(toy_dataset)
    value = getattr(split, name)
    assert line == f"{place}: the rows give {value:,}, the manifest says {value + 1:,}"


@pytest.mark.parametrize("key", ["examples", "supervised_tokens"])
def test_a_changed_count_of_a_task_is_found(toy_dataset: Path, key: str) -> None:
    value = json.loads((toy_dataset / "manifest.json").read_text())
    value["splits"]["eval"]["by_task"]["genre"][key] -= 1
    write_sealed(toy_dataset, value)
    (line,) = findings(toy_dataset)
    assert line.startswith(f"eval {key} of task genre: the rows give")


def test_a_task_that_the_manifest_forgot_to_count_is_found(toy_dataset: Path) -> None:
    value = json.loads((toy_dataset / "manifest.json").read_text())
    del value["splits"]["train"]["by_task"]["themes"]
    write_sealed(toy_dataset, value)
    assert [line.split(":")[0] for line in findings(toy_dataset)] == [
        "train examples of task themes",
        "train supervised_tokens of task themes",
    ]


def test_another_tokenizer_is_found(toy_dataset: Path) -> None:
    other = make_tokenizer("chatml", vocab_size=300).to_json()
    (toy_dataset / "tokenizer" / "tokenizer.json").write_text(other, encoding="utf-8")
    (line,) = findings(toy_dataset)
    assert line.startswith("tokenizer: sha256 ")


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_tokenizer_that_is_missing_or_damaged_is_found(toy_dataset: Path, content: str | None) -> None:
    path = toy_dataset / "tokenizer" / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    (line,) = findings(toy_dataset)
    assert line.startswith("tokenizer: tokenizer")


@pytest.mark.parametrize(
    "changes",
    [{"stop_token_id": 5}, {"stop_token": "<|endoftext|>"}, {"vocab_size": 999}, {"prompt_format": "plain"}],
)
def test_a_manifest_that_disagrees_with_its_tokenizer_is_found(
    toy_dataset: Path, changes: dict[str, Any]
) -> None:
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), **changes))
    assert any(line.startswith("tokenizer: vocabulary, format, stop token") for line in findings(toy_dataset))


def test_another_system_message_is_found(toy_dataset: Path) -> None:
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), system="You are a pirate."))
    lines = findings(toy_dataset)
    assert lines[0].startswith("prompt format chatml: renders with sha256 ")
    assert len(lines) == 16
    assert all("does not begin with the format's opening" in line for line in lines[1:])


@pytest.mark.parametrize(
    "content", [None, "{}", '{"_data_files": [{"filename": "data-00000-of-00009.arrow"}]}']
)
def test_a_state_file_that_lists_other_shards_is_found(toy_dataset: Path, content: str | None) -> None:
    path = toy_dataset / "train" / "state.json"
    path.unlink() if content is None else path.write_text(content)
    lines = findings(toy_dataset)
    assert len(lines) == 2  # what it says, and that it is not the file that was written
    assert all(line.startswith("train/state.json: ") for line in lines)


def test_a_song_in_two_splits_is_found(tmp_path: Path) -> None:
    manifest = make_dataset(tmp_path)
    rows = encode_songs(make_songs(15)[11:], make_tokenizer(), SEQ_LEN)
    splits = {"train": manifest.splits["train"], "eval": write_split(tmp_path / "eval", rows, TASKS, 9)}
    write_toy_manifest(tmp_path, splits, make_tokenizer(), SEQ_LEN)
    by_id, by_lyrics = findings(tmp_path)
    assert by_id == "song song-0011: is in split eval and in split train"
    assert by_lyrics.startswith("song song-0011 of split eval: is a copy of song song-0011 of split train")


ODE = (
    "Walking down the avenue where nobody ever knows my name",
    "Counting every lamp that burns against the falling winter rain",
    "Somewhere past the harbour there are windows made of yellow light",
    "Carry me across the water, carry me across the night",
    "Every single letter that you wrote is in my coat again",
    "Folded like a paper boat and floating in a mountain stream",
    "Nothing that the morning says could ever take away this dream",
)
OTHER = (
    "Hammers on the railroad ring from Abilene to Santa Fe",
    "Dust is in the coffee and the whisky was a day away",
    "Brother, lend your shovel, for the devil has a debt to pay",
    "Mule train in the canyon with a lantern swinging to and fro",
    "Mama said a working man has only got one road to go",
    "Thunder on the mesa and the prettiest of girls below",
)


def write_splits(folder: Path, **splits: dict[str, tuple[str, ...]]) -> None:
    """A data set of songs given by id and lines, split by split."""
    make_dataset(folder, num_eval_songs=0)
    song = make_songs(1)[0]
    infos = {
        split: write_split(
            folder / split,
            encode_songs(
                [replace(song, id=name, lyrics="\n".join(lines)) for name, lines in songs.items()],
                make_tokenizer(),
                SEQ_LEN * 2,
            ),
            TASKS,
            9,
        )
        for split, songs in splits.items()
    }
    write_toy_manifest(folder, infos, make_tokenizer(), SEQ_LEN * 2)


def test_another_song_does_not_cross(tmp_path: Path) -> None:
    write_splits(
        tmp_path,
        train={"a": ODE},
        eval={"b": OTHER},
        unseen={"c": tuple(make_songs(1)[0].lyrics.split("\n"))},
    )
    assert findings(tmp_path) == []


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (ODE, "copy"),
        (tuple(line.upper() + "!" for line in ODE), "copy"),
        ((*ODE[:-1], "Nothing that the evening says could ever take away this song"), "near-duplicate"),
        (ODE[:3], "part"),
    ],
)
def test_a_cover_in_another_split_is_found_by_its_lyrics(
    tmp_path: Path, lines: tuple[str, ...], kind: str
) -> None:
    write_splits(tmp_path, train={"a": OTHER, "b": ODE}, eval={"cover": lines})
    (line,) = findings(tmp_path)
    assert line.startswith(f"song cover of split eval: is a {kind} of song b of split train (similarity ")


def test_two_held_out_splits_are_compared_with_each_other(tmp_path: Path) -> None:
    write_splits(tmp_path, train={"a": OTHER}, eval={"b b": ODE}, eval_unseen={"c": ODE})
    (line,) = findings(tmp_path)
    assert line.startswith("song c of split eval_unseen: is a copy of song b b of split eval ")


def test_two_songs_that_are_alike_in_one_split_are_not_crossing(tmp_path: Path) -> None:
    write_splits(tmp_path, train={"a": OTHER}, eval={"b": ODE, "c": ODE})
    assert findings(tmp_path) == []


def test_no_manifest_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a finished data set"):
        find_damage(tmp_path)


# Rows that are wrong although every hash fits. The row holds two songs, segments 0 … 4 and 5 … 9.


def good_row() -> PackedRow:
    first, second = (encode_songs([song], make_tokenizer(), SEQ_LEN)[0] for song in make_songs(2))
    return concatenate([first, second])


def findings_of_row(folder: Path, row: PackedRow) -> list[str]:
    make_dataset(folder, num_songs=1, num_eval_songs=0)
    info = write_split(folder / "train", [], TASKS, 9)
    good = write_split(folder / "good", [good_row()], TASKS, 9)
    # The counts are left as the good row gives them where counting the wrong one is not possible at all.
    path = folder / "train" / info.shards[0].file
    with pa.ipc.new_stream(path, SCHEMA) as writer:
        writer.write_batch(RowBatch.of([row]).to_arrow())
    shard = replace(info.shards[0], num_rows=1, num_bytes=path.stat().st_size, sha256=sha256_of(path))
    write_toy_manifest(folder, {"train": replace(good, shards=(shard,))}, make_tokenizer(), SEQ_LEN)
    return [line for line in findings(folder) if line.startswith("train row")]


def changed(array: Any, **at: int) -> Any:
    """A copy with some entries set: `changed(a, i3=7)` sets a[3] = 7."""
    copy = array.copy()
    for index, value in at.items():
        copy[int(index[1:])] = value
    return copy


def start_of(row: PackedRow, segment: int) -> int:
    return int(row.seq_lens[:segment].sum())


def supervised_slots(row: PackedRow, segment: int) -> list[int]:
    start = start_of(row, segment)
    return [start + i for i in np.flatnonzero(row.label_mask[start : start + row.seq_lens[segment]]).tolist()]


def with_mask(row: PackedRow, slot: int, value: bool) -> PackedRow:
    return replace(row, label_mask=changed(row.label_mask, **{f"i{slot}": value}))


def with_id(row: PackedRow, slot: int, token: int) -> PackedRow:
    return replace(row, input_ids=changed(row.input_ids, **{f"i{slot}": token}))


def with_parent(row: PackedRow, segment: int, parent: int) -> PackedRow:
    return replace(row, parents=changed(row.parents, **{f"i{segment}": parent}))


def with_task(row: PackedRow, segment: int, task: int) -> PackedRow:
    return replace(row, tasks=changed(row.tasks, **{f"i{segment}": task}))


def without_mask_of(row: PackedRow, segment: int) -> PackedRow:
    for slot in supervised_slots(row, segment):
        row = with_mask(row, slot, False)
    return row


def with_text_for_special(row: PackedRow) -> PackedRow:
    """The first question's end of turn as ordinary characters: it reads the same and is not the same."""
    tokenizer = make_tokenizer()
    prompt = find_format(tokenizer)
    num_header = len(encode_pieces(tokenizer, prompt.after_question))
    slot = supervised_slots(row, 1)[0] - num_header
    fake = tokenizer.encode("<|im_end|>")
    assert row.input_ids[slot] == tokenizer.special_id("<|im_end|>")
    return replace(
        row,
        input_ids=np.concatenate([row.input_ids[:slot], fake, row.input_ids[slot + 1 :]]).astype(np.int32),
        label_mask=np.insert(row.label_mask, slot, [False] * (len(fake) - 1)),
        seq_lens=changed(row.seq_lens, i1=int(row.seq_lens[1]) + len(fake) - 1),
    )


def with_opening_as_text(row: PackedRow) -> PackedRow:
    """The chat's first special token as ordinary characters."""
    fake = make_tokenizer().encode("<|im_start|>")
    return replace(
        row,
        input_ids=np.concatenate([fake, row.input_ids[1:]]).astype(np.int32),
        label_mask=np.insert(row.label_mask, 0, [False] * (len(fake) - 1)),
        seq_lens=changed(row.seq_lens, i0=int(row.seq_lens[0]) + len(fake) - 1),
    )


def with_other_words_before_the_lyrics(row: PackedRow) -> PackedRow:
    tokenizer, ids = make_tokenizer(), row.input_ids.tolist()
    ends = [i for i in range(len(ids)) if tokenizer.decode(ids[: i + 1]).endswith("of a song.")]
    return with_id(row, ends[0], 65)


WRONG_ROWS: dict[str, tuple[Callable[[PackedRow], PackedRow], str]] = {
    "parent after its child": (lambda r: with_parent(r, 1, 3), "each parent must come before its child"),
    "parent is itself": (lambda r: with_parent(r, 1, 1), "each parent must come before its child"),
    "parent is a sibling": (
        lambda r: with_parent(r, 2, 1),
        "segment 2 continues segment 1, which holds an answer",
    ),
    "parent is another song": (
        lambda r: with_parent(r, 6, 0),
        "segment 6 of song 'song-0001' continues song 'song-0000'",
    ),
    "branch is a root": (
        lambda r: with_parent(r, 2, ROOT),
        "segment 2 does not begin with the format's opening",
    ),
    "lengths do not add up": (
        lambda r: replace(r, seq_lens=changed(r.seq_lens, i0=int(r.seq_lens[0]) - 1)),
        "mask values, segments of",
    ),
    "boundary between segments moved": (
        lambda r: replace(
            r, seq_lens=changed(r.seq_lens, i1=int(r.seq_lens[1]) - 1, i2=int(r.seq_lens[2]) + 1)
        ),
        "the first token of a segment is supervised",
    ),
    "mask starts a token early": (
        lambda r: with_mask(r, supervised_slots(r, 1)[0] - 1, True),
        "segment 1 has a question that does not end with",
    ),
    "mask starts a token late": (
        lambda r: with_mask(r, supervised_slots(r, 1)[0], False),
        "segment 1 has a question that does not end with",
    ),
    "mask has a hole": (
        lambda r: with_mask(r, supervised_slots(r, 1)[1], False),
        "segment 1 has supervised tokens that are not one run up to its end",
    ),
    "stop token not supervised": (
        lambda r: with_mask(r, supervised_slots(r, 1)[-1], False),
        "segment 1 has supervised tokens that are not one run up to its end",
    ),
    "nothing supervised": (
        lambda r: without_mask_of(r, 7),
        "segment 7 holds an example without a supervised token",
    ),
    "lyrics supervised": (
        lambda r: with_mask(r, 20, True),
        "segment 0 is a prefix, yet holds supervised tokens",
    ),
    "answer does not stop": (
        lambda r: with_id(r, supervised_slots(r, 4)[-1], 65),
        "segment 4 ends in id 65, not in the stop token 2",
    ),
    "answer stops twice": (
        lambda r: with_id(r, supervised_slots(r, 4)[0], 2),
        "segment 4 has the stop token in the middle of its answer",
    ),
    "id outside the vocabulary": (
        lambda r: with_id(r, 30, 384),
        "a token id lies outside the vocabulary of 384",
    ),
    "opening damaged": (lambda r: with_id(r, 2, 65), "segment 0 does not begin with the format's opening"),
    "opening without its special token": (
        lambda r: with_id(r, 0, 0),
        "segment 0 does not begin with the format's opening",
    ),
    "opening spelt as text": (with_opening_as_text, "segment 0 does not begin with the format's opening"),
    "other words before the lyrics": (
        with_other_words_before_the_lyrics,
        "segment 0 does not begin with the format's opening",
    ),
    "end of turn spelt as text": (with_text_for_special, "segment 1 has a question that does not end with"),
    "task unknown": (lambda r: with_task(r, 1, 4), "a task's index lies outside 0 … 3"),
    "task below none": (lambda r: with_task(r, 0, -2), "a task's index lies outside 0 … 3"),
    "prefix taken for an example": (
        lambda r: with_task(r, 0, 1),
        "segment 1 continues segment 0, which holds an answer",
    ),
    "example taken for a prefix": (
        lambda r: with_task(r, 3, -1),
        "segment 3 is a prefix, yet holds supervised tokens",
    ),
}


def test_the_row_that_is_made_wrong_below_is_well_formed(tmp_path: Path) -> None:
    assert good_row().parents.tolist() == [ROOT, 0, 0, 0, 0, ROOT, 5, 5, 5, 5]
    assert findings_of_row(tmp_path, good_row()) == []
    assert findings(tmp_path) == []


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_with_fitting_hashes_is_found(tmp_path: Path, name: str) -> None:
    make_wrong, message = WRONG_ROWS[name]
    lines = findings_of_row(tmp_path, make_wrong(good_row()))
    assert any(line.startswith("train row 0: ") and message in line for line in lines), lines


def test_a_wrong_row_written_by_the_writer_itself_is_found(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    rows = encode_songs(make_songs(12), make_tokenizer(), SEQ_LEN)
    rows[3] = with_mask(rows[3], supervised_slots(rows[3], 1)[0], False)
    info = write_split(tmp_path / "train", rows, TASKS, 2)
    write_toy_manifest(tmp_path, {"train": info}, make_tokenizer(), SEQ_LEN)
    (line,) = findings(tmp_path)
    assert line.startswith("train row 3: segment 1 has a question that does not end with")


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shifted_mask_is_found_in_every_format(tmp_path: Path, family: Family, shift: int) -> None:
    tokenizer = make_tokenizer(family)
    rows = encode_songs(make_songs(1), tokenizer, SEQ_LEN)
    slot = supervised_slots(rows[0], 1)[0]
    rows[0] = with_mask(rows[0], slot + min(shift, 0), shift < 0)
    make_dataset(tmp_path, family=family, num_eval_songs=0)
    info = write_split(tmp_path / "train", rows, TASKS, 2)
    write_toy_manifest(tmp_path, {"train": info}, tokenizer, SEQ_LEN)
    (line,) = findings(tmp_path)
    assert line.startswith("train row 0: segment 1 has a question that does not end with")


def test_a_row_longer_than_the_manifest_says_is_found(toy_dataset: Path) -> None:
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), seq_len=400))
    assert all("more than seq_len 400" in line for line in findings(toy_dataset))


def test_a_prefix_that_nothing_continues_is_found(tmp_path: Path) -> None:
    row = good_row()
    end = start_of(row, 6)
    bare = PackedRow(
        row.input_ids[:end],
        row.label_mask[:end],
        row.seq_lens[:6],
        row.parents[:6],
        row.tasks[:6],
        row.song_ids[:6],
    )
    assert findings_of_row(tmp_path, bare) == ["train row 0: segment 5 is a prefix that no example continues"]


def test_the_report_is_json_and_prints_as_a_table(toy_dataset: Path) -> None:
    first_shard(toy_dataset, "eval").unlink()
    report = find_damage(toy_dataset)
    value = json.loads(json.dumps(report.to_dict()))
    assert value["ok"] is False
    assert value["checks"]["shards"] == {"checked": 4, "found": 1}
    assert value["findings"][0]["place"] == "eval/data-00000-of-00001.arrow"
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    assert "eval/data-00000-of-00001.arrow: " in out.getvalue()
    for name in CHECKS:
        assert f" {name} " in out.getvalue()


def test_many_findings_are_counted_and_the_first_kept(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_songs=60)
    write_manifest(tmp_path, replace(read_manifest(tmp_path), system="Other."))
    report = find_damage(tmp_path)
    assert (report.num_found["prompt"], report.num_found["rows"]) == (1, 63)
    assert len(report.findings) == 1 + MAX_FINDINGS_KEPT
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    assert f"… and {63 - MAX_FINDINGS_KEPT} more" in out.getvalue()
    with pytest.raises(DataError, match="64 findings") as raised:
        verify_dataset(tmp_path)
    assert len(str(raised.value).splitlines()) == 7


def spelt_out(row: PackedRow, segment: int) -> PackedRow:
    """The first token of an answer as one token a byte: it reads the same, and is what no prompt is rendered to."""
    tokenizer = make_tokenizer()
    slot = next(
        i for i in supervised_slots(row, segment) if len(tokenizer.decode([int(row.input_ids[i])])) > 1
    )
    text = tokenizer.decode([int(row.input_ids[slot])])
    ids = [id_ for char in text for id_ in tokenizer.encode(char)]
    assert tokenizer.decode(ids) == text
    return replace(
        row,
        input_ids=np.concatenate([row.input_ids[:slot], ids, row.input_ids[slot + 1 :]]).astype(np.int32),
        label_mask=np.insert(row.label_mask, slot, [True] * (len(ids) - 1)),
        seq_lens=changed(row.seq_lens, **{f"i{segment}": int(row.seq_lens[segment]) + len(ids) - 1}),
    )


def with_lyrics_spelt_out(row: PackedRow) -> PackedRow:
    tokenizer = make_tokenizer()
    slot = next(i for i in range(60, 200) if len(tokenizer.decode([int(row.input_ids[i])])) > 1)
    ids = [id_ for char in tokenizer.decode([int(row.input_ids[slot])]) for id_ in tokenizer.encode(char)]
    return replace(
        row,
        input_ids=np.concatenate([row.input_ids[:slot], ids, row.input_ids[slot + 1 :]]).astype(np.int32),
        label_mask=np.insert(row.label_mask, slot, [False] * (len(ids) - 1)),
        seq_lens=changed(row.seq_lens, i0=int(row.seq_lens[0]) + len(ids) - 1),
    )


@pytest.mark.parametrize(
    ("make_wrong", "message", "num_wrong"),
    [
        (lambda row: spelt_out(row, 4), "answers '", 1),
        (with_lyrics_spelt_out, "asks '", 4),
    ],
)
def test_text_in_other_ids_than_inference_would_use_is_found(
    tmp_path: Path, make_wrong: Callable[[PackedRow], PackedRow], message: str, num_wrong: int
) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    (row,) = encode_songs(make_songs(1), make_tokenizer(), SEQ_LEN)
    info = write_split(tmp_path / "train", [make_wrong(row)], TASKS, 2)
    write_toy_manifest(tmp_path, {"train": info}, make_tokenizer(), SEQ_LEN)
    lines = findings(tmp_path)
    assert len(lines) == num_wrong
    for line in lines:
        assert line.startswith("train row 0, example ")
        assert message in line
        assert line.endswith("in other ids than the format renders")


def test_a_sample_is_spread_over_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_checks, "NUM_SAMPLE_ROWS", 3)
    make_dataset(tmp_path, num_eval_songs=0)
    assert find_damage(tmp_path).num_checked["sample"] == 3 * 8


def test_side_files_are_those_that_the_manifest_lists(toy_dataset: Path) -> None:
    names = ("labels.json", "extra.html")
    (toy_dataset / "extra.html").write_text("<p>")
    files = {name: sha256_of(toy_dataset / name) for name in names}
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), extra={"files": files}))
    assert findings(toy_dataset) == []
    assert find_damage(toy_dataset).num_checked["files"] == 2 + 5
    (toy_dataset / "extra.html").write_text("<b>")
    (toy_dataset / "labels.json").unlink()
    assert findings(toy_dataset) == [
        "labels.json: missing; the manifest lists it",
        "extra.html: is not the file that was written (sha256 differs)",
    ]


@pytest.mark.parametrize("files", [["labels.json"], {"../labels.json": "00"}])
def test_a_list_of_side_files_that_is_none_is_found(toy_dataset: Path, files: Any) -> None:
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), extra={"files": files}))
    (line,) = findings(toy_dataset)
    assert line.startswith("manifest.json: ")


def test_a_data_set_of_another_template_is_found(toy_dataset: Path) -> None:
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), prompt_sha256="0" * 64))
    (line,) = findings(toy_dataset)
    assert line.startswith("prompt format chatml: renders with sha256 ")


def test_every_byte_of_a_shard_and_a_side_file_counts(toy_dataset: Path) -> None:
    files = {"labels.json": sha256_of(toy_dataset / "labels.json")}
    write_manifest(toy_dataset, replace(read_manifest(toy_dataset), extra={"files": files}))
    rng = np.random.default_rng(0)
    for path in (first_shard(toy_dataset), first_shard(toy_dataset, "eval"), toy_dataset / "labels.json"):
        whole = path.read_bytes()
        for place in rng.integers(len(whole), size=12).tolist():
            data = bytearray(whole)
            data[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(data)
            assert not find_damage(toy_dataset).ok
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert not find_damage(toy_dataset).ok
        path.write_bytes(whole)
    assert findings(toy_dataset) == []


def row_without_lyrics(
    family: Family, instruction: str = "Write a song in the style of Ada Vale."
) -> PackedRow:
    """One example that follows no lyrics, beside a song's tree."""
    tokenizer = make_tokenizer(family)
    prompt = find_format(tokenizer)
    question = encode_pieces(tokenizer, prompt.without_lyrics(instruction))
    answer = encode_pieces(tokenizer, prompt.answer("Sing of the river\nand the rain"))
    alone = PackedRow(
        np.array(question + answer, dtype=np.int32),
        np.arange(len(question + answer)) >= len(question),
        np.array([len(question + answer)], dtype=np.int32),
        np.array([ROOT], dtype=np.int32),
        np.array([0], dtype=np.int32),
        ("song-x",),
    )
    return concatenate([alone, *encode_songs(make_songs(1), tokenizer, SEQ_LEN)])


def findings_of(folder: Path, row: PackedRow, family: Family) -> list[str]:
    make_dataset(folder, family=family, num_eval_songs=0)
    info = write_split(folder / "train", [row], TASKS, 2)
    write_toy_manifest(folder, {"train": info}, make_tokenizer(family), SEQ_LEN)
    return findings(folder)


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
def test_a_question_that_follows_no_lyrics_passes(tmp_path: Path, family: Family) -> None:
    assert findings_of(tmp_path, row_without_lyrics(family), family) == []
    report = find_damage(tmp_path)
    assert (report.num_checked["sample"], report.num_checked["lyrics"]) == (5, 0)


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
def test_a_question_that_follows_no_lyrics_has_the_format_s_opening_too(
    tmp_path: Path, family: Family
) -> None:
    row = row_without_lyrics(family)
    lines = findings_of(tmp_path, with_id(row, 4, int(row.input_ids[5])), family)
    assert any("segment 0 does not begin with the format's opening" in line for line in lines)


def test_lyrics_whose_opening_is_damaged_are_no_question_without_lyrics(tmp_path: Path) -> None:
    tokenizer, rows = make_tokenizer(), encode_songs(make_songs(1), make_tokenizer(), 900, share_prefix=False)
    (line, *_) = findings_of_row(tmp_path, with_other_words_before_the_lyrics(rows[0]))
    assert "segment 0 does not begin with the format's opening" in line
    assert tokenizer.decode(rows[0].input_ids.tolist()).startswith("<|im_start|>")
