"""How rows become a micro-batch: flat and padded, against a walk over tokens and their ancestors one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import collate, hash_song
from harness.loss import forest_mask
from preprocess.forest import PackedRow, concatenate, unpack_examples
from preprocess.schema import ROOT
from tests.toys import TASKS, encode_songs, make_songs, make_tokenizer


def make_row(rng: np.random.Generator, num_segments: int) -> PackedRow:
    """Any forest: segments of 1 to 6 tokens, each with any earlier one as its parent, or none."""
    lengths = rng.integers(1, 7, num_segments).astype(np.int32)
    starts = np.cumsum(lengths) - lengths
    mask = rng.random(int(lengths.sum())) < 0.3
    mask[starts] = False
    return PackedRow(
        input_ids=rng.integers(0, 50, len(mask)).astype(np.int32),
        label_mask=mask,
        seq_lens=lengths,
        parents=np.array([rng.integers(-1, i) if i else ROOT for i in range(num_segments)], dtype=np.int32),
        tasks=rng.integers(-1, 4, num_segments).astype(np.int32),
        song_ids=tuple(f"song{i}" for i in rng.integers(0, 5, num_segments)),
    )


def make_rows(seed: int, num_rows: int) -> list[PackedRow]:
    rng = np.random.Generator(np.random.Philox(seed))
    return [make_row(rng, int(rng.integers(1, 8))) for _ in range(num_rows)]


def see_one_by_one(row: PackedRow) -> np.ndarray:
    """bool[T, T]: which token sees which, by walking up from each segment."""
    segment = [s for s, length in enumerate(row.seq_lens) for _ in range(length)]
    sees = np.zeros((len(segment), len(segment)), dtype=bool)
    for query, own in enumerate(segment):
        above = own
        while above != ROOT:
            sees[query] |= [key == above and slot <= query for slot, key in enumerate(segment)]
            above = int(row.parents[above])
    return sees


any_rows = {"seed": st.integers(0, 10**6), "num_rows": st.integers(1, 4)}


@given(**any_rows)
@settings(max_examples=50)
def test_flat_rows_are_one_forest_without_padding(seed: int, num_rows: int) -> None:
    rows = make_rows(seed, num_rows)
    batch, forest = collate(rows), concatenate(rows)
    assert batch.input_ids.shape == (1, sum(len(row.input_ids) for row in rows))
    assert batch.input_ids[0].tolist() == forest.input_ids.tolist()
    sees = see_one_by_one(forest)
    assert np.array_equal(forest_mask(batch.entry, batch.exit)[0, 0].numpy(), sees)
    assert batch.counts.attention_pairs == sees.sum() == batch.layout.pairs
    assert batch.counts.slots == batch.counts.tokens == len(sees)
    assert batch.position_ids[0].tolist() == (sees.sum(axis=1) - 1).tolist()


@given(**any_rows)
@settings(max_examples=50)
def test_padded_rows_see_what_they_see_alone_and_padding_is_counted_apart(seed: int, num_rows: int) -> None:
    rows = make_rows(seed, num_rows)
    batch = collate(rows, flat=False)
    longest = max(len(row.input_ids) for row in rows)
    assert batch.input_ids.shape == (num_rows, longest)
    mask = forest_mask(batch.entry, batch.exit)[:, 0].numpy()
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        assert np.array_equal(mask[i, :length, :length], see_one_by_one(row))
        assert not mask[i, :length, length:].any()
        assert np.array_equal(mask[i, length:], np.eye(longest, dtype=bool)[length:])
        assert batch.token_keys[i, length:].tolist() == [0] * (longest - length)
    assert batch.counts == replace(collate(rows).counts, slots=num_rows * longest)
    assert batch.layout.num_slots == num_rows * longest


@given(**any_rows)
@settings(max_examples=50)
def test_flat_and_padded_hold_the_same_tokens_targets_and_keys(seed: int, num_rows: int) -> None:
    rows = make_rows(seed, num_rows)
    flat, padded = collate(rows), collate(rows, flat=False)
    for batch in (flat, padded):
        forest = concatenate(rows)
        assert batch.targets.tolist() == forest.input_ids[forest.label_mask].tolist()
        for name in ("input_ids", "position_ids", "token_keys"):
            before = getattr(batch, name).flatten()[batch.sources]
            assert before.tolist() == getattr(flat, name).flatten()[flat.sources].tolist()
        after = batch.input_ids.flatten()[batch.sources + 1]
        assert after.tolist() == batch.targets.tolist()
        assert batch.target_tasks.tolist() == flat.target_tasks.tolist()


@given(**any_rows)
@settings(max_examples=50)
def test_examples_and_supervised_tokens_are_counted_by_task(seed: int, num_rows: int) -> None:
    rows = make_rows(seed, num_rows)
    batch = collate(rows)
    tasks = [int(task) for row in rows for task in row.tasks]
    assert batch.examples_by_task(6).tolist() == [tasks.count(task) for task in range(6)]
    assert batch.counts.examples == sum(task >= 0 for task in tasks) == batch.examples_by_task(6).sum()
    of_slot = [task for row in rows for task in np.repeat(row.tasks, row.seq_lens).tolist()]
    mask = [flag for row in rows for flag in row.label_mask.tolist()]
    assert batch.target_tasks.tolist() == [task for task, flag in zip(of_slot, mask, strict=True) if flag]


@pytest.fixture(scope="module")
def shared() -> list[PackedRow]:
    return encode_songs(make_songs(5), make_tokenizer(), seq_len=700)


def keys_by_example(rows: list[PackedRow]) -> dict[tuple[str, int], list[int]]:
    """The keys of every example with its prefix, by song and task."""
    keys: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        of_slot = collate([row]).token_keys[0].tolist()
        marked = replace(row, input_ids=np.arange(len(row.input_ids), dtype=np.int32))
        for example in unpack_examples(marked):
            name = (example.song_ids[0], int(example.tasks[0]))
            keys[name] = [of_slot[slot] for slot in example.input_ids]
    return keys


def test_a_token_has_one_key_in_a_shared_row_alone_and_in_any_packing(shared: list[PackedRow]) -> None:
    expected = keys_by_example(shared)
    assert len(expected) == 5 * len(TASKS)
    alone = [example for row in shared for example in unpack_examples(row)]
    stored_whole = encode_songs(make_songs(5), make_tokenizer(), seq_len=700, share_prefix=False, seed=3)
    for other in (alone, alone[::-1], [concatenate(shared)], [concatenate(alone[::-1])], stored_whole):
        assert keys_by_example(other) == expected


def test_keys_differ_wherever_tokens_do(shared: list[PackedRow]) -> None:
    forest = concatenate(shared)
    keys = collate(shared).token_keys[0]
    assert int(keys.min()) > 0
    # Only the words that the questions about one song have in common come twice: see the next test.
    paths: dict[int, set[tuple[str, tuple[int, ...]]]] = {key: set() for key in keys.tolist()}
    for example in unpack_examples(replace(forest, input_ids=np.arange(len(keys), dtype=np.int32))):
        song = example.song_ids[0]
        words = tuple(forest.input_ids[example.input_ids].tolist())
        for i, slot in enumerate(example.input_ids):
            paths[int(keys[slot])].add((song, words[: i + 1]))
    assert {len(path) for path in paths.values()} == {1}
    different = {path for found in paths.values() for path in found}
    assert len(different) == len(paths)


def test_a_key_tells_songs_orders_and_histories_apart() -> None:
    def keys(ids: list[int], lengths: list[int], parents: list[int], songs: tuple[str, ...]) -> list[int]:
        row = PackedRow(
            input_ids=np.array(ids, dtype=np.int32),
            label_mask=np.zeros(len(ids), dtype=np.bool_),
            seq_lens=np.array(lengths, dtype=np.int32),
            parents=np.array(parents, dtype=np.int32),
            tasks=np.full(len(lengths), -1, dtype=np.int32),
            song_ids=songs,
        )
        keys: list[int] = collate([row]).token_keys[0].tolist()
        return keys

    plain = keys([1, 2, 3, 4], [4], [ROOT], ("a",))
    assert keys([1, 2, 3, 4], [2, 2], [ROOT, 0], ("a", "a")) == plain
    assert not set(keys([1, 2, 3, 4], [4], [ROOT], ("b",))) & set(plain)
    assert keys([1, 3, 2, 4], [4], [ROOT], ("a",))[1:3] != plain[1:3]
    assert keys([9, 2, 3, 4], [4], [ROOT], ("a",))[1:] != plain[1:]
    siblings = keys([1, 2, 5, 7, 6, 7], [2, 2, 2], [ROOT, 0, 0], ("a",) * 3)
    assert len(set(siblings)) == 6  # the same token at the same position, after different words


def test_a_songs_hash_is_the_same_in_every_process() -> None:
    assert hash_song("a song") == 18429403224750240931  # taken down once; Python's own hash changes


def test_no_rows_are_one_padding_slot_that_sees_itself() -> None:
    batch = collate([])
    assert batch.input_ids.shape == batch.token_keys.shape == (1, 1)
    assert forest_mask(batch.entry, batch.exit).tolist() == [[[[True]]]]
    assert (batch.layout.num_slots, len(batch.targets), len(batch.sources)) == (1, 0, 0)
    assert (batch.counts.slots, batch.counts.tokens, batch.counts.attention_pairs) == (1, 0, 0)
    assert batch.examples_by_task(3).tolist() == [0, 0, 0]


def test_a_wrong_parent_changes_what_is_seen_the_pairs_and_the_keys() -> None:
    row = make_rows(3, 1)[0]
    orphans = replace(row, parents=np.full_like(row.parents, ROOT))
    assert not np.array_equal(row.parents, orphans.parents)
    right, wrong = collate([row]), collate([orphans])
    assert right.counts.attention_pairs > wrong.counts.attention_pairs
    assert right.token_keys.tolist() != wrong.token_keys.tolist()
    assert right.layout.pairs != wrong.layout.pairs


def test_a_moved_batch_is_the_same_batch(shared: list[PackedRow]) -> None:
    batch = collate(shared)
    moved = batch.to(torch.device("cpu"))
    for name in ("input_ids", "token_keys", "entry", "targets"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
    assert moved.counts == batch.counts
    assert moved.example_tasks.tolist() == batch.example_tasks.tolist()
    assert torch.equal(moved.layout.cu_seqlens, batch.layout.cu_seqlens)


def test_pinning_reaches_every_tensor_that_is_moved(
    shared: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[int] = []

    def take_down(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", take_down)
    batch = collate(shared).pin()
    moved: list[int] = []

    def move(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        moved.append(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", move)
    batch.to(torch.device("cpu"))
    assert moved
    assert set(moved) <= set(pinned)
