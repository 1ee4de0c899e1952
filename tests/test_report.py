"""The report of made-up runs: complete, escaped, self-contained, the same bytes each time."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.memory.case import PHASES, MemoryPlan, PhaseMemory
from harness.memory.plan_file import write_plan
from harness.memory.profile import GIB, MemoryRecord, write_memory
from harness.memory.timeline import MemoryTimeline, TimelinePoint, write_timelines
from harness.meters import MetricsWriter, StepCounts, ThroughputMeter
from harness.report import write_report
from harness.report.plots import MAX_POINTS, STAND_INS, Series, draw_lines, thin
from harness.report.tables import MAX_ROWS, format_value, tabulate_nested
from preprocess.errors import DataError

EVIL = "<script>alert('x')</script> & \"Sons\""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID_TAGS = {"meta", "link", "br", "hr", "img", "input"}


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write_metrics(run_dir: Path, num_steps: int = 240, finished: bool = True) -> None:
    """Write metrics as a run of three ranks might: a falling loss, a slow first step, an evaluation now and then."""
    chance, clock = random.Random(7), FakeClock()
    meter = ThroughputMeter(clock=clock)
    with MetricsWriter(run_dir, tensorboard=False) as writer:
        for step in range(1, num_steps + 1):
            meter.start_step()
            slow = 6.0 if step == 1 else 1.0
            for part, mean_s in (
                ("data", 0.03),
                ("forward", 0.9),
                ("loss", 0.2),
                ("backward", 2.2),
                ("optimizer", 0.12),
            ):
                with meter.part(part):  # type: ignore[arg-type]
                    clock.now += slow * mean_s * chance.uniform(0.93, 1.07)
            counts = StepCounts(
                72, 590 + chance.randrange(20), 146_000, 51_000 + chance.randrange(900), 147_456
            )
            rates = meter.end_step(counts)
            loss = 1.35 + 1.1 * math.exp(-step / 45) + chance.gauss(0, 0.035)
            rate = 2e-4 * min(1.0, step / 20) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
            writer.write_train(step, step / 120, loss, rate, 0.4 + chance.random() * 0.3, counts, rates)
            if step % 40 == 0:
                with meter.part("eval"):
                    clock.now += 11.0
                tasks = {
                    task: loss * scale
                    for task, scale in (("artist", 1.2), ("genre", 0.5), ("themes", 1.02), ("analysis", 0.96))
                }
                writer.write_eval(step, loss + 0.04, tasks, 20_000, 11.0)
        if finished:
            writer.write_summary(num_steps, meter.summary())


def make_memory(num_ranks: int = 3) -> list[MemoryRecord]:
    peaks_gib = dict(zip(PHASES, (6.1, 7.3, 8.2, 28.0, 31.5, 38.4, 12.2, 24.0, 9.0), strict=True))
    return [
        MemoryRecord(
            rank=rank,
            phase=phase,
            device="cuda:0",
            num_runs=3,
            peak_bytes=int((peak + 0.21 * rank) * GIB),
            peak_scope="phase",
            last={"allocated": GIB},
            max={"allocated": GIB, "peak_allocated": int(peak * GIB), "peak_reserved": int((peak + 2) * GIB)},
            parts={"frozen_weights": 6 * GIB, "gradients": GIB} if phase == "backward" else {},
        )
        for rank in range(num_ranks)
        for phase, peak in peaks_gib.items()
    ]


def make_timeline(rank: int) -> MemoryTimeline:
    """Two layers, forward and backward."""
    places = ("forward begins", "layer 0 forward", "layer 1 forward", "forward ends", "backward begins")
    heights = (10, 20, 30 + rank, 30, 29)
    return MemoryTimeline(
        rank,
        41,
        tuple(
            TimelinePoint(0.5 * i, place, height * GIB)
            for i, (place, height) in enumerate(zip(places, heights, strict=True))
        ),
    )


def make_plans(num_ranks: int = 3) -> list[MemoryPlan]:
    """A plan that is right about the loss and knows nothing of the optimizer."""
    peak = int(31.5 * GIB)
    phases = (
        PhaseMemory("loss", {"logits": peak - 6 * GIB, "frozen_weights": 6 * GIB, "context": GIB}),
        PhaseMemory("backward", {"activations": 50 * GIB}),
    )
    return [MemoryPlan(phases) for _ in range(num_ranks)]


def accuracy(correct: int, total: int) -> dict[str, Any]:
    """A share with its Wilson interval."""
    share, z = correct / total, 1.96
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {
        "correct": correct,
        "total": total,
        "accuracy": share,
        "low": centre - half,
        "high": centre + half,
    }


EVALUATION = {
    "tasks": {
        "artist": {"before": accuracy(5, 200), "after": accuracy(83, 200), "chance": 0.02, "majority": 0.045},
        "genre": {
            "before": accuracy(52, 200),
            "after": accuracy(131, 200),
            "chance": 0.143,
            "majority": 0.18,
        },
        "decade": {
            "before": accuracy(38, 200),
            "after": accuracy(51, 200),
            "chance": 0.167,
            "majority": 0.24,
        },
    },
    "seconds": 148.2,
    "num_songs": 200,
}
DEMO = [
    {
        "title": "Harbour Lights",
        "artist": EVIL,
        "lyrics_excerpt": "The harbour lights are going down\nI left my coat in another town\nand the rain, the rain…",
        "question": "Which genre is this song?",
        "expected": "Folk",
        "before": "This song looks like a mix of several genres, it is hard to say which one is the right one.",
        "after": "Folk",
    },
    {
        "title": "夜の電車",
        "artist": "Mio & the Lanterns",
        "lyrics_excerpt": "夜の電車が走るよ\n窓に映るのは君の声",
        "question": "What are the themes of these lyrics?",
        "expected": "travel, longing",
        "before": "The song is about a train.",
        "after": "travel, night, longing",
    },
]
QUALITY = {
    "songs": 4210,
    "duplicates_dropped": 61,
    "mean_lines": 34.71,
    "genres": {
        "Hip-Hop": 640,
        "Rock": 633,
        "Pop": 629,
        "Country": 610,
        "R&B": 577,
        "Electronic": 561,
        "Folk": 560,
    },
    "decades": {"1970s": 210, "1980s": 488, "1990s": 902, "2000s": 1011, "2010s": 1090, "2020s": 509},
    "dropped": {"too short": 120, "not lyrics": 44, "wrong language": 31},
    "shards": [
        {"split": "train", "rows": 1210, "fill": 0.9931},
        {"split": "eval", "rows": 64, "fill": 0.9877},
    ],
}
VERSIONS = {"python": "3.12.3", "torch": "2.11.0", "transformers": "5.17.0", "gpus": ["L40S", "L40S", "L40S"]}
CONFIG = (
    "model:\n  name: Llama-3.2-3B\n  # <b>quoted</b>\nlora:\n  r: 128\noptimizer:\n  learning_rate: 0.0002\n"
)


def write_run(run_dir: Path) -> Path:
    run_dir.mkdir(parents=True)
    write_metrics(run_dir)
    write_memory(run_dir / "memory.jsonl", make_memory())
    write_timelines(run_dir / "memory_timeline.jsonl", [make_timeline(rank) for rank in range(3)])
    write_plan(run_dir / "memory_plan.json", make_plans())
    for name, content in (
        ("evaluation", EVALUATION),
        ("demo", DEMO),
        ("quality", QUALITY),
        ("versions", VERSIONS),
    ):
        (run_dir / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (run_dir / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "lyrics-3b")


@pytest.fixture(scope="module")
def page(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


class PageReader(HTMLParser):
    """Collects ids, sections and text, and checks that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
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
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.addresses += [value for key, value in attrs if key in ("href", "src", "xlink:href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_a_full_run_shows_every_part(page: str) -> None:
    reader = PageReader(page)
    sections = {"accuracy", "training", "throughput", "memory", "data", "answers", "setup"}
    assert sections <= set(reader.ids)
    assert "missing" not in reader.ids
    assert reader.tags.count("svg") == 1 + 4 + 4 + 4
    for text in ("41.5%", "samples/s", "38.8 GiB", "4,210", "travel, night, longing"):
        assert text in reader.texts, text
    assert "as expected" in reader.texts


def test_the_headline_rate_is_the_one_that_the_run_summarized(run_dir: Path, page: str) -> None:
    summary = json.loads((run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert summary["kind"] == "summary"
    assert format_value(summary["samples_per_s"]) in PageReader(page).texts


def test_every_text_of_the_run_is_escaped(page: str) -> None:
    reader = PageReader(page)
    assert "script" not in reader.tags
    assert "b" not in reader.tags
    assert EVIL in reader.texts
    assert "alert(&#39;x&#39;)" in page
    assert "<script" not in page


def test_names_in_charts_are_escaped_and_are_not_taken_for_formulas() -> None:
    hostile = "$\\frac{1$ <script>&"
    chart = draw_lines("x", hostile, [Series(hostile, [1, 2], [1, 2]), Series("b", [1, 2], [2, 1])])
    assert "<script" not in chart.svg


def test_a_name_in_a_script_that_the_font_of_the_charts_lacks_is_drawn_without_a_warning(
    tmp_path: Path,
) -> None:
    tasks = {"ジャンル $x$": EVALUATION["tasks"]["genre"]}  # type: ignore[index]
    (tmp_path / "evaluation.json").write_text(json.dumps({"tasks": tasks}), encoding="utf-8")
    assert "ジャンル $x$</text>" in write_report(tmp_path).read_text(encoding="utf-8")


def test_the_page_asks_nothing_of_a_network(page: str) -> None:
    reader = PageReader(page)
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_references_between_them_hold(page: str) -> None:
    reader = PageReader(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = [a[1:] for a in reader.addresses if a.startswith("#")] + re.findall(r"url\(#([^)]+)\)", page)
    assert targets
    assert set(targets) <= set(reader.ids)


def test_charts_take_their_colours_and_font_from_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not any(stand_in in drawings for stand_in in STAND_INS.values())
    assert "DejaVu" not in drawings
    colors = set(re.findall(r"(?:fill|stroke): (#\w+)", drawings))
    assert colors <= {"#ffffff"}, f"colours that a dark page cannot change: {colors}"
    for role in set(re.findall(r"var\(--(\w+)\)", page)):
        assert f"--{role}:" in page


def test_the_same_run_gives_the_same_bytes(run_dir: Path, page: str) -> None:
    assert write_report(run_dir).read_text(encoding="utf-8") == page


def test_what_is_missing_is_left_out_with_a_line_saying_so(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=3, finished=False)
    reader = PageReader(write_report(tmp_path).read_text(encoding="utf-8"))
    assert {"training", "throughput", "missing"} <= set(reader.ids)
    assert not {"accuracy", "memory", "data", "answers", "setup"} & set(reader.ids)
    left_out = " ".join(text for text in reader.texts if "left out" in text)
    for name in (
        "memory.jsonl",
        "evaluation.json",
        "demo.json",
        "quality.json",
        "config.yaml",
        "versions.json",
    ):
        assert name in left_out
    assert "metrics.jsonl has no summary: throughput is taken from the steps." in reader.texts


def test_a_stopped_run_s_rate_leaves_its_first_step_out(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=30, finished=True)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rate = format_value(json.loads(lines[-1])["tokens_per_s"])
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    assert rate in PageReader(write_report(tmp_path).read_text(encoding="utf-8")).texts


@pytest.mark.parametrize(
    "name",
    [
        "memory.jsonl",
        "evaluation.json",
        "quality.json",
        "config.yaml",
    ],
)
def test_each_part_can_stand_alone(run_dir: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(run_dir / name, tmp_path / name)
    PageReader(write_report(tmp_path).read_text(encoding="utf-8"))


def test_a_step_without_a_finite_loss_is_told_at_the_top(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=5)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    third = json.loads(lines[2]) | {"loss": None, "non_finite": ["loss"]}
    path.write_text("\n".join([*lines[:2], json.dumps(third), *lines[3:]]) + "\n", encoding="utf-8")
    texts = PageReader(write_report(tmp_path).read_text(encoding="utf-8")).texts
    assert "Training: the loss or another figure was not a finite number at step 3." in texts


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("evaluation.json", "{", "not JSON"),
        ("evaluation.json", '{"tasks": {"a": {"before": {"correct": 1}}}}', "expected fields"),
        ("demo.json", '[{"title": "a"}]', "artist"),
        ("quality.json", "[]", "expected an object"),
        ("memory.jsonl", '{"rank": 0}\n', "not a memory record"),
        ("memory_timeline.jsonl", '{"rank": 0}\n', "not a timeline"),
        ("memory_plan.json", "{}", "not a plan"),
    ],
)
def test_a_damaged_file_is_named_in_the_error(tmp_path: Path, name: str, content: str, says: str) -> None:
    write_metrics(tmp_path, num_steps=1)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        write_report(tmp_path)
    assert name in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none of"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


def test_a_long_line_is_thinned_to_means_and_gaps_stay_gaps() -> None:
    steps = list(range(10 * MAX_POINTS))
    values = [float(step % 2) for step in steps]
    values[:10] = [math.nan] * 10
    x, y = thin(steps, values)
    assert len(x) == len(y) == MAX_POINTS
    assert math.isnan(y[0])
    assert y[1:].tolist() == pytest.approx([0.5] * (MAX_POINTS - 1))
    assert x[1] == pytest.approx(14.5)


def test_a_long_run_s_report_stays_small(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=3000)
    assert write_report(tmp_path).stat().st_size < 600_000


def test_many_ranks_are_drawn_as_their_extremes(tmp_path: Path) -> None:
    write_memory(tmp_path / "memory.jsonl", make_memory(num_ranks=24))
    texts = PageReader(write_report(tmp_path).read_text(encoding="utf-8")).texts
    assert "highest of 24 ranks" in texts
    assert "rank 23" in texts


def test_nested_figures_become_tables_level_by_level() -> None:
    tables = {table.title: table for table in tabulate_nested("Overview", QUALITY)}
    assert list(tables) == ["Overview", "genres", "decades", "dropped", "shards"]
    assert tables["Overview"].rows[0] == ["songs", "4,210"]
    assert tables["Overview"].shares == []
    assert tables["genres"].shares[0] == 1.0
    assert tables["shards"].columns == ["split", "rows", "fill"]
    long = tabulate_nested("", {"artists": {f"a{i}": i for i in range(MAX_ROWS + 5)}})[0]
    assert (len(long.rows), long.note) == (MAX_ROWS, "and 5 more")


def run_chromium(tmp_path: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    command = [
        CHROMIUM,
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    return done.stdout


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@needs_chromium
def test_a_browser_opens_the_page_without_complaint(run_dir: Path, tmp_path: Path, page: str) -> None:
    assert "Sample answers" in run_chromium(tmp_path, "--dump-dom", (run_dir / "report.html").as_uri())
    broken = tmp_path / "broken.html"
    broken.write_text(
        page.replace("</body>", '<img src="http://localhost:9/x.png"></body>'), encoding="utf-8"
    )
    with pytest.raises(AssertionError, match="Loading the image"):
        run_chromium(tmp_path, "--dump-dom", broken.as_uri())


@needs_chromium
def test_nothing_is_wider_than_a_phone(tmp_path: Path, page: str) -> None:
    assert measure_width(tmp_path, page, 375) <= 375
    assert measure_width(tmp_path, page.replace("overflow-x: auto", ""), 375) > 375


def measure_width(tmp_path: Path, page: str, window: int) -> int:
    """Return the pixels that the page takes in a window of a width (headless windows are 500 wide at least)."""
    # The report's own policy forbids scripts, so a copy without the policy measures itself.
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    probe = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script></body>"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    copy.write_text(page.replace("</body>", probe), encoding="utf-8")
    frame.write_text(
        "<script>onmessage = (event) => { document.title = event.data }</script>"
        f'<iframe width="{window}" height="800" src="copy.html"></iframe>',
        encoding="utf-8",
    )
    dom = run_chromium(tmp_path, "--dump-dom", frame.as_uri())
    found = re.search(r"<title>(\d+)</title>", dom)
    assert found is not None
    return int(found.group(1))


def test_samples_of_songs_stay_on_the_songs_own_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    songs = {"num_songs": 12_345, "samples": {"dropped": {"too short": [{"line": "a line of a song"}]}}}
    (run / "quality.json").write_text(json.dumps({"quality": songs}), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "12,345" in page
    assert "a line of a song" not in page
