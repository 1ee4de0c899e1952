"""New tokens: only their rows are trained, saved and loaded; everything else stays bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors import safe_open
from torch import nn

from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.lora import (
    ADAPTER_WEIGHTS,
    adapter_state,
    add_lora,
    load_adapter,
    save_adapter,
    trainable_parameters,
)
from harness.model import check_vocabulary, load_base_model
from harness.tuned import load_tuned_model
from harness.vocabulary import (
    NewTokens,
    find_new_tokens,
    grow_embeddings,
    name_tokens,
    new_rows_of,
    start_rows,
)
from preprocess.errors import CheckpointError, ConfigError, DataError
from preprocess.manifest import Manifest, write_manifest
from preprocess.schema import Song
from preprocess.shards import open_split
from preprocess.tokenizer import MUSIC_TOKENS, add_music_tokens
from tests.runs import (
    make_config,
    read_adapter,
    read_losses,
    train_on_ranks,
    write_zero3_that_splits_everything,
)
from tests.toys import make_dataset, make_model_dir, make_songs, make_tokenizer

WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")
PLAIN = make_tokenizer()
MUSIC = add_music_tokens(PLAIN)
NEW_IDS = tuple(MUSIC.special_id(token) for token in MUSIC_TOKENS)
ROWS = PLAIN.vocab_size
SPARE = 16
"""Rows of a base whose embedding is larger than its tokenizer."""

IDS = torch.tensor([[5, NEW_IDS[4], 6, NEW_IDS[6], 7, 8, NEW_IDS[4], 9]])


def music_tokens() -> NewTokens:
    return name_tokens(dict(zip(NEW_IDS, MUSIC_TOKENS, strict=True)), MUSIC, ROWS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, int], Path]:
    """Bases by whether their head is tied and how many spare rows they have."""
    folder = tmp_path_factory.mktemp("models")
    return {
        (tie, spare): make_model_dir(folder / f"{tie}{spare}", ROWS + spare, tie=tie)
        for tie in (True, False)
        for spare in (0, SPARE)
    }


def load(path: Path, dtype: torch.dtype = torch.float64) -> nn.Module:
    return load_base_model(ModelSettings(path=str(path)), dtype)


def logits_of(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


def take_steps(model: Any, ids: torch.Tensor = IDS) -> None:
    optimizer = torch.optim.AdamW([parameter for _, parameter in trainable_parameters(model)], lr=1e-2)
    for _ in range(3):
        loss = nn.functional.cross_entropy(logits_of(model, ids)[0, :-1], ids[0, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("targets", [ATTENTION_AND_MLP, WITH_HEAD])
@pytest.mark.parametrize("spare", [0, SPARE])
@pytest.mark.parametrize("tie", [True, False])
def test_training_moves_the_new_rows_alone_and_a_reload_gives_the_same_logits(
    models: dict[tuple[bool, int], Path],
    tmp_path: Path,
    tie: bool,
    spare: int,
    targets: tuple[str, ...],
) -> None:
    base: Any = load(models[tie, spare])
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    adapted: Any = add_lora(base, LoraSettings(r=2, alpha=4, targets=targets), 0, music_tokens())
    rows = new_rows_of(base)
    assert rows is not None
    assert rows.is_tied == tie
    start = rows.embedding.detach().clone()
    take_steps(adapted)
    assert bool((rows.embedding != start).any(dim=1).all())
    for name, weight in base.state_dict().items():
        plain = name.replace(".base_layer", "")
        if plain in before and "new_rows" not in name:
            kept = torch.ones(len(before[plain]), dtype=torch.bool)
            if plain.startswith(("lm_head", "model.embed_tokens")):
                kept[[id_ for id_ in NEW_IDS if id_ < len(kept)]] = False
            assert torch.equal(weight[: len(kept)][kept], before[plain][kept]), name
    trained = logits_of(adapted).detach()
    assert trained.shape[-1] == ROWS + max(spare, len(NEW_IDS))

    state = adapter_state(adapted)
    per_token = sum(weight.numel() for name, weight in state.items() if ".lora_" not in name)
    assert per_token == (1 if tie else 2) * len(NEW_IDS) * 64
    save_adapter(tmp_path, adapted, state)
    loaded: Any = load_adapter(load(models[tie, spare]), tmp_path)
    assert trainable_parameters(loaded) == []
    torch.testing.assert_close(logits_of(loaded.eval()), trained, rtol=0, atol=0)


@pytest.mark.parametrize("tie", [True, False])
def test_the_gradients_are_those_of_training_the_whole_matrices(
    models: dict[tuple[bool, int], Path], tie: bool
) -> None:
    base: Any = load(models[tie, 0])
    add_lora(base, LoraSettings(r=2, alpha=4), 0, music_tokens())
    rows = new_rows_of(base)
    assert rows is not None
    nn.functional.cross_entropy(logits_of(base)[0, :-1], IDS[0, 1:]).backward()  # type: ignore[no-untyped-call]

    whole: Any = load(models[tie, 0])
    grow_embeddings(whole, music_tokens())
    whole.get_input_embeddings().weight.requires_grad = True
    whole.get_output_embeddings().weight.requires_grad = True
    nn.functional.cross_entropy(logits_of(whole)[0, :-1], IDS[0, 1:]).backward()  # type: ignore[no-untyped-call]
    for own, matrix in (
        (rows.embedding, whole.get_input_embeddings()),
        (rows.head, whole.get_output_embeddings()),
    ):
        assert own.grad is not None
        torch.testing.assert_close(own.grad, matrix.weight.grad[list(NEW_IDS)], rtol=0, atol=1e-14)
        assert float(own.grad.abs().max()) > 1e-3


def test_new_rows_start_from_the_rows_of_the_words_of_their_names() -> None:
    weight = torch.randn(ROWS, 8, dtype=torch.float64)
    tokens = music_tokens()
    found = start_rows(weight, tokens, ROWS)
    for row, name in zip(found, tokens.names, strict=True):
        words = PLAIN.encode(" " + name.strip("[]").lower())
        torch.testing.assert_close(row, weight[words].mean(dim=0), rtol=0, atol=1e-15)
    nameless = NewTokens((ROWS - 1, ROWS), ("a", "b"), ((), ()))
    expected = weight[: ROWS - 1].mean(dim=0)
    torch.testing.assert_close(start_rows(weight, nameless, ROWS)[1], expected, rtol=0, atol=1e-15)


def test_spare_rows_of_new_tokens_take_the_start_and_other_rows_stay(
    models: dict[tuple[bool, int], Path],
) -> None:
    base: Any = load(models[True, SPARE])
    before = base.get_input_embeddings().weight.clone()
    grow_embeddings(base, music_tokens())
    after = base.get_input_embeddings().weight
    changed = (after != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == list(NEW_IDS)
    assert base.get_output_embeddings().weight is after


def test_an_embedding_that_zero3_has_split_is_not_grown(models: dict[tuple[bool, int], Path]) -> None:
    base: Any = load(models[True, 0])
    base.get_input_embeddings().weight.ds_id = 0
    with pytest.raises(ConfigError, match="before the engine"):
        grow_embeddings(base, music_tokens())


def make_music_data(folder: Path, *, asked: bool = True) -> Manifest:
    """A data set whose tokenizer has the music tokens and whose lyrics hold them."""

    def sing(count: int, **how: Any) -> list[Song]:
        return [
            replace(song, lyrics=f"[VERSE]\n{song.lyrics}\n[CHORUS]\nHome")
            for song in make_songs(count, **how)
        ]

    with patch("tests.toys.make_songs", sing):
        manifest = make_dataset(folder, num_songs=24, seq_len=256, tokenizer=MUSIC)
    rows = open_split(folder, "train", manifest)
    assert all(MUSIC.special_id("[VERSE]") in row.input_ids for row in (rows[i] for i in range(len(rows))))
    asked_manifest = replace(manifest, extra={"config": {"encode": {"music_tokens": asked}}})
    write_manifest(folder, asked_manifest)
    return asked_manifest


def test_new_tokens_are_those_without_a_row_or_with_a_spare_one(
    models: dict[tuple[bool, int], Path], tmp_path: Path
) -> None:
    manifest = make_music_data(tmp_path / "data")
    for spare in (0, SPARE):
        path = models[True, spare]
        found = find_new_tokens(load(path), str(path), tmp_path / "data", manifest)
        assert found == music_tokens()
    grown = make_model_dir(tmp_path / "grown", MUSIC.vocab_size, tokenizer=MUSIC)
    assert find_new_tokens(load(grown), str(grown), tmp_path / "data", manifest) is None
    plain = make_dataset(tmp_path / "plain", num_songs=3)
    assert find_new_tokens(load(models[True, 0]), str(models[True, 0]), tmp_path / "plain", plain) is None


def test_a_foreign_tokenizer_is_no_reason_to_grow(
    models: dict[tuple[bool, int], Path], tmp_path: Path
) -> None:
    larger = make_tokenizer(vocab_size=410)
    assert larger.vocab_size > ROWS
    manifest = make_dataset(tmp_path / "data", num_songs=3, tokenizer=larger)
    base = load(models[True, 0])
    new = find_new_tokens(base, str(models[True, 0]), tmp_path / "data", manifest)
    assert new is None
    with pytest.raises(DataError, match="model's own tokenizer"):
        check_vocabulary(base, manifest, new)


def test_a_tuned_model_answers_with_the_new_tokens_and_without(
    models: dict[tuple[bool, int], Path], tmp_path: Path
) -> None:
    manifest = make_music_data(tmp_path / "data")
    settings = ModelSettings(path=str(models[True, 0]), precision="fp32")
    adapted: Any = add_lora(
        load_base_model(settings), LoraSettings(r=2, targets=WITH_HEAD), 0, music_tokens()
    )
    take_steps(adapted)
    save_adapter(tmp_path / "adapter", adapted, adapter_state(adapted))
    tuned = load_tuned_model(settings, manifest, tmp_path / "adapter")
    with torch.no_grad(), tuned.as_version("before") as before:
        first = logits_of(before)
        base: Any = load_base_model(settings)
        old = IDS.clamp(max=ROWS - 1)
        torch.testing.assert_close(
            logits_of(before, old)[..., :ROWS], logits_of(base, old), rtol=0, atol=1e-6
        )
    with torch.no_grad(), tuned.as_version("after") as after:
        assert float((logits_of(after) - first).abs().max()) > 1e-3
        torch.testing.assert_close(logits_of(after), logits_of(adapted.eval()), rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="adapter that was trained with them"):
        load_tuned_model(settings, manifest, None)


def test_an_adapter_of_a_tied_base_is_refused_by_the_same_base_untied(
    models: dict[tuple[bool, int], Path], tmp_path: Path
) -> None:
    adapted = add_lora(load(models[True, 0]), LoraSettings(r=2), 0, music_tokens())
    save_adapter(tmp_path, adapted, adapter_state(adapted))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_adapter(load(models[False, 0]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("tie", [True, False])
def test_zero_1_and_3_on_two_ranks_train_the_same_rows_as_one_rank(
    models: dict[tuple[bool, int], Path], tmp_path: Path, tie: bool
) -> None:
    make_music_data(tmp_path / "data")
    splitting = str(write_zero3_that_splits_everything(tmp_path))
    outs = []
    for world_size, configs in ((1, ["zero1"]), (2, ["zero1", splitting])):
        paths = []
        for deepspeed in configs:
            outs.append(tmp_path / f"{Path(deepspeed).stem}-{world_size}")
            overrides = [f"deepspeed={deepspeed}", "schedule.max_steps=3", "batch.global_batch_size=2"]
            overrides += ["lora.targets=[q_proj,v_proj,down_proj,lm_head]", "schedule.save_every_steps=1"]
            paths.append(make_config(tmp_path, outs[-1], tmp_path / "data", models[tie, 0], overrides))
        train_on_ranks(world_size, paths)
    adapters, losses = [read_adapter(out) for out in outs], [read_losses(out) for out in outs]
    with safe_open(str(tmp_path / "zero1-1" / "adapter" / ADAPTER_WEIGHTS), "pt") as weights:
        assert "[VERSE]" in weights.metadata()["new_tokens"]
    for other, curve in zip(adapters[1:], losses[1:], strict=True):
        assert curve == pytest.approx(losses[0], rel=1e-5)
        assert set(other) == set(adapters[0])
        for name, weight in adapters[0].items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=2e-4)
