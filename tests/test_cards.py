"""Cards by name: the driver's names and short ones, and what is refused."""

from __future__ import annotations

import pytest

from harness.cards import CARDS, DRIVER_RESERVE_MIB, MIB, Card, find_card, find_peak, match_card
from preprocess.errors import ConfigError

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA RTX A6000", 155),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("Quadro P4000", None),
        ("Quadro RTX 6000", None),
        ("", None),
        ("cpu", None),
    ],
)
def test_a_cards_peak_is_found_by_whole_words_of_its_name(name: str, peak: float | None) -> None:
    assert find_peak(name) == peak


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name_in_any_case(card: Card) -> None:
    assert find_card(card.name) is card
    assert find_card(card.name.lower()) is card


@pytest.mark.parametrize(
    ("name", "found"),
    [("a100-80", "A100 80GB"), ("rtx4090", None), ("4090", "RTX 4090"), ("A100 40", "A100 40GB")],
)
def test_short_names_are_understood_where_they_are_clear(name: str, found: str | None) -> None:
    card = match_card(name)
    assert (card.name if card else None) == found


def test_a_name_that_two_cards_share_is_asked_back_and_not_guessed() -> None:
    with pytest.raises(ConfigError, match=r"which one: A100 80GB, A100 40GB\?"):
        find_card("A100")
    with pytest.raises(ConfigError, match="which one: H100 SXM, H100 PCIe, H100 NVL"):
        find_card("NVIDIA H100")


def test_an_unknown_card_is_refused_and_the_nearest_names_come_first() -> None:
    with pytest.raises(ConfigError, match=r"known: L40S, .*B200.*--vram-gib") as refused:
        find_card("L40SX")
    assert refused.value.exit_code == 2


def test_a_48_gb_card_has_what_the_driver_shows_and_not_48_gib() -> None:
    card = find_card("L40S")
    assert card.memory_mib * MIB / GIB == pytest.approx(44.99, abs=0.01)
    assert (card.memory_mib - DRIVER_RESERVE_MIB) * MIB / GIB == pytest.approx(44.4, abs=0.05)


def test_float8_runs_at_twice_bfloat16_where_there_is_any() -> None:
    for card in CARDS:
        assert card.fp8_tflops is None or card.fp8_tflops == pytest.approx(2 * card.bf16_tflops, rel=0.02), (
            card
        )
    assert {card.name for card in CARDS if card.fp8_tflops is None} == {
        "A100 80GB",
        "A100 40GB",
        "A40",
        "A30",
        "A10",
        "RTX A6000",
        "RTX 3090",
    }
