"""Tokens that a base model does not know: their rows of the embedding and of the head, the only ones that are trained.

The matrices themselves stay frozen. A row is a parameter of its own, [K, H] for K tokens, which stands in for the
matrix's row on the way in and on the way out: what is trained, kept by the optimizer, gathered and saved is K rows.
Where the head is the embedding (tied), both use the same parameter, as both use the same matrix.

It must be attached before DeepSpeed splits the model: under ZeRO-3 a matrix that has been split cannot grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from preprocess.errors import ConfigError
from preprocess.manifest import Manifest
from preprocess.tokenizer import MUSIC_TOKENS, TextTokenizer, load_tokenizer

PARAMETER = "new_rows"


@dataclass(frozen=True, slots=True)
class NewTokens:
    """Tokens whose rows are trained.

    Attributes:
        ids: Their ids, rising.
        names: Their texts, "[VERSE]".
        words: For each one, ids of known tokens whose rows' mean it starts from; none: the mean of all rows.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    words: tuple[tuple[int, ...], ...]

    @property
    def vocab_size(self) -> int:
        """Rows that the embedding needs at least."""
        return self.ids[-1] + 1


def find_new_tokens(model: nn.Module, model_path: str, data: Path, manifest: Manifest) -> NewTokens | None:
    """The music tokens of a data set that a base model does not know, or None when there are none.

    A token is new when the embedding has no row for it, or when the data set was built with `encode.music_tokens` and
    the base's own tokenizer lacks it: then its row is a spare one, which nobody trained.

    Args:
        model: The base.
        model_path: Where it came from, for its tokenizer.
        data: Folder of the data set.
        manifest: Of the data set.

    Raises:
        ConfigError: The data set's tokenizer cannot be read.
    """
    rows = num_rows(model)
    asked = manifest.extra.get("config", {}).get("encode", {}).get("music_tokens", False)
    if manifest.vocab_size <= rows and not asked:
        return None
    tokenizer = load_tokenizer(data / "tokenizer")
    known = _load_own_tokenizer(model_path)
    candidates = {tokenizer.special_id(t): t for t in MUSIC_TOKENS if tokenizer.has_added_token(t)}
    new = {
        id_: token
        for id_, token in sorted(candidates.items())
        if id_ >= rows or (asked and not (known is not None and known.has_added_token(token)))
    }
    if not new:
        return None
    return name_tokens(new, tokenizer, min(rows, min(new)))


def _load_own_tokenizer(model_path: str) -> TextTokenizer | None:
    try:
        return load_tokenizer(model_path)
    except ConfigError:
        return None


def name_tokens(new: dict[int, str], tokenizer: TextTokenizer, num_known: int) -> NewTokens:
    """Tokens with the known ones that spell their names: [CHORUS] starts from the rows of " chorus"."""
    words = []
    for token in new.values():
        ids = tokenizer.encode(" " + token.strip("[]").lower())
        words.append(tuple(id_ for id_ in ids if id_ < num_known and id_ not in new))
    return NewTokens(tuple(new), tuple(new.values()), tuple(words))


def num_rows(model: nn.Module) -> int:
    """Rows of a causal model's embedding."""
    return int(cast("Any", model).get_input_embeddings().weight.shape[0])


@torch.no_grad()
def grow_embeddings(model: nn.Module, tokens: NewTokens) -> None:
    """Give a frozen causal model rows for new tokens, in the embedding and in the head, tied or not as they are.

    Rows that are there stay as they are, bit for bit, but for spare rows of new tokens.

    Raises:
        ConfigError: The matrices have been split by ZeRO-3 already, or the head has a bias.
    """
    causal = cast("Any", model)
    if getattr(causal.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError("new tokens: the model's head has a bias; not supported")
    if hasattr(causal.get_input_embeddings().weight, "ds_id"):
        raise ConfigError(
            "new tokens: the embedding is split by ZeRO-3 already; grow it before the engine is built"
        )
    known = num_rows(model)
    starts = {id(weight): start_rows(weight, tokens, known) for weight in _matrices(causal)}
    if tokens.vocab_size > known:
        old = _matrices(causal)
        causal.resize_token_embeddings(tokens.vocab_size, mean_resizing=False)
        starts = {id(new): starts[id(was)] for was, new in zip(old, _matrices(causal), strict=True)}
        causal.requires_grad_(requires_grad=False)
    for weight in _matrices(causal):
        weight[list(tokens.ids)] = starts[id(weight)]


def _matrices(causal: Any) -> list[torch.Tensor]:  # noqa: ANN401 - a transformers model
    return [causal.get_input_embeddings().weight, causal.get_output_embeddings().weight]


def start_rows(weight: torch.Tensor, tokens: NewTokens, known: int) -> torch.Tensor:
    """[K, H]: where the rows of new tokens start, from the rows of a matrix that are known.

    Args:
        weight: [V, H], an embedding or a head.
        tokens: K tokens.
        known: Rows below this are known, but for those of `tokens`.
    """
    is_known = torch.ones(known, dtype=torch.bool, device=weight.device)
    is_known[[id_ for id_ in tokens.ids if id_ < known]] = False
    rows = []
    for words in tokens.words:
        of_words = weight[list(words)] if words else weight[:known][is_known]
        rows.append(of_words.mean(dim=0, dtype=torch.promote_types(weight.dtype, torch.float32)))
    return torch.stack(rows).to(weight.dtype)


class NewRows:
    """The rows of new tokens on one model, as hooks on its embedding and on its head.

    Both modules keep their names and places, so a state dict of the model gains only the rows.

    Args:
        model: A causal model, grown, with its LoRA layers if it has any.
        tokens: The K tokens.

    Attributes:
        tokens: The tokens.
        is_tied: Whether embedding and head use the same rows.
        embedding: [K, H] parameter.
        head: [K, H] parameter; the same one when tied.
    """

    def __init__(self, model: nn.Module, tokens: NewTokens) -> None:
        causal = cast("Any", model)
        into, out = causal.get_input_embeddings(), causal.get_output_embeddings()
        matrix = getattr(out, "base_layer", out).weight
        self.tokens = tokens
        self.is_tied = matrix is into.weight
        self.enabled = True
        self.embedding = nn.Parameter(into.weight[list(tokens.ids)].detach().clone())
        self.head = (
            self.embedding if self.is_tied else nn.Parameter(matrix[list(tokens.ids)].detach().clone())
        )
        self._attach(into, out)
        causal._new_rows = self

    def _attach(self, into: nn.Module, out: nn.Module) -> None:
        weight = cast("torch.Tensor", into.weight)
        slots = torch.full((weight.shape[0],), -1, dtype=torch.int64, device=weight.device)
        slots[list(self.tokens.ids)] = torch.arange(len(self.tokens.ids), device=weight.device)
        into.register_buffer("new_slots", slots, persistent=False)
        into.register_parameter(PARAMETER, self.embedding)
        into.register_forward_hook(self._look_up)
        ids = torch.tensor(self.tokens.ids, dtype=torch.int64, device=weight.device)
        out.register_buffer("new_ids", ids, persistent=False)
        out.register_parameter(PARAMETER, self.head)
        out.register_forward_hook(self._score)

    def _look_up(self, module: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - a module of transformers or peft
        if not self.enabled:
            return output
        slots = module.new_slots[inputs[0]]
        rows = nn.functional.embedding(slots.clamp(min=0), module.new_rows)
        return torch.where((slots >= 0)[..., None], rows, output)

    def _score(self, module: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - a module of transformers or peft
        if not self.enabled:
            return output
        logits = nn.functional.linear(inputs[0], module.new_rows)
        return output.index_copy_(-1, module.new_ids, logits.to(output.dtype))  # no second copy of the logits

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The model with the rows that it started from."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True

    @torch.no_grad()
    def load(self, embedding: torch.Tensor, head: torch.Tensor) -> None:
        """Take rows, each [K, H]; when tied, `head` is not looked at."""
        self.embedding.copy_(embedding)
        if not self.is_tied:
            self.head.copy_(head)


def new_rows_of(model: nn.Module) -> NewRows | None:
    """The new rows attached to a causal model, if any."""
    return cast("NewRows | None", getattr(model, "_new_rows", None))


def read_tokens(ids: Sequence[int], names: Sequence[str]) -> NewTokens:
    """The tokens of a saved adapter, whose rows need no start."""
    return NewTokens(tuple(ids), tuple(names), tuple(() for _ in ids))
