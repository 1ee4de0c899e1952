"""The demo as a page: one HTML file that asks nothing of a network, or the start page of the local server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from harness.demo.items import Demo, DemoItem, Version
from harness.demo.stored import Source
from harness.demo.wording import SIGNS, describe_confidence
from harness.evaluation.truth.claims import Verdict
from preprocess.durable import write_text_durably

TEMPLATE = "page.html"

HEADINGS: dict[Version, str] = {"before": "Before fine-tuning", "after": "After fine-tuning"}

CLASSES: dict[Verdict, str] = {
    "supported": "supported",
    "contradicted": "contradicted",
    "not checkable": "unknown",
}
"""CSS classes."""


@dataclass(frozen=True, slots=True)
class DemoPage:
    """What the page shows.

    Attributes:
        items: Questions with their answers, live or stored.
        sources: What gave the answers, each under a title.
        note: What the reader must know, or None.
        failure: What stopped the generation, or None.
        num_unanswered: Questions without any answer.
        tasks: What a model that is there can be asked; empty without one.
    """

    items: Sequence[DemoItem]
    sources: Sequence[tuple[str, Source]]
    note: str | None = None
    failure: str | None = None
    num_unanswered: int = 0
    tasks: Sequence[str] = ()

    @property
    def has_stored(self) -> bool:
        """Whether some of the answers are stored ones."""
        return any(item.is_stored for item in self.items)


def make_page(demo: Demo, live: Source | None, stored: Source | None) -> DemoPage:
    """The page of a demo.

    Args:
        demo: What was asked and answered.
        live: What gave the live answers, if there are any.
        stored: What gave the stored ones.
    """
    kinds = {item.is_stored for item in demo.items}
    sources = [("Live answers", live)] if live is not None and False in kinds else []
    if stored is not None and True in kinds:
        sources.append(("Stored answers", stored))
    return DemoPage(demo.items, sources, demo.note, demo.failure, demo.num_unanswered)


def render_page(
    page: DemoPage, *, web: bool = False, askable: Collection[tuple[str | None, str | None]] = ()
) -> str:
    """The whole page; every text of songs, models and questions is escaped.

    Args:
        page: What it shows.
        web: As the local server's start page, with a script of its own; a file has none.
        askable: Song and task of the questions that the server can put to a model.
    """
    css = "".join(
        files(package).joinpath("page.css").read_text(encoding="utf-8")
        for package in ("harness.report", "harness.demo")
    )
    return _environment().get_template(TEMPLATE).render(page=page, web=web, askable=askable, css=Markup(css))


def render_item(item: DemoItem, *, can_ask: bool = False, failure: str = "", note: str = "") -> str:
    """One question with its answers, as it stands on the local server's page.

    Args:
        item: The question.
        can_ask: Whether it can be asked again.
        failure: What kept it from being answered anew, or "".
        note: What the reader must know, or "".
    """
    given = {"page": DemoPage((), ()), "web": True, "askable": (), "css": ""}
    module = _environment().get_template(TEMPLATE).make_module(given)
    return str(module.show_item(item, can_ask, failure, note))  # type: ignore[attr-defined] # the template's macro


@cache
def _environment() -> Environment:
    page = files("harness.demo").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        loader=DictLoader({TEMPLATE: page}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "signs": SIGNS,
        "classes": CLASSES,
        "headings": HEADINGS,
        "describe_confidence": describe_confidence,
    }
    return environment


def write_page(path: Path, page: DemoPage) -> None:
    """Write the page as one self-contained file.

    Raises:
        DataError: The file cannot be written.
        NoSpaceError: The disk is full.
    """
    write_text_durably(path, render_page(page))
