"""Dropout on the adapters' inputs that is drawn from each token's identity, so that nothing of it has to be stored.

The mask of a token is a window of one random table:

    table (drawn from the seed)   1 1 0 1 1 1 1 0 1 1 1 1 1 0 1 1 1 ...
    token with offset 2               [0 1 1 1 1 0 1]
    token with offset 9                             [1 1 1 1 0 1 1]

The offset is a hash of the token's key, the seed and the number of the module's input. Packing, order, ranks and
micro-batches don't enter: a token is masked alike wherever it is computed, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from preprocess.errors import ConfigError

NUM_OFFSETS = 2**18
"""Windows of a table, a power of two. Two tokens have the same one by chance once in as many pairs."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_GOLDEN = 0x9E3779B97F4A7C15
_SHARED_INPUT = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp"}


class DropoutDraw:
    """What the dropout of one training forward is drawn from; one object a model, shared by its modules.

    Args:
        p: Probability that a value is dropped, 0 < p < 1.
        num_inputs: Inputs that are masked independently of one another.
        width: Values of the widest of them.

    Attributes:
        offsets: int64[num_inputs, R * T], where each token's window begins.
        positions: Which tokens the modules are given, where they are not given all; see `at`.
        tables: By bytes of the values to be masked, the table as integers of that width: all bits set to keep.
    """

    def __init__(self, p: float, num_inputs: int, width: int) -> None:
        self.p = p
        self.num_inputs = num_inputs
        self.width = width
        self.offsets: torch.Tensor | None = None
        self.tables: dict[int, torch.Tensor] = {}
        self.positions: torch.Tensor | None = None
        self._modules: list[WindowDropout] = []
        self._drawn: tuple[int, torch.device] | None = None

    def start(self, token_keys: torch.Tensor, seed: int) -> None:
        """Draw anew, before a training forward. Its backward pass (and recomputation) must run before the next start.

        Args:
            token_keys: int64[R, T], the identity of each token; equal keys are masked equally.
            seed: Of this step: the same on every rank and in every micro-batch, another in every step.
        """
        if self.num_inputs == 0:
            return
        device = token_keys.device
        if self._drawn != (seed, device):
            self.tables = draw_tables(self.p, self.width, seed, device)
            self._drawn = (seed, device)
        self.offsets = hash_offsets(token_keys.flatten(), seed, self.num_inputs)
        self.positions = None
        rows = self.offsets.unbind()
        for module in self._modules:
            module.current = rows[module.index]

    def add(self, module: WindowDropout) -> None:
        """Give a module its offsets from now on; those of the present draw at once."""
        self._modules.append(module)
        if self.offsets is not None:
            module.current = self.offsets[module.index]

    @contextmanager
    def at(self, positions: torch.Tensor) -> Iterator[None]:
        """Inside, the modules are given only some tokens: those at `positions` of the R * T (the head's input).

        Args:
            positions: int64[N], which token each row of the input belongs to.
        """
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None


def draw_tables(p: float, width: int, seed: int, device: torch.device) -> dict[int, torch.Tensor]:
    """The table of a seed, in integers of 2, 4 and 8 bytes; drawn on the CPU, so it is the same for every device."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(NUM_OFFSETS + width, generator=generator) >= p
    if device.type == "cuda":
        keep = keep.pin_memory().to(device, non_blocking=True)  # from pageable memory the copy would wait
    keep = keep.to(device)
    return {size: keep.to(integer).neg_() for size, integer in _INTEGERS.items()}


def hash_offsets(keys: torch.Tensor, seed: int, num_inputs: int) -> torch.Tensor:
    """int64[num_inputs, N]: an offset below `NUM_OFFSETS` for each input and each of the int64[N] keys."""
    index = torch.arange(1, num_inputs + 1, device=keys.device)
    salt = _mix(index * _signed(_GOLDEN) + _signed(seed * 0xD1342543DE82EF95))
    return _mix(keys[None, :] ^ salt[:, None]) & (NUM_OFFSETS - 1)


def _mix(values: torch.Tensor) -> torch.Tensor:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014) on int64, whose products wrap around."""
    values = (values ^ _shift(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shift(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shift(values, 31)


def _shift(values: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right; torch's own drags the sign along."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value %= 1 << 64
    return value - (1 << 64) if value >= 1 << 63 else value


def keep_windows(values: torch.Tensor, offsets: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """[N, W]: `values` where each row's window of the table says so, else zero; not scaled.

    Args:
        values: [N, W] of a floating type.
        offsets: int64[N].
        table: The one of `DropoutDraw.tables` for the bytes of a value.
    """
    windows = table.as_strided((NUM_OFFSETS, values.shape[1]), (1, 1))
    mask = windows.index_select(0, offsets)
    # All bits or none: one pass over memory that needs no further copy.
    return mask.bitwise_and_(values.view(mask.dtype)).view(values.dtype)


class _Drop(torch.autograd.Function):
    """Dropout that keeps the offsets for its backward pass, 8 bytes a token, instead of the mask."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context
        values: torch.Tensor,
        offsets: torch.Tensor,
        table: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(offsets, table)
        ctx.scale = scale
        return keep_windows(values, offsets, table).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # noqa: ANN401 - autograd's context
        offsets, table = ctx.saved_tensors
        return keep_windows(grad.contiguous(), offsets, table).mul_(ctx.scale), None, None, None


class WindowDropout(nn.Module):
    """`nn.Dropout` whose mask is drawn from the tokens' keys. Identity in eval mode.

    Args:
        draw: Started before each training forward.
        index: Number of this module's input among `draw.num_inputs`; equal numbers give equal masks.

    Attributes:
        current: int64[R * T], the offsets of the present draw, or None before the first. The draw puts them here, for
            a forward pass that read `index` would be compiled anew for each layer.
    """

    def __init__(self, draw: DropoutDraw, index: int) -> None:
        super().__init__()
        self.draw = draw
        self.index = index
        self.current: torch.Tensor | None = None
        draw.add(self)

    @property
    def p(self) -> float:
        """Probability that a value is dropped."""
        return self.draw.p

    @property
    def scale(self) -> float:
        """What kept values are multiplied by, so that the mean stays."""
        return 1.0 / (1.0 - self.draw.p)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Mask [..., W]; the leading sizes must multiply to the number of tokens that were drawn for.

        Raises:
            RuntimeError: Nothing was drawn yet.
            ValueError: Another number of tokens was drawn for.
        """
        if not self.training:
            return values
        dropped = _Drop.apply(  # type: ignore[no-untyped-call]
            values.reshape(-1, values.shape[-1]), *self.source_for(values), self.scale
        )
        return cast("torch.Tensor", dropped).view(values.shape)

    def source_for(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the mask of `values` [..., W] is made of: the offset of each token, and the table; see `keep_windows`.

        Raises:
            RuntimeError: Nothing was drawn yet.
            ValueError: Another number of tokens was drawn for.
        """
        offsets = self.current
        if offsets is None:
            raise RuntimeError("dropout: call DropoutDraw.start(token_keys, seed) before a training forward")
        if self.draw.positions is not None:
            offsets = offsets[self.draw.positions]
        num_tokens = values.numel() // values.shape[-1]
        if len(offsets) != num_tokens:
            raise ValueError(f"dropout: drawn for {len(offsets)} tokens, but the input has {num_tokens}")
        return offsets, self.draw.tables[values.element_size()]

    def extra_repr(self) -> str:
        """As nn.Dropout shows itself."""
        return f"p={self.p}, input={self.index}"


def install_dropout(model: PeftModel) -> DropoutDraw:
    """Put `WindowDropout` in the place of each adapter's dropout; projections of one input get one mask.

    Where the adapters have no dropout (p = 0), nothing is replaced and the draw is never asked.

    Args:
        model: A model with LoRA adapters, changed in place. Its state dict stays as it is.

    Raises:
        ConfigError: The adapters differ in their dropout.
    """
    dropouts = list(_find_dropouts(model))
    rates = {module.p for _, _, _, module in dropouts}
    if len(rates) > 1:
        raise ConfigError(f"lora dropout: expected one rate for the whole model, got {sorted(rates)}")
    inputs: dict[str, int] = {}
    for name, _, _, _ in dropouts:
        inputs.setdefault(_input_of(name), len(inputs))
    width = max((layer.in_features for _, layer, _, _ in dropouts), default=0)
    draw = DropoutDraw(rates.pop() if rates else 0.0, len(inputs), width)
    for name, layer, adapter, _ in dropouts:
        layer.lora_dropout[adapter] = WindowDropout(draw, inputs[_input_of(name)])
    return draw


def _find_dropouts(model: nn.Module) -> Iterator[tuple[str, Any, str, nn.Dropout]]:
    """The dropout modules of all adapters, with the layer's name, the layer and the adapter's name."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            for adapter, module in layer.lora_dropout.items():
                if isinstance(module, nn.Dropout) and module.p > 0:
                    yield name, layer, adapter, module


def _input_of(name: str) -> str:
    """One name for the projections that read the same tensor."""
    parent, _, own = name.rpartition(".")
    return f"{parent}.{_SHARED_INPUT.get(own, own)}"
