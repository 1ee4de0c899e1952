"""README's measured figures are those of the newest records in bench/results, to the last digit that is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme_figures import (
    CLAIMS,
    SETTINGS,
    Claim,
    find_paragraphs,
    find_unmapped_numbers,
    find_wrong_figures,
    rounds_to,
    squeeze,
    to_pattern,
)

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_figure_is_the_record_s() -> None:
    assert find_wrong_figures(README) == []


def test_every_number_beside_a_record_is_one_that_is_held_to_it() -> None:
    assert find_unmapped_numbers(README) == []


def test_what_speaks_of_records_is_found() -> None:
    paragraphs = find_paragraphs(README)
    assert len([part for part in paragraphs if part.startswith("|")]) >= 2
    for words in ("Accuracy on", "tokenized", "Tensors are counted", "Memory where it pays"):
        assert any(words in part for part in paragraphs), words


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_a_changed_digit_of_any_claim_is_noticed(claim: Claim) -> None:
    found = to_pattern(claim.text).search(squeeze(README))
    assert found is not None
    for hole in range(1, claim.text.count("{}") + 1):
        start, end = found.span(hole)
        last = found.string[end - 1]
        changed = found.string[: end - 1] + str((int(last) + 1) % 10) + found.string[end:]
        assert len(find_wrong_figures(changed)) == 1, (hole, changed[start - 20 : end + 20])


def test_a_number_that_nobody_mapped_is_noticed() -> None:
    more = README.replace(
        "`bench/results/tokenizer.jsonl`)", "`bench/results/tokenizer.jsonl`; 9.9 times on a GPU)"
    )
    assert more != README
    assert [part for part in find_unmapped_numbers(more) if "9.9" in part] != []
    anew = README + "\nIt does 12,345 things a second (`bench/results/new.jsonl`).\n"
    assert len(find_unmapped_numbers(anew)) == 1


def test_a_claim_that_left_readme_is_noticed() -> None:
    assert (
        "stands 0 times"
        in find_wrong_figures(README.replace("Lyrics are tokenized", "They are tokenized"))[0]
    )


def test_exceptions_are_in_use() -> None:
    whole = squeeze(README)
    assert [words for words in SETTINGS if words not in whole] == []


@pytest.mark.parametrize(
    ("value", "printed", "fits"),
    [
        (3.5633, "3.6", True),
        (3.5633, "3.5", False),
        (3.55, "3.6", True),
        (2239.7, "2,240", True),
        (2239.4, "2,240", False),
        (99.99914, "99.999", True),
    ],
)
def test_a_value_is_held_to_the_digits_that_are_printed(value: float, printed: str, fits: bool) -> None:
    assert rounds_to(value, printed) is fits
