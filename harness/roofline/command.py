"""`harness roofline`: what bounds a run's speed, where it stands, and how it would scale; arithmetic, no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cards import find_card
from preprocess.errors import ConfigError, DataError
from preprocess.outside_text import parse_json
from preprocess.terminal import exit_on_user_error, make_console, print_json

if TYPE_CHECKING:
    from harness.batch_plan import BatchPlan
    from harness.config import RunConfig
    from harness.planning.setting import Setting
    from harness.planning.workload import SongLengths, Workload
    from harness.roofline.collectives import Link
    from harness.roofline.measured import MeasuredRun
    from harness.roofline.study import Study

VRAM_TARGET = 0.94
DEFAULT_GBPS = 25.0
MEMORY_GIB = 1024.0
"""Of a device that no sheet knows: enough to be asked nothing about."""

Length = Annotated[int | None, typer.Option(help="Where there is no data set; as in `harness plan`.")]


@exit_on_user_error
def roofline(
    run: Annotated[Path | None, typer.Argument(help="A finished run's folder.")] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file, or the name of a shipped config.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Shape's name, model folder, .gguf file or hub id.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="The card by name, as L40S; a run that knows its own needs none.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Hosts; the run's own without it.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Cards of each.")] = 1,
    link_gbps: Annotated[
        str | None,
        typer.Option(help="Gb/s between hosts, or what `bench-link --json` wrote, which tells latency too."),
    ] = None,
    row_length: Length = None,
    tasks: Length = None,
    lyrics_tokens: Length = None,
    answer_tokens: Length = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts.")] = None,
) -> None:
    """Ceilings by compute, memory, network and loader; where a run stands; what moves it; 1 to 64 hosts simulated."""
    from harness.roofline.measured import read_measured
    from harness.roofline.study import to_json
    from harness.roofline.tables import print_study

    given = {"row_length": row_length, "tasks": tasks, "lyrics": lyrics_tokens, "answer": answer_tokens}
    lengths = {name: value for name, value in given.items() if value is not None}
    if (run is None) == (config is None and model is None):
        raise ConfigError("give a run's folder, or --config RUN.yaml (or --model NAME), and not both")
    if run is not None:
        study = study_run(read_measured(run), gpu, nodes, gpus_per_node, link_gbps)
    else:
        study = study_plan(config, model, set_ or [], gpu, nodes or 1, gpus_per_node, link_gbps, lengths)
    found = to_json(study)
    if html is not None:
        from harness.report.roofline import write_roofline_page

        write_roofline_page(html, found)
    print_json(found) if json_ else print_study(study, make_console())


def study_plan(
    config: str | None,
    model: str | None,
    overrides: list[str],
    gpu: str | None,
    nodes: int,
    gpus_per_node: int,
    link_gbps: str | None,
    lengths: dict[str, int],
) -> Study:
    """A study of a configuration that has not run.

    Raises:
        ConfigError: No card is named, or the configuration is not allowed.
    """
    from harness.planning.from_config import load_planned_config
    from harness.planning.workload import SongLengths
    from harness.roofline.ceilings import read_loader_rate
    from harness.roofline.study import make_study

    if gpu is None:
        raise ConfigError("pass --gpu NAME, as L40S: a ceiling is a card's")
    settings = load_planned_config(config, model, overrides)
    setting, plan = _set(
        settings, gpu, nodes, gpus_per_node, link_gbps, SongLengths(**lengths), is_assumed=bool(lengths)
    )
    return make_study(
        settings.model.path,
        setting,
        read_alpha_beta(link_gbps, setting.link_gbps),
        plan=plan,
        loader_rows_per_s=read_loader_rate(),
    )


def study_run(
    run: MeasuredRun,
    gpu: str | None = None,
    nodes: int | None = None,
    gpus_per_node: int = 1,
    link_gbps: str | None = None,
) -> Study:
    """A study of a run, on its own card and hosts where no others are named.

    Raises:
        ConfigError: The run does not know its card, and none is named.
    """
    from harness.planning.workload import SongLengths
    from harness.roofline.ceilings import read_loader_rate
    from harness.roofline.measured import workload_of_counts
    from harness.roofline.study import make_study

    card = run.card if gpu is None else find_card(gpu)
    if card is None:
        raise ConfigError(
            f"{run.name} has no ceilings.json that names its card: pass --gpu NAME, as L40S (a run on a CPU needs the "
            "file, for a CPU's peak is known from a measurement alone)"
        )
    own_nodes = run.hosts if nodes is None else nodes
    per_node = gpus_per_node if nodes is not None else max(1, run.world_size // run.hosts)
    at_hand = run.config.data.path.is_dir()
    setting, plan = _set(
        run.config.model_copy(update={"world_size": None}),
        card.name if gpu is not None else None,
        own_nodes,
        per_node,
        link_gbps,
        SongLengths(),
        is_assumed=False,
        work=None if at_hand else workload_of_counts(run),
    )
    on_cpu = bool(run.ceilings) and all(one["device"] == "cpu" for one in run.ceilings)
    case = replace(setting.case, device="cpu" if on_cpu else "cuda")
    setting = replace(setting, card=card, case=case, memory_bytes=card.memory_mib * 2**20)
    given = None if link_gbps is None else read_alpha_beta(link_gbps, setting.link_gbps)
    link = given or run.link or read_alpha_beta(None, setting.link_gbps)
    return make_study(
        run.name,
        setting,
        link,
        run=run,
        plan=plan,
        loader_rows_per_s=read_loader_rate(),
        shared_rows_known=at_hand,
    )


def _set(
    settings: RunConfig,
    gpu: str | None,
    nodes: int,
    gpus_per_node: int,
    link_gbps: str | None,
    lengths: SongLengths,
    *,
    is_assumed: bool,
    work: Workload | None = None,
) -> tuple[Setting, BatchPlan | None]:
    """The planner's setting, and the plan of the data set's own rows where it is at hand."""
    from harness.planning.command import find_workload
    from harness.planning.from_config import make_setting
    from harness.planning.speed import read_link

    found = work or find_workload(settings, lengths, is_assumed=is_assumed)
    setting, _ = make_setting(
        settings,
        found,
        card=None if gpu is None else find_card(gpu),
        vram_gib=MEMORY_GIB if gpu is None else None,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        vram_target=VRAM_TARGET,
        link_gbps=DEFAULT_GBPS if link_gbps is None else read_link(link_gbps),
    )
    return setting, None if found.assumed or work is not None else _plan_rows(settings, setting)


def _plan_rows(settings: RunConfig, setting: Setting) -> BatchPlan:
    from harness.batch_plan import BatchPlan
    from harness.row_sizes import read_row_sizes
    from preprocess.manifest import read_manifest

    folder = settings.data.path
    sizes = read_row_sizes(folder, "train", read_manifest(folder))
    return BatchPlan(sizes, settings.batch.target, setting.rows, setting.case.ranks, settings.seed)


def read_alpha_beta(text: str | None, gbps: float) -> Link:
    """Latency and bandwidth: both from what `bench-link --json` wrote; a bandwidth alone gets an assumed latency.

    Args:
        text: What `--link-gbps` says, or None.
        gbps: The bandwidth that it comes to.

    Raises:
        DataError: The file's all-reduces are damaged.
    """
    from harness.roofline.ceilings import ASSUMED_LATENCY_S
    from harness.roofline.collectives import Link

    if text is not None and Path(text).is_file():
        report = parse_json(Path(text).read_text(encoding="utf-8"))
        if "reduces" in report:
            try:
                return Link.from_report(report, f"measured, {text}")
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"--link-gbps {text}: not what bench-link --json writes ({error})") from error
    source = "assumed" if text is None else "bandwidth given, latency assumed"
    return Link(ASSUMED_LATENCY_S, gbps * 1e9 / 8, source=source)
