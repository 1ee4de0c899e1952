"""docs/training.md kept true: its links, settings, values, programs and drawings are those of the code."""

from __future__ import annotations

import re
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.attention.layout import build_layout
from harness.config import EXAMPLES_PER_STEP, ModelSettings, RunConfig
from harness.shapes import find_shape
from preprocess.forest import PackedRow, position_ids

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")
DRAWINGS = ("forest_row.svg", "shared_gradient.svg")
SVG = "{http://www.w3.org/2000/svg}"


def find_field(dotted: str) -> FieldInfo:
    """The field of the run's settings of a dotted name.

    Raises:
        KeyError: There is none.
    """
    section, _, name = dotted.rpartition(".")
    settings: type[BaseModel] = RunConfig
    if section:
        found = RunConfig.model_fields[section].annotation
        assert isinstance(found, type)
        assert issubclass(found, BaseModel)
        settings = found
    return settings.model_fields[name]


def settings_named(text: str) -> set[str]:
    """Settings that a page names: `section.name` of a section that there is, and not the file `memory.jsonl`."""
    sections = "|".join(RunConfig.model_fields)
    return set(re.findall(rf"`((?:{sections})\.(?!jsonl`)\w+)`", text))


def links_of(text: str) -> list[str]:
    return [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]


def test_every_setting_of_the_page_exists_and_every_setting_of_the_model_is_on_it() -> None:
    named = settings_named(PAGE)
    assert len(named) >= 10
    for dotted in named:
        find_field(dotted)
    own = {f"model.{name}" for name in ModelSettings.model_fields} - {"model.path"}
    assert own <= named


def test_a_setting_that_is_not_there_is_noticed() -> None:
    assert settings_named("`model.atention` and `modal.attention`") == {"model.atention"}
    with pytest.raises(KeyError):
        find_field("model.atention")


def test_the_values_of_the_page_are_allowed_and_the_default_batch_is_the_real_one() -> None:
    for value in get_args(find_field("model.attention").annotation):
        assert f"`{value}`" in PAGE
    for name in ("precision", "lora_kernel"):
        assert all(f"`{value}`" in PAGE for value in get_args(find_field(f"model.{name}").annotation))
    assert f"without a word it is {EXAMPLES_PER_STEP} examples" in PAGE
    assert f"{find_shape('llama-3.2-3b').vocab_size:,} of them" in PAGE


def test_every_link_leads_to_a_file_and_every_program_can_be_run() -> None:
    links = links_of(PAGE)
    assert {f"{name}" for name in DRAWINGS} <= set(links)
    missing = [link for link in links if not (DOCS / link).is_file()]
    assert missing == []
    programs = re.findall(r"`python -m bench (\w+)`", PAGE)
    assert programs
    for name in programs:
        assert callable(import_module(f"bench.{name}").measure)


def span_of(text: ElementTree.Element) -> tuple[float, float]:
    """About where a text starts and ends; a system font advances by half of its size on the mean, and a little more."""
    words = (text.get("class") or "").split()
    length = len("".join(text.itertext())) * (6.0 if "small" in words else 7.0)
    start = float(text.get("x", "0")) - (length / 2 if "middle" in words else length if "end" in words else 0)
    return start, start + length


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_has_a_title_follows_dark_mode_and_keeps_its_text_inside(name: str) -> None:
    root = ElementTree.parse(DOCS / name).getroot()
    assert root.findtext(f"{SVG}title")
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    placed = [text for text in root.iter(f"{SVG}text") if text.get("x")]
    assert len(placed) > 10
    for text in placed:
        start, end = span_of(text)
        assert start >= 0, text.text
        assert end <= width, text.text
        assert 12 <= float(text.get("y", "0")) <= height, text.text


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_two_texts_on_a_line_of_a_drawing_overlap(name: str) -> None:
    lines: dict[str, list[ElementTree.Element]] = {}
    for text in ElementTree.parse(DOCS / name).getroot().iter(f"{SVG}text"):
        if text.get("x"):
            lines.setdefault(text.get("y", ""), []).append(text)
    for line in lines.values():
        line.sort(key=span_of)
        for left, right in pairwise(line):
            assert span_of(left)[1] <= span_of(right)[0] + 1, (left.text, right.text)


def drawn_row() -> PackedRow:
    """The row of the drawing: A, its questions a, b, c, then B with d; capitals are lyrics."""
    lengths = np.array([6, 4, 3, 3, 4, 3], dtype=np.int32)
    return PackedRow(
        input_ids=np.arange(23, dtype=np.int32),
        label_mask=np.zeros(23, dtype=np.bool_),
        seq_lens=lengths,
        parents=np.array([-1, 0, 0, 0, -1, 4], dtype=np.int32),
        tasks=np.array([-1, 0, 1, 2, -1, 0], dtype=np.int32),
        song_ids=("1",) * 4 + ("2",) * 2,
    )


def test_the_drawing_shows_the_positions_blocks_and_parts_that_are_computed() -> None:
    root = ElementTree.parse(DOCS / "forest_row.svg").getroot()
    row, texts = drawn_row(), ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    letters = "".join(text for text in texts if re.fullmatch("[A-Da-d]", text))
    assert letters.startswith("AAAAAAaaaabbbcccBBBBddd")
    drawn_positions = [int(text) for text in texts if text.isdigit()]
    assert drawn_positions == position_ids(row).tolist()
    layout = build_layout([row])
    size = np.diff(layout.cu_seqlens.numpy()).tolist()
    staircases = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("class") == "causal"]
    assert [path.count(" h16 v16") for path in staircases] == size
    parts = [
        one for one in root.iter(f"{SVG}rect") if one.get("class") == "whole" and one.get("width") != "14"
    ]
    assert [(int(one.get("width", 0)) // 16, int(one.get("height", 0)) // 16) for one in parts] == [
        (len(level.key_slots), len(level.query_slots)) for level in layout.levels
    ]
    assert f"Pairs computed: {layout.pairs} of 23 x 23 = {23 * 23}." in texts
