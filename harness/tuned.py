"""One base model in memory that answers both as it came and with a fine-tuned adapter."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import nn

from harness.attention.choice import (
    IMPLEMENTATIONS,
    Kind,
    choose_attention,
    read_head_dim,
    register_attention,
)
from harness.config import ModelSettings
from harness.lora import load_adapter
from harness.model import check_vocabulary, load_base_model
from harness.vocabulary import new_rows_of
from preprocess.errors import ConfigError
from preprocess.manifest import Manifest

LOG = logging.getLogger(__name__)

Version = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A base model and, if there is one, its adapter.

    Attributes:
        causal: The base, a causal model with `.model` and `.lm_head`; the adapter's layers sit inside it.
        adapter: The peft wrapper around it, or None.
    """

    causal: nn.Module
    adapter: PeftModel | None

    @property
    def versions(self) -> tuple[Version, ...]:
        """Which models there are: before fine-tuning and, with an adapter, after it."""
        return ("before",) if self.adapter is None else ("before", "after")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.causal.parameters()).device

    @contextmanager
    def as_version(self, version: Version) -> Iterator[nn.Module]:
        """The causal model with its adapter off ("before") or on ("after")."""
        assert version in self.versions
        off = self.adapter if version == "before" else None
        rows = new_rows_of(self.causal)
        with (
            nullcontext() if off is None else off.disable_adapter(),
            nullcontext() if off is None or rows is None else rows.switched_off(),
        ):
            yield self.causal


def find_device() -> torch.device:
    """The accelerator, if there is one that works and DS_ACCELERATOR does not say cpu."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None or os.environ.get("DS_ACCELERATOR") == "cpu" else found


def load_tuned_model(settings: ModelSettings, manifest: Manifest, adapter: Path | None) -> TunedModel:
    """Load a base model once, with an adapter on it if one is given, ready for inference.

    Args:
        settings: Which base, and how it computes. An attention kernel that is not there gives way to another one.
        manifest: Of the data set that it will be asked about.
        adapter: Folder of a peft adapter, or None for the base alone.

    Raises:
        ConfigError: There is no such model.
        DataError: The data set's tokenizer has more ids than the model.
        CheckpointError: There is no such adapter, or it does not fit the model.
    """
    base = load_base_model(settings)
    tuned = None if adapter is None else load_adapter(base, adapter)
    check_vocabulary(base, manifest)  # with the tokens that the adapter brings
    causal = base if tuned is None else cast("nn.Module", tuned.get_base_model())
    device = find_device()
    register_attention()
    kind = choose_kernel(settings, device, causal)
    cast("Any", causal).set_attn_implementation(IMPLEMENTATIONS[kind])
    causal.eval().to(device)
    return TunedModel(causal, tuned)


def choose_kernel(settings: ModelSettings, device: torch.device, causal: nn.Module) -> Kind:
    """The attention kernel that a run asks for, or where it cannot compute what `auto` takes.

    A run may have been trained on other hardware than it is asked on, and all kernels give the same answers.
    """
    dtype, head_dim = next(causal.parameters()).dtype, read_head_dim(causal)
    try:
        return choose_attention(settings.attention, device, dtype, head_dim)
    except ConfigError:
        kind = choose_attention("auto", device, dtype, head_dim)
        LOG.warning(
            "model.attention %s is not to be had here; %s gives the same answers", settings.attention, kind
        )
        return kind
