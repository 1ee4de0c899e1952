"""Which servers take an adapter, or the merged model, and why not: their own rules, applied to its content.

The rules are read from the servers' sources, as of 2026; each names its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.config import ATTENTION_AND_MLP
from harness.export.content import AdapterContent, BaseFacts

Server = Literal["vLLM", "llama.cpp", "TGI", "Ollama"]
What = Literal["adapter", "merged"]
Rule = Callable[[AdapterContent, BaseFacts], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a server takes an adapter or its merged model.

    Attributes:
        server: Which server.
        what: What it is given.
        taken: Whether it serves it, all of it.
        reasons: Why not; empty when it does.
        how: How it is given to the server; empty when it is not taken.
    """

    server: Server
    what: What
    taken: bool
    reasons: tuple[str, ...]
    how: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""vllm/config/lora.py, MaxLoRARanks: what --max-lora-rank may be; 16 without it."""

VLLM_MAX_HEAD_VOCABULARY = 257_024
"""vllm/lora/layers/logits_processor.py, create_lora_weights: 257,024 or a little more, by release."""

VLLM_EMBEDDING_LORA = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""vllm/model_executor/models: classes whose `embedding_modules` lists lm_head, so that lora/utils.py,
get_supported_lora_modules, counts it among the layers that may have a LoRA. Llama's class serves Mistral too."""

LLAMA_CPP_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "smollm3"})
"""Of the architectures of convert_hf_to_gguf.py those that the harness may meet."""

OLLAMA_ADAPTER_TYPES = frozenset({"llama", "mistral", "gemma2"})
"""convert/convert.go, ConvertAdapter: the GGUF architectures llama (Mistral's too) and gemma2."""


def check_vllm(adapter: AdapterContent, base: BaseFacts) -> Iterator[str]:
    """vllm/lora/peft_helper.py (validate_legal, _validate_features), lora_model.py (check_unexpected_modules)."""
    if adapter.rank > VLLM_RANKS[-1]:
        yield f"rank {adapter.rank} is above the highest --max-lora-rank, {VLLM_RANKS[-1]}"
    if adapter.has("use_dora"):
        yield "DoRA is not supported"
    if adapter.has("modules_to_save"):
        yield "modules_to_save must be empty (whole modules are not loaded)"
    if adapter.settings.get("bias", "none") != "none" or adapter.has("lora_bias"):
        yield "an adapter's bias is not supported"
    if adapter.has("rank_pattern") or adapter.has("alpha_pattern"):
        yield "rank_pattern and alpha_pattern are ignored by most releases, so layers would be scaled wrongly"
    if adapter.new_ids:
        yield _new_rows(adapter, base)
    if "lm_head" in adapter.targets:
        if base.model_type not in VLLM_EMBEDDING_LORA:
            yield f"a LoRA on lm_head is not among what its {base.model_type} model supports"
        elif base.vocab_size > VLLM_MAX_HEAD_VOCABULARY:
            yield (
                f"a LoRA on lm_head needs at most {VLLM_MAX_HEAD_VOCABULARY} ids; "
                f"the base has {base.vocab_size}"
            )


def check_llama_cpp(adapter: AdapterContent, base: BaseFacts) -> Iterator[str]:
    """convert_lora_to_gguf.py (get_tensors, modify_tensors), src/llama-adapter.cpp (init, get_scale)."""
    if adapter.has("use_dora"):
        yield "DoRA's magnitudes are not lora_A or lora_B, so the converter stops"
    if adapter.has("modules_to_save"):
        yield "modules_to_save brings whole matrices, at which the converter stops"
    if adapter.settings.get("bias", "none") != "none" or adapter.has("lora_bias"):
        yield "biases are not lora_A or lora_B, so the converter stops"
    if adapter.new_ids:
        yield _new_rows(adapter, base)
    if adapter.has("use_rslora") or adapter.has("alpha_pattern"):
        yield "it scales every layer by lora_alpha / rank, so rsLoRA and alpha_pattern would be scaled wrongly"
    if "lm_head" in adapter.targets and base.is_tied:
        yield "a LoRA on lm_head finds no tensor: the base's head is its embedding (tied), and has none of its own"
    if base.model_type not in LLAMA_CPP_TYPES:
        yield f"{base.model_type} is not a known architecture"


def check_tgi(adapter: AdapterContent, base: BaseFacts) -> Iterator[str]:
    """models/__init__.py (get_model_with_lora_adapters: adapter_layers), adapters/lora.py (prepare_weights)."""
    if others := sorted(adapter.targets - set(ATTENTION_AND_MLP)):
        yield f"only the seven projections get a LoRA; that of {', '.join(others)} would be left out"
    if adapter.new_ids:
        yield _new_rows(adapter, base)
    if adapter.has("use_dora") or adapter.has("modules_to_save"):
        yield "DoRA and modules_to_save are not looked at, so a part of the adapter would be left out"
    if adapter.settings.get("bias", "none") != "none" or adapter.has("lora_bias"):
        yield "biases are not looked at, so a part of the adapter would be left out"
    if adapter.has("rank_pattern") or adapter.has("alpha_pattern"):
        yield "one rank and one scale serve all layers; rank_pattern and alpha_pattern are not looked at"


def check_ollama(adapter: AdapterContent, base: BaseFacts) -> Iterator[str]:
    """convert/convert.go (AdapterParameters, ConvertAdapter), convert/convert_llama_adapter.go (Replacements)."""
    if base.model_type not in OLLAMA_ADAPTER_TYPES:
        yield f"adapters for {base.model_type} are not converted (unsupported architecture)"
    if others := sorted(adapter.targets - set(ATTENTION_AND_MLP)):
        yield f"it has no name for the LoRA of {', '.join(others)}, and the runner finds no such tensor in the base"
    if adapter.new_ids:
        yield _new_rows(adapter, base)
    if adapter.has("use_dora") or adapter.has("modules_to_save") or adapter.has("lora_bias"):
        yield "tensors other than lora_A and lora_B are not known to the runner"
    if adapter.has("use_rslora") or adapter.has("alpha_pattern"):
        yield "it scales every layer by lora_alpha / rank, so rsLoRA and alpha_pattern would be scaled wrongly"
    if not isinstance(adapter.settings.get("lora_alpha"), int):
        yield f"lora_alpha must be a whole number, written as one; it is {adapter.settings.get('lora_alpha')}"
    if flat := next((name for name, shape in adapter.shapes.items() if _is_wide(name, shape)), None):
        yield f"the rank of {flat} is above one of the layer's own sizes, so it would be read transposed"


def _is_wide(name: str, shape: tuple[int, ...]) -> bool:
    """Whether convert_llama_adapter.go takes a tensor for a transposed one (as MLX writes them)."""
    if len(shape) != 2:
        return False
    return (name.endswith(".lora_A.weight") and shape[0] > shape[1]) or (
        name.endswith(".lora_B.weight") and shape[0] < shape[1]
    )


def _new_rows(adapter: AdapterContent, base: BaseFacts) -> str:
    beyond = sum(id_ >= base.vocab_size for id_ in adapter.new_ids)
    grown = f", {beyond} of them beyond the base's vocabulary" if beyond else ""
    return f"it brings rows of {len(adapter.new_ids)} new tokens{grown} (trainable_token_indices), which are not loaded"


def _strangers(adapter: AdapterContent) -> Iterator[str]:
    """What the settings are silent about and the file holds all the same; nobody loads it."""
    if others := adapter.other_tensors:
        yield f"it holds {len(others)} tensors that are no LoRA, {others[0]} first"


RULES: dict[Server, Rule] = {
    "vLLM": check_vllm,
    "llama.cpp": check_llama_cpp,
    "TGI": check_tgi,
    "Ollama": check_ollama,
}


def judge_adapter(adapter: AdapterContent, base: BaseFacts) -> list[Verdict]:
    """What each server says of an adapter on its base."""
    hows: dict[Server, str] = {
        "vLLM": f"--enable-lora --max-lora-rank {_vllm_rank(adapter)}",
        "llama.cpp": "convert_lora_to_gguf.py, then --lora",
        "TGI": "LORA_ADAPTERS",
        "Ollama": "ADAPTER in the Modelfile",
    }
    verdicts = []
    for server, rule in RULES.items():
        reasons = tuple(rule(adapter, base)) or tuple(_strangers(adapter))
        verdicts.append(Verdict(server, "adapter", not reasons, reasons, "" if reasons else hows[server]))
    return verdicts


def _vllm_rank(adapter: AdapterContent) -> int:
    return next((rank for rank in VLLM_RANKS if rank >= adapter.rank), VLLM_RANKS[-1])


def judge_merged(base: BaseFacts) -> list[Verdict]:
    """What each server says of the merged model: a plain model of the base's architecture."""
    hows: dict[Server, str] = {
        "vLLM": "vllm serve FOLDER",
        "llama.cpp": "convert_hf_to_gguf.py, then -m",
        "TGI": "--model-id FOLDER",
        "Ollama": "convert_hf_to_gguf.py, then FROM FILE.gguf (docs/import.mdx)",
    }
    is_known = base.model_type in LLAMA_CPP_TYPES
    reason = () if is_known else (f"whether it serves {base.model_type} is not known here",)
    return [
        Verdict(server, "merged", is_known, reason, how if is_known else "") for server, how in hows.items()
    ]
