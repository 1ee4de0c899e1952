"""Sizes of a decoder-only model of the Llama kind, without its weights: by name, or read off its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preprocess.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that a model's work and its weights follow from (Llama, Mistral, Qwen2).

    Attributes:
        hidden_size: Width of the residual stream, H.
        num_layers: Decoder layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; fewer than query heads under grouped-query attention.
        head_dim: Width of a head, D.
        ffn_size: Width inside the gated MLP.
        vocab_size: Rows of the embedding, and logits of a token.
        tied: Whether the head is the embedding's matrix.
        biases: Linear layers of a decoder layer that have a bias.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    tied: bool
    biases: tuple[str, ...] = ()

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each linear layer of one decoder layer."""
        hidden, queries, keys = (
            self.hidden_size,
            self.num_heads * self.head_dim,
            self.num_kv_heads * self.head_dim,
        )
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, self.ffn_size),
            "up_proj": (hidden, self.ffn_size),
            "down_proj": (self.ffn_size, hidden),
        }

    @property
    def num_body_weights(self) -> int:
        """Weights of all linear layers of all decoder layers."""
        return self.num_layers * sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def num_weights(self) -> int:
        """Weights of linear layers, embedding and head (once where they are tied); norms and biases left out."""
        return self.num_body_weights + self.hidden_size * self.vocab_size * (1 if self.tied else 2)

    @property
    def num_parameters(self) -> int:
        """All weights: `num_weights`, two norms a layer, the last norm, and biases."""
        biases = sum(self.projections[name][1] for name in self.biases)
        norms = self.hidden_size * (2 * self.num_layers + 1)
        return self.num_weights + norms + self.num_layers * biases


QKV_BIASES = ("q_proj", "k_proj", "v_proj")
"""What Qwen2 has biases on."""

SHAPES: Mapping[str, ModelShape] = {
    "llama-3.2-1b": ModelShape(2048, 16, 32, 8, 64, 8192, 128_256, tied=True),
    "llama-3.2-3b": ModelShape(3072, 28, 24, 8, 128, 8192, 128_256, tied=True),
    "llama-3.1-8b": ModelShape(4096, 32, 32, 8, 128, 14_336, 128_256, tied=False),
    "mistral-7b": ModelShape(4096, 32, 32, 8, 128, 14_336, 32_768, tied=False),
    "qwen2.5-0.5b": ModelShape(896, 24, 14, 2, 64, 4864, 151_936, tied=True, biases=QKV_BIASES),
    "qwen2.5-1.5b": ModelShape(1536, 28, 12, 2, 128, 8960, 151_936, tied=True, biases=QKV_BIASES),
    "qwen2.5-3b": ModelShape(2048, 36, 16, 2, 128, 11_008, 151_936, tied=True, biases=QKV_BIASES),
    "qwen2.5-7b": ModelShape(3584, 28, 28, 4, 128, 18_944, 152_064, tied=False, biases=QKV_BIASES),
    "qwen2.5-14b": ModelShape(5120, 48, 40, 8, 128, 13_824, 152_064, tied=False, biases=QKV_BIASES),
    "smollm2-135m": ModelShape(576, 30, 9, 3, 64, 1536, 49_152, tied=True),
    "smollm2-360m": ModelShape(960, 32, 15, 5, 64, 2560, 49_152, tied=True),
    "smollm2-1.7b": ModelShape(2048, 24, 32, 32, 64, 8192, 49_152, tied=True),
    "toy": ModelShape(64, 2, 4, 2, 16, 128, 512, tied=True),
}
"""Shapes by name, as in the models' own config.json; "toy" is for a look on a CPU."""


def find_shape(name: str) -> ModelShape:
    """A built-in shape.

    Raises:
        ConfigError: There is none of that name.
    """
    if name.lower() not in SHAPES:
        raise ConfigError(f"shape {name!r}: expected one of {', '.join(SHAPES)}")
    return SHAPES[name.lower()]


KNOWN_KINDS = ("llama", "mistral", "qwen2")
"""Kinds of models (`model_type`) whose layers hold what their sizes tell, and nothing else."""


def check_kind(config: object) -> None:
    """Refuse a model whose layers hold more than their sizes tell: experts, norms of queries, other activations.

    Args:
        config: As `read_shape` takes it; one without a `model_type` is taken for a Llama's.

    Raises:
        ConfigError: It is of another kind.
    """
    kind = _get(config, "model_type")
    if kind is not None and kind not in KNOWN_KINDS:
        raise ConfigError(
            f"model_type {kind!r}: its layers are not known; known are {', '.join(KNOWN_KINDS)}"
        )


def read_shape(config: object) -> ModelShape:
    """The shape that a model's configuration tells.

    Args:
        config: The mapping of a `config.json`, or an object with its keys as attributes (a transformers config).

    Raises:
        ConfigError: A size is missing.
    """
    sizes = {
        "hidden_size": _read(config, "hidden_size"),
        "num_layers": _read(config, "num_hidden_layers"),
        "num_heads": _read(config, "num_attention_heads"),
        "ffn_size": _read(config, "intermediate_size"),
        "vocab_size": _read(config, "vocab_size"),
    }
    # Both may be left out, or be null: a key head for each query head, and heads that share the width evenly.
    sizes["num_kv_heads"] = _read(config, "num_key_value_heads", sizes["num_heads"])
    sizes["head_dim"] = _read(config, "head_dim", sizes["hidden_size"] // sizes["num_heads"])
    return ModelShape(**sizes, tied=bool(_get(config, "tie_word_embeddings")), biases=_read_biases(config))


def _read_biases(config: object) -> tuple[str, ...]:
    """Which linear layers have a bias: Qwen2's always, Llama's by two settings."""
    if _get(config, "model_type") == "qwen2":
        return QKV_BIASES
    attention = (*QKV_BIASES, "o_proj") if _get(config, "attention_bias") else ()
    return attention + (("gate_proj", "up_proj", "down_proj") if _get(config, "mlp_bias") else ())


def _get(config: object, key: str) -> object:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)


def _read(config: object, key: str, default: int | None = None) -> int:
    value = _get(config, key)
    if value is None:
        value = default
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"model configuration: {key} is {value!r}; expected a whole number above 0")
    return value
