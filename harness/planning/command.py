"""`harness plan`: will it fit, how fast may it be, what would be better; from sizes alone, in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cards import find_card
from harness.config import RunConfig
from preprocess.errors import ConfigError, OutOfMemoryError
from preprocess.terminal import exit_on_user_error, make_console, print_json

if TYPE_CHECKING:
    from harness.planning.recommend import Relief
    from harness.planning.workload import SongLengths, Workload

Length = Annotated[int | None, typer.Option(help="Where there is no data set yet; see --row-length.")]


@exit_on_user_error
def plan(
    config: Annotated[str | None, typer.Option(help="A YAML file, or the name of a shipped config.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Shape's name (llama-3.2-3b), model folder, .gguf file or hub id.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="The card by name, as L40S.")] = None,
    vram_gib: Annotated[float | None, typer.Option(help="Memory of a card, instead of its own.")] = None,
    nodes: Annotated[int, typer.Option(help="Hosts.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(help="Cards of each.")] = 1,
    link_gbps: Annotated[
        str | None,
        typer.Option(help="Gb/s between hosts, or the JSON file of a measurement; 25 is assumed without it."),
    ] = None,
    target: Annotated[float, typer.Option(help="Share of the card to use.")] = 0.94,
    measured: Annotated[
        Path | None, typer.Option(help="A finished run on such cards, whose efficiency is taken.")
    ] = None,
    row_length: Annotated[
        int | None, typer.Option(help="Slots of a row, where there is no data set yet; 2,048 is assumed.")
    ] = None,
    tasks: Length = None,
    lyrics_tokens: Length = None,
    answer_tokens: Length = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts.")] = None,
) -> None:
    """Plan a run: memory by part and phase, speed, the best rows and ZeRO stage, the plan's wishes. No GPU needed."""
    from harness.planning.from_config import load_planned_config, make_setting
    from harness.planning.plan import LINKS_GBPS, make_plan, to_json
    from harness.planning.speed import read_efficiency, read_link
    from harness.planning.tables import print_plan
    from harness.planning.workload import SongLengths

    settings = load_planned_config(config, model, set_ or [])
    if gpu is None and vram_gib is None:
        raise ConfigError("pass --gpu NAME, as L40S, or --vram-gib N")
    given = {"row_length": row_length, "tasks": tasks, "lyrics": lyrics_tokens, "answer": answer_tokens}
    lengths = {name: value for name, value in given.items() if value is not None}
    setting, found = make_setting(
        settings,
        find_workload(settings, SongLengths(**lengths), is_assumed=bool(lengths) or config is None),
        card=None if gpu is None else find_card(gpu),
        vram_gib=vram_gib,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        vram_target=target,
        link_gbps=25.0 if link_gbps is None else read_link(link_gbps),
    )
    if measured is not None:
        setting = replace(setting, efficiency=read_efficiency(measured, setting))
    links = LINKS_GBPS if link_gbps is None else (setting.link_gbps,)
    made = make_plan(setting, settings.model.path, found, links)
    if html is not None:
        from harness.report.plan import write_plan_page

        write_plan_page(html, to_json(made))
    print_json(to_json(made)) if json_ else print_plan(made, make_console())
    if not made.can_run:
        raise OutOfMemoryError(
            f"as configured a rank takes {made.memory.peak.total / 2**30:.1f} GiB in phase {made.memory.peak.phase}, "
            f"and the card gives {setting.usable_bytes / 2**30:.1f}; "
            + _advise(made.relief, has_best=made.best is not None)
        )


def _advise(relief: Sequence[Relief], *, has_best: bool) -> str:
    if has_best:
        return "the plan tells rows and recomputed layers that fit"
    return f"most is freed by {relief[0].change}" if relief else "take a larger card or a smaller model"


def find_workload(config: RunConfig, lengths: SongLengths, *, is_assumed: bool) -> Workload:
    """The data set's own rows where it is there; assumed ones where lengths are given or no data set is named."""
    from harness.planning.workload import assume_workload, read_workload

    named = config.data.path != Path()
    if is_assumed and (not named or not config.data.path.is_dir()):
        return assume_workload(lengths)
    return read_workload(config.data.path)
