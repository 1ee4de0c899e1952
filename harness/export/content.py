"""What an adapter folder holds, read without loading it: enough to say who takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from harness.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, ROWS_KEY
from preprocess.errors import CheckpointError
from preprocess.outside_text import parse_json

LORA_SUFFIXES = (".lora_A.weight", ".lora_B.weight")


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What of a base decides who takes an adapter for it.

    Attributes:
        model_type: "llama", as in its config.json.
        architecture: "LlamaForCausalLM".
        is_tied: Whether its head is its embedding.
        vocab_size: Rows of its embedding.
    """

    model_type: str
    architecture: str
    is_tied: bool
    vocab_size: int


@dataclass(frozen=True, slots=True)
class AdapterContent:
    """An adapter's settings and the names and shapes of its tensors.

    Attributes:
        settings: adapter_config.json.
        shapes: Of each tensor, by name.
        new_ids: Ids of the tokens whose rows it brings.
    """

    settings: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    new_ids: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The highest rank of any layer, from the tensors themselves."""
        return max(
            (shape[0] for name, shape in self.shapes.items() if name.endswith(".lora_A.weight")), default=0
        )

    @property
    def targets(self) -> frozenset[str]:
        """Names of the layers that have a LoRA: "q_proj", "lm_head"."""
        return frozenset(
            name.removesuffix(suffix).rpartition(".")[2]
            for name in self.shapes
            for suffix in LORA_SUFFIXES
            if name.endswith(suffix)
        )

    @property
    def other_tensors(self) -> tuple[str, ...]:
        """Tensors that are neither LoRA nor rows of tokens: whole modules, magnitudes, biases."""
        return tuple(sorted(name for name in self.shapes if not name.endswith((*LORA_SUFFIXES, ROWS_KEY))))

    def has(self, setting: str) -> bool:
        """Whether a setting is there and on."""
        return bool(self.settings.get(setting))


def read_content(folder: Path) -> AdapterContent:
    """Read an adapter folder.

    Raises:
        CheckpointError: It holds no adapter, or a damaged one.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"adapter {folder}: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} there")
    try:
        settings = parse_json((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as weights:
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - not a dictionary, its keys cannot be iterated over
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"adapter {folder}: damaged ({error})") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise CheckpointError(f"adapter {folder}: its {ADAPTER_CONFIG} is not that of a peft LoRA")
    indices = settings.get("trainable_token_indices") or ()
    ids = {id_ for part in (indices.values() if isinstance(indices, dict) else (indices,)) for id_ in part}
    return AdapterContent(settings, shapes, tuple(sorted(ids)))
