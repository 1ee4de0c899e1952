"""`python -m harness`: plan a run, start it on many hosts, look into it, evaluate it, show it, report it, export it."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from harness.cluster.doctor.command import bench_link, check_before_launch, doctor
from harness.cluster.launch import RestartPolicy
from harness.cluster.launch import launch as launch_ranks
from harness.config import gather_overrides, load_run_config
from harness.evaluation.command import evaluate
from harness.generation.prompts import MAX_SEED
from harness.planning.command import plan
from harness.profiling.stacks import stacks
from harness.roofline.command import roofline
from harness.subject import Adapter, Data, Json, Model, Output, RunFolder, find_subject
from preprocess.durable import write_text_durably
from preprocess.outside_text import visible
from preprocess.settings import dump_settings
from preprocess.terminal import exit_on_user_error, make_console, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
]


@app.command()
@exit_on_user_error
def launch(
    hostfile: Annotated[Path, typer.Option(help="One `host slots=N` a line.")],
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")],
    set_: Assignments = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    memory_snapshot: Annotated[
        bool,
        typer.Option("--memory-snapshot", help="Write torch's snapshot of each GPU's memory, also on OOM."),
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="steps=FIRST:END", help="Look into these steps: steps=10:13 for 10, 11 and 12."),
    ] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Refuse to start another number of ranks.")] = None,
    master_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on the first host.")] = None,
    vram_target: Annotated[
        float | None, typer.Option(help="Bring the peak to this share of the memory, as in 0.94.")
    ] = None,
    no_doctor: Annotated[
        bool, typer.Option("--no-doctor", help="Start without looking at the hosts first.")
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="After a loss, a hang or a crash, go on so often.")
    ] = 0,
    elastic: Annotated[
        bool, typer.Option("--elastic", help="A restart goes on without hosts that do not answer.")
    ] = False,
    min_hosts: Annotated[int, typer.Option(min=1, help="With --elastic: at least so many.")] = 1,
    master_addr: Annotated[
        str | None, typer.Option(help="Address of the first host for the others; asked of it by default.")
    ] = None,
    launcher: Annotated[str, typer.Option(help="pdsh, openmpi, slurm, mpich or impi.")] = "pdsh",
    launcher_args: Annotated[
        list[str] | None, typer.Option("--launcher-arg", help="One more argument for mpirun or srun.")
    ] = None,
) -> None:
    """Train on every slot of a hostfile through DeepSpeed's launcher, and end with a true exit code.

    The hosts are looked at first, as `harness doctor --no-link` does; where that refuses, nothing is started.
    """
    overrides = gather_overrides(
        set_ or (),
        vram_target=vram_target,
        memory_snapshot=memory_snapshot,
        profile=profile,
        resume=resume,
    )
    settings = load_run_config(config, overrides)
    if not no_doctor and launcher == "pdsh":  # srun and mpirun may reach hosts that ssh does not
        check_before_launch(settings, hostfile, master_port)
    launches = settings.output_dir / "launch"
    launches.mkdir(parents=True, exist_ok=True)
    resolved = launches / "run.yaml"
    write_text_durably(resolved, dump_settings(settings))
    code = launch_ranks(
        resolved,
        hostfile,
        launches,
        num_ranks=ranks,
        master_addr=master_addr,
        master_port=master_port,
        launcher=launcher,
        launcher_args=launcher_args or (),
        restarts=RestartPolicy(max_restarts, elastic, min_hosts),
    )
    if code:
        print(f"error: the run ended with exit code {code}", file=sys.stderr)
        raise typer.Exit(code)


app.command()(plan)
app.command()(roofline)
app.command()(doctor)
app.command()(bench_link)
app.command()(stacks)
app.command()(evaluate)


@app.command()
@exit_on_user_error
def demo(
    run: RunFolder = None,
    model: Model = None,
    data: Data = None,
    adapter: Adapter = None,
    output: Output = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="So many of the shipped made-up songs; 3 by default.")
    ] = None,
    songs: Annotated[
        int | None, typer.Option(min=1, help="Instead: so many held-out songs of the data set.")
    ] = None,
    lyrics: Annotated[
        Path | None, typer.Option(help="Instead: the lyrics in this file, or - to paste them.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Ask this task alone, as in artist or themes.")] = None,
    question: Annotated[str | None, typer.Option(help="Ask this instead of a task.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=5.0, help="0 takes the likeliest token each time.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Both models draw by it, above temperature 0.")
    ] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 200,
    html: Annotated[Path | None, typer.Option(help="Write a page to show, one self-contained file.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a page on this machine alone.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --web; 0 for any free one.")] = 8765,
    store: Annotated[Path | None, typer.Option(help="Keep the answers in this file.")] = None,
    stored: Annotated[
        Path | None, typer.Option(help="Answers kept by --store to fall back on; shipped ones by default.")
    ] = None,
    json_: Json = False,
) -> None:
    """The same question asked of the base and the tuned model, side by side, while they answer.

    Without a model the stored answers about the shipped examples are shown, with their date and hashes. Where
    generating fails they stand in, and the failure is named.
    """
    from harness.demo.choosing import DemoOptions
    from harness.demo.command import run_demo

    is_live = any(given is not None for given in (run, model, data, adapter))
    subject = find_subject(run, model, data, adapter, output) if is_live else None
    asked_for = (songs, examples, lyrics, task, question, temperature, seed, max_new_tokens)
    run_demo(subject, DemoOptions(*asked_for, html, web, port, store, stored, json_, output))


@app.command()
@exit_on_user_error
def generate(
    run: RunFolder = None,
    model: Model = None,
    data: Data = None,
    adapter: Adapter = None,
    artist: Annotated[str | None, typer.Option(help="In whose style.")] = None,
    theme: Annotated[list[str] | None, typer.Option(help="What about; may be given again.")] = None,
    genre: Annotated[str | None, typer.Option(help="The artist's usual one by default.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=5.0, help="0 takes the likeliest token each time.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same lyrics.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens, at most.")] = 400,
    json_: Json = False,
) -> None:
    """Write lyrics in a style, and say how far they repeat the training lyrics.

    It takes an adapter that was trained on the task "generation", which a build makes when it is asked to.
    """
    from harness.demo.songwriting import Wish, run_generate

    subject = find_subject(run, model, data, adapter, None)
    wish = Wish(artist, tuple(theme or ()), genre)
    run_generate(
        subject.settings,
        subject.data,
        subject.adapter,
        wish,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        as_json=json_,
    )


@app.command()
@exit_on_user_error
def export(
    run: RunFolder = None,
    model: Model = None,
    adapter: Adapter = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write; must not be there yet.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="adapter: what peft loads on the base. merged: a whole model that plain transformers loads, its head "
            "untied where it was tied and trained.",
        ),
    ] = "adapter",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bf16, fp16 or fp32; by default the precision that the adapter (merged: the base) is stored in. "
            "A merged model's sums are rounded to it; how much of the update that costs is measured and told."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Say whether vLLM, llama.cpp, TGI and Ollama take it, and why not."),
    ] = False,
    json_: Json = False,
) -> None:
    """Write the trained adapter as plain peft or merged into its base; or say which servers take it.

    One of --run and --adapter with --model. Without --output only the check is made. Merging adds in float64,
    rounds once and tells what that costs. Nothing is written over; a disk that is too small is told before anything
    is written.
    """
    from harness.export.command import print_exported, print_verdicts, run_export

    console = make_console(error=json_)
    with redirect_stdout(sys.stderr):  # a library that warns there, as DeepSpeed does, would spoil the JSON
        verdicts, exported = run_export(run, adapter, model, output, form, dtype, check=check)
    if json_:
        print_json(
            {
                "check": [verdict.to_json() for verdict in verdicts],
                "exported": None if exported is None else exported.to_json(),
            }
        )
        return
    if verdicts:
        print_verdicts(verdicts, console)
    if exported is not None:
        print_exported(exported, console)


@app.command()
@exit_on_user_error
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run folders; of several the first is the baseline.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The file; report.html or comparison.html in the first run by default."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in a browser, where there is one.")] = False,
    json_: Json = False,
) -> None:
    """Write a run's report, or several runs' comparison: one self-contained HTML file."""
    from harness.report.command import write_page

    path, content = write_page(runs, output)
    if json_:
        print_json({"file": str(path), **content})
    else:
        print(visible(f"report: {path}"))
    if open_ and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(path.absolute().as_uri())


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
