"""A merged model's weights and configuration, as `AutoModelForCausalLM.from_pretrained` reads them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from harness.export.merge import MergedModel


def write_model(folder: Path, causal: nn.Module, merged: MergedModel, stop_id: int | None) -> None:
    """Write config.json, generation_config.json and the weights.

    They go through a fresh model of the same class: one that came out of a GGUF file may refuse to be saved.

    Args:
        folder: Where.
        causal: The base, for its class and configuration.
        merged: The weights.
        stop_id: A token on which generation stops besides the base's own; None for none.
    """
    source = cast("Any", causal)
    config = deepcopy(source.config)
    config.tie_word_embeddings = merged.is_tied
    config.vocab_size = merged.vocab_size
    config.dtype = next(iter(merged.weights.values())).dtype
    config.use_cache = True
    with torch.device("meta"):
        plain = type(source)(config)
    plain.load_state_dict(merged.weights, assign=True, strict=not merged.is_tied)
    plain.tie_weights()
    plain.generation_config = deepcopy(source.generation_config)
    if stop_id is not None:
        plain.generation_config.eos_token_id = add_stop(plain.generation_config.eos_token_id, stop_id)
    plain.save_pretrained(folder)


def add_stop(known: int | list[int] | None, stop_id: int) -> int | list[int]:
    """Tokens on which generation stops, with another one."""
    stops = known if isinstance(known, list) else [known] if known is not None else []
    every = [*stops, *([] if stop_id in stops else [stop_id])]
    return every[0] if len(every) == 1 else every
