"""The data-quality report as one HTML page that opens anywhere, without a network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from preprocess.durable import write_text_durably
from preprocess.quality import sections
from preprocess.quality.advice import advise, percent, plural
from preprocess.quality.overview import QualityReport


def write_html(report: QualityReport, path: Path, title: str) -> None:
    """Write the report's page; the same report gives the same bytes.

    Args:
        report: The report.
        path: Where to; replaced when it exists.
        title: Heading, as in the name of the collection.

    Raises:
        NoSpaceError: The disk is full.
        DataError: The file cannot be written.
    """
    write_text_durably(path, render_page(report, title))


def render_page(report: QualityReport, title: str) -> str:
    """The page as text. Everything that comes from songs is escaped."""
    folder = files("preprocess.quality")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["heat"] = lambda part: f"{100 * part:.0f}"
    environment.filters["width"] = lambda part: f"{100 * part:.1f}"
    page = environment.from_string(folder.joinpath("page.html").read_text("utf-8"))
    return page.render(
        title=title.encode("utf-8", "replace").decode(),
        css=Markup(folder.joinpath("page.css").read_text("utf-8")),
        counts=report.counts,
        found=report.findings,
        figures=sections.list_figures(report),
        advices=advise(report),
        percent=percent,
        plural=plural,
        sections=sections,
    )
