"""The plan's own configuration on three L40S, for tests of the planner."""

from __future__ import annotations

from dataclasses import replace

from harness.cards import find_card
from harness.planning.from_config import load_planned_config, make_setting
from harness.planning.setting import Setting
from harness.planning.workload import SongLengths, Workload, assume_workload

FREE_LINK_GBPS = 100_000.0


def separate_examples(tokens: int, supervised_share: float = 0.25) -> Workload:
    """Rows of examples that share nothing, each of so many tokens."""
    answer = round(tokens * supervised_share)
    lengths = SongLengths(row_length=2048, tasks=1, lyrics=tokens - answer - 10, question=10, answer=answer)
    return assume_workload(lengths)


def plan_setting(
    *overrides: str,
    gpu: str | None = "L40S",
    vram_gib: float | None = None,
    nodes: int = 3,
    link_gbps: float = 25.0,
    workload: Workload | None = None,
    vram_target: float = 0.94,
) -> Setting:
    """The shipped config `plan` on some cards."""
    setting, _ = make_setting(
        load_planned_config("plan", None, ["world_size=null", *overrides]),
        workload or assume_workload(SongLengths()),
        card=None if gpu is None else find_card(gpu),
        vram_gib=vram_gib,
        nodes=nodes,
        gpus_per_node=1,
        vram_target=vram_target,
        link_gbps=link_gbps,
    )
    return setting


def steps_of(setting: Setting, rows: int) -> Setting:
    """The same with steps of so many rows."""
    return replace(setting.with_rows_of_step(rows))
