"""The page of the quality report: complete, escaped, self-contained, reproducible, no wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from preprocess.clean.song import CleanSettings
from preprocess.corpus import generate_songs
from preprocess.quality.charts import draw_columns, draw_curve, ticks
from preprocess.quality.counts import QualityCounts
from preprocess.quality.findings import ArtistFound, Findings, SharedLyrics
from preprocess.quality.overview import QualityReport, measure_quality
from preprocess.quality.page import render_page, write_html
from preprocess.quality.sections import list_decades, list_explicit, map_genres
from preprocess.schema import Song, Traits

EVIL = "<script>alert('x')</script> & \"Sons\""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID_TAGS = {"meta", "link"}


class PageReader(HTMLParser):
    """Collects tags, ids, addresses and text, and checks that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id" and value:
                self.ids.append(value)
            elif key == "aria-labelledby" and value:
                self.references.append(value)
            elif key in ("href", "src") and value:
                self.addresses.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def make_report(name: str = EVIL) -> QualityReport:
    """A report in which every text that songs bring is one name, and every part is there."""
    report = measure_quality(list(generate_songs(300, seed=0)), CleanSettings(min_chars=0))
    counts = report.counts
    song = Song("x", name, name, name, name, 1990, name, (name,), name, name, name)
    for _ in range(3):
        counts.add(song, Traits(True, True, 0.1, (name,)))
        counts.reject(name, 7, name, name)
        counts.drop(song, name)
        counts.disagree(name, name, name, song)
    artist = ArtistFound(name, 2, {name: 1, f"{name}2": 1})
    found = Findings(
        num_songs=303,
        num_duplicates=2,
        copies={"2": 2, "3+": 0},
        num_near_duplicates=3,
        num_shared=1,
        num_songs_shared=2,
        shared=(SharedLyrics(4, 4, (name, name, name)),),
        num_artists=60,
        num_without_artist=1,
        num_with_one_song=20,
        num_artists_of_half=3,
        songs_per_artist={"1": 20, "2+": 40},
        curve=((1, 50), (3, 152), (60, 302)),
        top=(artist,),
        num_artists_by_genres={2: 2, 3: 1},
        mixed=(artist,),
    )
    return QualityReport(counts, found)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(make_report(), EVIL)


PARTS = [
    "look",
    "lengths",
    "languages",
    "genres",
    "decades",
    "artists",
    "duplicates",
    "facts",
    "suspect",
    "explicit",
]
PARTS += ["conflicts", "dropped", "rejected"]


def test_a_full_report_shows_every_part(page: str) -> None:
    reader = PageReader(page)
    assert set(PARTS) <= set(reader.ids)
    assert reader.tags.count("svg") == 5
    for text in (
        "Songs kept",
        "303",
        "of 309 rows",
        "half by 3",
        "1990s",
        "English (en)",
        "Hip-Hop",
        "look",
    ):
        assert text in reader.texts, text


def test_every_text_of_a_song_is_escaped(page: str) -> None:
    reader = PageReader(page)
    assert "script" not in reader.tags
    assert "<script" not in page
    shown = " ".join(reader.texts)
    # Heading, genres, tags, heat map, artists, shared lyrics, languages; and samples of five kinds.
    assert shown.count("<script>alert('x')</script>") > 40
    harmless = PageReader(render_page(make_report("plain name"), "plain name"))
    assert reader.tags == harmless.tags


def test_the_page_asks_nothing_of_a_network(page: str) -> None:
    assert all(address.startswith(("#", "data:")) for address in PageReader(page).addresses)
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_references_hold(page: str) -> None:
    reader = PageReader(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = {address[1:] for address in reader.addresses if address.startswith("#")}
    assert len(targets) > 10
    assert targets | set(reader.references) <= set(reader.ids)


def test_charts_take_their_colours_from_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert drawings
    assert not re.search(r"fill=|stroke=|style=|#[0-9a-f]{3}", drawings)
    assert drawings.count('role="img"') == drawings.count("aria-label=") == 5
    css, dark = page.split("prefers-color-scheme: dark", 1)
    for role in set(re.findall(r"var\(--([a-z][\w-]+)\)", page)) - {"font"}:
        assert f"--{role}:" in css
        assert f"--{role}:" in dark.split("}")[0]


def test_the_same_report_gives_the_same_bytes(page: str, tmp_path: Path) -> None:
    path = tmp_path / "quality.html"
    write_html(make_report(), path, EVIL)
    assert path.read_bytes() == page.encode()
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", page)


def test_an_empty_report_and_one_of_bad_rows_alone_are_pages() -> None:
    empty = PageReader(render_page(QualityReport(), "Nothing"))
    assert "Nothing stands out." in empty.texts
    assert not set(PARTS[1:]) & set(empty.ids)
    counts = QualityCounts()
    counts.reject("a.csv", 1, "no lyrics")
    reader = PageReader(render_page(QualityReport(counts), "\udcff.csv"))
    assert {"look", "rejected"} == set(PARTS) & set(reader.ids)


def test_songs_without_any_fact_are_a_page() -> None:
    report = measure_quality([Song("1", "la"), Song("2", "la la")], CleanSettings(min_chars=0))
    reader = PageReader(render_page(report, "Bare"))
    assert "No song has an artist." in reader.texts
    for link in (address for address in reader.addresses if address.startswith("#")):
        assert link[1:] in reader.ids


def test_axes_reach_the_highest_value_in_round_steps() -> None:
    for highest in (0, 1, 2, 3, 7, 10, 99, 100, 101, 4_999, 5_000_000):
        scale = ticks(highest)
        assert scale[0] == 0
        assert scale[-1] >= highest
        assert len(scale) <= 6
        assert len({b - a for a, b in pairwise(scale)}) == 1


def test_columns_are_as_high_as_their_counts() -> None:
    svg = draw_columns("a < b", ["x<", "y", "z"], [50, 100, 0])
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert len(heights) == 2
    assert "x&lt;: 50" in svg
    assert "x<" not in svg
    assert "<svg" in draw_curve("one artist", [(1, 1.0)], mark=1)


def cells(counts: QualityCounts) -> dict[tuple[str, str], str]:
    heat = map_genres(counts)
    pairs: Sequence[tuple[str, list[tuple[str, float]]]] = heat.rows
    return {
        (row, col): cell
        for row, parts in pairs
        for col, (cell, _) in zip(heat.columns, parts, strict=True)
        if cell
    }


def test_the_heat_map_holds_every_song_once() -> None:
    counts = QualityCounts()
    for n in range(2000):
        song = Song(
            str(n), "la", genre=f"G{n % 30}" if n % 7 else None, year=1500 + n % 600 if n % 5 else None
        )
        counts.add(song, Traits(n % 30 == 1, False, 1.0))
    told = cells(counts)
    assert sum(int(cell.replace(",", "")) for cell in told.values()) == 2000
    assert ("(other)", "earlier") in told
    assert ("(other)", "later") in told
    assert ("(none)", "(none)") in told
    assert list_explicit(counts)[0].name == "G1"


def test_decades_stand_in_order_with_thin_ends_put_together() -> None:
    counts = QualityCounts()
    for year, num in {
        7: 1,
        850: 2,
        1930: 1,
        **dict.fromkeys(range(1940, 2021, 10), 9),
        2090: 4,
        2100: 1,
    }.items():
        for n in range(num):
            counts.add(Song(f"{year} {n}", "la", year=year), Traits(False, False, 1.0))
    counts.add(Song("x", "la"), Traits(False, False, 1.0))
    shown = list_decades(counts, 9)
    assert [bar.name for bar in shown] == [
        "earlier",
        *(f"{year}s" for year in range(1940, 2021, 10)),
        "later",
        "(none)",
    ]
    assert [bar.count for bar in shown] == ["4", *["9"] * 9, "5", "1"]
    assert [bar.name for bar in list_decades(counts, 99)][:3] == ["0s", "850s", "1930s"]


def run_chromium(tmp_path: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    folder = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *flags, folder, "--enable-logging=stderr", "--v=0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@needs_chromium
def test_a_browser_opens_the_page_without_complaint(tmp_path: Path, page: str) -> None:
    path, broken = tmp_path / "quality.html", tmp_path / "broken.html"
    path.write_text(page, encoding="utf-8")
    assert "What to look at" in run_chromium(tmp_path, "--dump-dom", path.as_uri())
    image = '<img src="http://localhost:9/x.png"></body>'
    broken.write_text(page.replace("</body>", image), encoding="utf-8")
    with pytest.raises(AssertionError, match="Loading the image"):
        run_chromium(tmp_path, "--dump-dom", broken.as_uri())


def measure_width(tmp_path: Path, page: str, window: int) -> int:
    """Pixels that the page takes in a window of a width, in a frame, for headless windows are 500 wide at least."""
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    # The page's own policy forbids scripts, so a copy without the policy measures itself, all of it opened.
    probe = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script></body>"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    copy.write_text(page.replace("<details", "<details open").replace("</body>", probe), encoding="utf-8")
    frame.write_text(
        "<script>onmessage = (event) => { document.title = event.data }</script>"
        f'<iframe width="{window}" height="800" src="copy.html"></iframe>',
        encoding="utf-8",
    )
    found = re.search(r"<title>(\d+)</title>", run_chromium(tmp_path, "--dump-dom", frame.as_uri()))
    assert found is not None
    return int(found.group(1))


@needs_chromium
def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    page = render_page(make_report("W" * 200), "W" * 200)
    assert measure_width(tmp_path, page, 360) <= 360
    assert measure_width(tmp_path, page.replace("overflow-x: auto", ""), 360) > 360
