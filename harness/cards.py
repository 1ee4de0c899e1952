"""GPUs by name: memory as the driver shows it, dense peaks, bandwidth. Plain values, without torch.

Peaks are TFLOP/s without sparsity, accumulating in float32, from NVIDIA's data sheets and architecture papers (where a
sheet states only the sparse figure, half of it). Memory is what `nvidia-smi` shows in MiB, not what the box says: an
80 GB H100 has 81,559 MiB and a 48 GB L40S 46,068, for its ECC takes a sixteenth (collected from public listings of
nvidia-smi; https://thundergolfer.com/blog/nvidia-gpu-memory-capacity has eight of them in one table). Workstation cards
that come with ECC off (RTX A6000, RTX 6000 Ada) show 49,140 MiB until it is turned on; the lower figure stands here.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from preprocess.errors import ConfigError

MIB = 2**20

DRIVER_RESERVE_MIB = 600
"""What the driver shows but never gives out: torch reports 44.4 to 44.5 GiB on an L40 of 46,068 MiB (44.99 GiB), and
23.5 on an RTX 4090 of 24,564 MiB (23.99)."""


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of GPU.

    Attributes:
        name: As it is asked for.
        words: Each a set of words that the driver's name for it holds.
        memory_mib: What the driver shows, with ECC on where it has any.
        bf16_tflops: Dense peak in bfloat16.
        fp8_tflops: Dense peak in float8, None where it has none.
        bandwidth_gb_per_s: Of its memory.
    """

    name: str
    words: tuple[str, ...]
    memory_mib: int
    bf16_tflops: float
    fp8_tflops: float | None
    bandwidth_gb_per_s: float


CARDS: tuple[Card, ...] = (
    Card("B200", ("B200",), 183_359, 2250, 4500, 7700),
    Card("GH200", ("GH200",), 97_871, 989, 1979, 4000),
    Card("H200", ("H200",), 143_771, 989, 1979, 4800),
    Card("H200 NVL", ("H200 NVL",), 143_771, 835, 1671, 4800),
    Card("H100 SXM", ("H100 SXM", "H100 SXM5", "H100 HBM3"), 81_559, 989, 1979, 3350),
    Card("H100 PCIe", ("H100 PCIE",), 81_559, 756, 1513, 2000),
    Card("H100 NVL", ("H100 NVL",), 95_830, 835, 1671, 3900),
    Card("A100 80GB", ("A100 80GB",), 81_920, 312, None, 2039),
    Card("A100 40GB", ("A100 40GB",), 40_960, 312, None, 1555),
    Card("A40", ("A40",), 46_068, 150, None, 696),
    Card("A30", ("A30",), 24_576, 165, None, 933),
    Card("A10", ("A10",), 23_028, 125, None, 600),
    Card("L40S", ("L40S",), 46_068, 362, 733, 864),
    Card("L40", ("L40",), 46_068, 181, 362, 864),
    Card("L4", ("L4",), 23_034, 121, 242, 300),
    Card("RTX 6000 Ada", ("6000 ADA",), 46_068, 364, 729, 960),
    Card("RTX A6000", ("A6000",), 46_068, 155, None, 768),
    Card("RTX 5090", ("5090",), 32_607, 209, 419, 1792),
    Card("RTX 4090", ("4090",), 24_564, 165, 330, 1008),
    Card("RTX 3090", ("3090",), 24_576, 71, None, 936),
)

OTHER_CHIPS = frozenset({"LAPTOP", "MOBILE", "D", "TI", "SUPER", "MAX"})
"""Words that make another card of a name that the table has."""

BRANDS = frozenset({"NVIDIA", "GEFORCE", "TESLA", "QUADRO", "RTX", "GENERATION", "GPU"})


def match_card(name: str) -> Card | None:
    """The card that a driver's name ("NVIDIA A100-SXM4-80GB") or a short one ("a100-80") stands for, or None."""
    words = _words(name)
    if words & OTHER_CHIPS:
        return None
    found = [(len(key.split()), card) for card in CARDS for key in card.words if set(key.split()) <= words]
    return max(found, key=lambda match: match[0])[1] if found else None


def find_card(name: str) -> Card:
    """A card by its name.

    Raises:
        ConfigError: The table has none of that name, or several that differ.
    """
    if (card := match_card(name)) is not None:
        return card
    words = _words(name)
    several = [card.name for card in CARDS if words and any(words <= set(key.split()) for key in card.words)]
    if several:
        raise ConfigError(f"--gpu {name}: which one: {', '.join(several)}?")
    known = [card.name for card in CARDS]
    near = difflib.get_close_matches(name.upper(), [card.upper() for card in known], n=3, cutoff=0.5)
    known.sort(key=lambda card: near.index(card.upper()) if card.upper() in near else len(near))
    raise ConfigError(
        f"--gpu {name}: not a card that is known here; known: {', '.join(known)}. For another pass its memory, "
        "--vram-gib N (memory is planned then, but no speed predicted)"
    )


def find_peak(name: str) -> float | None:
    """TFLOP/s in bfloat16 of a card by the driver's name, or None."""
    card = match_card(name)
    return None if card is None else card.bf16_tflops


def _words(name: str) -> set[str]:
    """Capital words of a name, without brands; a bare 40 or 80 is an amount of memory."""
    spelt = re.sub(r"\b(40|80)\b", r"\1GB", re.sub(r"[^A-Z0-9]+", " ", name.upper()))
    return set(spelt.split()) - BRANDS
