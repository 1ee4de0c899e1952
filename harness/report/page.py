"""The page that a report is: what it shows, and its rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.demo.wording import SIGNS
from harness.json_lines import JsonObject
from harness.report.answers import Question
from harness.report.findings import Finding
from harness.report.headlines import Card
from harness.report.plots import Chart
from harness.report.tables import Table


@dataclass(frozen=True, slots=True)
class Section:
    """Charts and tables under a heading; one without either is not shown.

    Attributes:
        id: Of the section on the page.
        title: Its heading.
        charts: Shown first.
        tables: Shown below.
    """

    id: str
    title: str
    charts: Sequence[Chart]
    tables: Sequence[Table]

    @property
    def beside(self) -> Table | None:
        """The table that stands where an odd number of charts would leave a gap, or None."""
        return self.tables[0] if self.tables and len(self.charts) % 2 else None

    @property
    def below(self) -> list[Table]:
        """The other tables."""
        return list(self.tables[1:] if self.beside else self.tables)


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes:
        title: Its heading.
        kind: What it is, above the heading.
        cards: Headline figures.
        warnings: What must not be overlooked.
        sections: In order; sample answers come after the first.
        questions: Sample answers.
        setup: Tables of versions and hashes.
        configs: Name of a configuration to its YAML.
        missing: A sentence for each part that is left out.
    """

    title: str
    kind: str
    cards: Sequence[Card]
    warnings: Sequence[Finding]
    sections: Sequence[Section]
    questions: Sequence[Question] = ()
    setup: Sequence[Table] = ()
    configs: dict[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()

    @property
    def shown(self) -> list[Section]:
        """The sections that hold something."""
        return [section for section in self.sections if section.charts or section.tables]

    def to_json(self) -> JsonObject:
        """What the page tells in words and figures, as plain values: cards, warnings, and the tables by section."""
        return {
            "title": self.title,
            "cards": [{"label": card.label, "value": card.value, "note": card.note} for card in self.cards],
            "warnings": [{"text": one.text, "advice": one.advice} for one in self.warnings],
            "tables": [
                {
                    "section": name,
                    "title": table.title,
                    "columns": table.columns,
                    "rows": table.rows,
                    "note": table.note,
                }
                for name, tables in [*((one.id, one.tables) for one in self.shown), ("setup", self.setup)]
                for table in tables
            ],
            "missing": list(self.missing),
        }


def render_page(page: Page) -> str:
    """The page as one HTML file that asks nothing of a network. Every text of a run is escaped."""
    folder = files("harness.report")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    css = Markup(folder.joinpath("page.css").read_text(encoding="utf-8"))
    return template.render(page=page, css=css, signs=SIGNS, first_answers=FIRST_ANSWERS)


FIRST_ANSWERS = 3
"""Sample answers that are shown unfolded."""
