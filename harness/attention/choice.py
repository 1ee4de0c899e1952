"""Which attention kernel a run uses, and its functions under the names that transformers' models call them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.attention.flash import attend_forest
from harness.attention.flex import attend_blocks
from harness.attention.layout import ForestLayout
from preprocess.errors import ConfigError

if TYPE_CHECKING:
    from harness.config import Attention

Kind = Literal["flash", "flex", "sdpa", "eager"]

IMPLEMENTATIONS: dict[Kind, str] = {
    "flash": "lyrics_forest",
    "flex": "lyrics_flex",
    "sdpa": "sdpa",
    "eager": "eager",
}
"""Names for `attn_implementation`. One with "flash" in it, transformers would look for among its own kernels."""

HALF = (torch.bfloat16, torch.float16)
CAPABILITY_OF_FLASH = (8, 0)
WIDEST_FLASH_HEAD = 256


def choose_attention(
    setting: Attention, device: torch.device, dtype: torch.dtype, head_dim: int | None = None
) -> Kind:
    """The attention kernel for a device, a precision and a model; all kinds give the same result.

    `auto` takes `flash` on a CPU, and on a GPU that has flash kernels for the precision and the heads; else `flex` on a
    GPU that Triton compiles for; else `sdpa`.

    Args:
        setting: What the user asks for.
        device: Where the model computes.
        dtype: What it computes in.
        head_dim: Width of its attention heads, or None where any is assumed to do.

    Raises:
        ConfigError: The setting names a kernel that cannot compute (and differentiate) here.
    """
    reasons = {"flash": _flash_lacks(device, dtype, head_dim), "flex": _flex_lacks(device)}
    if setting == "auto":
        return "flash" if not reasons["flash"] else "flex" if not reasons["flex"] else "sdpa"
    if reason := reasons.get(setting):
        others = [kind for kind in ("flash", "flex", "sdpa") if not reasons.get(kind)]
        raise ConfigError(f"model.attention {setting}: {reason}; use auto, or {' or '.join(others)}")
    return setting


def read_head_dim(causal: torch.nn.Module) -> int | None:
    """Width of the attention heads of a model of transformers; None where its configuration does not say."""
    config = cast("Any", causal).config
    if (stated := getattr(config, "head_dim", None)) is not None:
        return int(stated)
    width, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    return width // heads if width and heads else None


def _flash_lacks(device: torch.device, dtype: torch.dtype, head_dim: int | None) -> str | None:
    """Why the flash kernels cannot be used, None when they can."""
    if device.type == "cpu":
        return None
    if device.type != "cuda" or torch.version.hip is not None:
        return f"there are no flash kernels for {_describe(device)}"
    if dtype not in HALF:
        return (
            f"the flash kernels compute in bf16 and fp16 on a GPU, not in {str(dtype).removeprefix('torch.')}"
        )
    if head_dim is not None and (head_dim % 8 or head_dim > WIDEST_FLASH_HEAD):
        return f"the flash kernels need heads of a multiple of 8 up to {WIDEST_FLASH_HEAD}, not {head_dim}"
    if not torch.backends.cuda.is_flash_attention_available():
        return "this torch was built without flash kernels"
    if torch.cuda.get_device_capability(device) < CAPABILITY_OF_FLASH:
        return f"the flash kernels need a GPU of compute capability 8.0 or above, not {_describe(device)}"
    return None


def _flex_lacks(device: torch.device) -> str | None:
    """Why FlexAttention cannot be used, None when it can."""
    if device.type != "cuda":
        return f"FlexAttention has no gradient on {_describe(device)}, it needs a GPU"
    if not torch.utils._triton.has_triton():
        return f"FlexAttention needs Triton, which is not installed or does not know {_describe(device)}"
    return None


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return f"a {device.type} device"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"


def register_attention() -> None:
    """Let transformers' models be loaded with `attn_implementation` "lyrics_forest" or "lyrics_flex".

    Called with `forest=` (a `ForestLayout` or a `BlockMask`) and `attention_mask=ForestLayout.no_mask`, a model's body
    attends along the forest. Without `forest` it does what it does under "sdpa", masks included: so text can be
    generated with the same model.
    """
    for name in (IMPLEMENTATIONS["flash"], IMPLEMENTATIONS["flex"]):
        AttentionInterface.register(name, forest_attention_forward)
        AttentionMaskInterface.register(name, sdpa_mask)


def forest_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    forest: ForestLayout | BlockMask | None = None,
    **others: Any,  # noqa: ANN401 - what transformers passes to all its attention functions
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: [R, H, T, D] in, [R, T, H, D] out.

    Raises:
        ConfigError: The model asks for something that these kernels do not compute.
    """
    if forest is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return out, None
    refuse_extras(dropout, others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend: Any = attend_forest if isinstance(forest, ForestLayout) else attend_blocks
    return attend(query, key, value, forest, scale), None


def refuse_extras(dropout: float, others: dict[str, Any]) -> None:
    """Raise for what would change the result: dropout of probabilities, capped scores, sinks, a position bias."""
    asked = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if asked := [*asked, *(["attention_dropout"] if dropout else [])]:
        raise ConfigError(
            f"the model's attention uses {', '.join(asked)}, which the forest kernels do not compute; "
            "set model.attention to eager"
        )
