"""What a verification found, as a value, as JSON and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

CHECKS = ("tokenizer", "prompt", "shards", "rows", "sample", "counts", "songs", "lyrics", "files")
MAX_FINDINGS_KEPT = 20
"""Findings of one check that are kept in words; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: which check found it, where, and what it is."""

    check: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what was found.

    Attributes:
        folder: The data set.
        num_checked: For each check, how many things it looked at (shards, rows, examples, numbers, songs).
        num_found: For each check, how many findings.
        findings: The findings, at most `MAX_FINDINGS_KEPT` of a check.
    """

    folder: str
    num_checked: Counter[str] = field(default_factory=Counter)
    num_found: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.num_found

    def add(self, check: str, place: str, message: str) -> None:
        """Note a finding."""
        self.num_found[check] += 1
        if self.num_found[check] <= MAX_FINDINGS_KEPT:
            self.findings.append(Finding(check, place, message))

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-able value."""
        checks = {name: {"checked": self.num_checked[name], "found": self.num_found[name]} for name in CHECKS}
        return {
            "folder": self.folder,
            "ok": self.ok,
            "checks": checks,
            "findings": [asdict(finding) for finding in self.findings],
        }


def print_report(report: VerifyReport, console: Console) -> None:
    """Print a table of the checks and a line for each finding."""
    table = Table("check")
    table.add_column("checked", justify="right")
    table.add_column("found", justify="right")
    for name in CHECKS:
        found = report.num_found[name]
        style = "bold red" if found else "green"
        table.add_row(name, f"{report.num_checked[name]:,}", Text(f"{found:,}", style=style))
    console.print(table)
    for finding in report.findings:
        console.print(Text(str(finding), style="red"))
    left_out = report.num_found.total() - len(report.findings)
    if left_out:
        console.print(Text(f"… and {left_out:,} more"))
