"""A cable pulled out and a process stopped, on each rank in each phase: noticed, named, and everything ended."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from bench.faults.disk import go_on
from bench.faults.hosts import Hosts, hosts_at, wait_for
from bench.faults.ranks import Ranks, start_ranks
from bench.faults.setting import Reference, Setting, has_guard, make_reference
from bench.faults.stops import HELD
from bench.faults.trial import Trial

PHASES = ("load", "backward", "eval", "save", "between")
START_TIMEOUT_S = 120.0
SLACK_S = 30.0
"""Seconds on top of the guard's timeout for stacks, clean-up and a busy machine."""

Fault = Literal["freeze", "link"]
LOST_OR_HUNG = {6, 7}


def run_freezes(
    setting: Setting, number: int, kinds: Sequence[Fault] = ("freeze", "link")
) -> Iterator[Trial]:
    """Every kind on every rank in every phase, or so many of them, spread evenly."""
    with hosts_at(setting.root / "cluster", with_servers=True) as hosts:
        reference = make_reference(
            setting, hosts.servers, "freezes-reference", hosts.cluster.hosts[0].address
        )
        cases = [
            (kind, phase, rank) for phase, rank, kind in product(PHASES, range(setting.num_ranks), kinds)
        ]
        chosen = cases if number >= len(cases) else [cases[i * len(cases) // number] for i in range(number)]
        for kind, phase, rank in chosen:
            yield try_freeze(setting, hosts, reference, kind, phase, rank)
        if has_guard():
            found = try_freeze(replace(setting, guard=False), hosts, reference, "freeze", "backward", 1)
            problems = () if found.problems else (f"not found by {found.what}",)
            yield Trial("control", f"guard-off: found: {'; '.join(found.problems)[:200]}", problems)


def try_freeze(
    setting: Setting,
    hosts: Hosts,
    reference: Reference,
    kind: Fault,
    phase: str,
    rank: int,
    module: str = HELD,
    words: Sequence[str] = (),
) -> Trial:
    """One fault on one rank in one phase; then the run goes on from its last checkpoint."""
    name = f"{kind}-{phase}-{rank}" if setting.guard else f"{kind}-{phase}-{rank}-unguarded"
    marker = setting.root / name
    step = setting.save_every if phase in ("save", "eval", "between") else setting.save_every + 1
    environment = {
        "HELD_AT": f"{phase}:{step}",
        "HELD_DO": "signal:SIGSTOP" if kind == "freeze" else "wait",
        "HELD_FILE": str(marker),
        "HELD_RANKS": str(rank),
    }
    address = hosts.cluster.hosts[0].address
    arguments = [*words, "--config", str(setting.write_config(name))]
    logs = setting.root / f"{name}-logs"
    ranks = start_ranks(
        hosts.servers, arguments, logs, module=module, address=address, environment=environment
    )
    what = f"{'SIGSTOP' if kind == 'freeze' else 'link cut'} on rank {rank} in {phase}"
    if not wait_for(marker.with_name(f"{marker.name}.{rank}").exists, START_TIMEOUT_S):
        ranks.kill()
        return Trial(kind, what, (f"the run did not get there: {ranks.read()[-500:]}",))
    host = hosts.cluster.hosts[rank]
    if kind == "link":
        hosts.cluster.set_link(host, up=False)
    since_s = time.monotonic()
    marker.with_name(f"{marker.name}.go").touch()
    try:
        codes = ranks.wait(setting.min_timeout_s + SLACK_S)
        detect_s = time.monotonic() - since_s
        left = hosts.wait_until_clean()
    finally:
        hosts.cluster.set_link(host, up=True)
        ranks.kill()
    problems = judge_detection(setting, ranks, codes, rank, setting.run_dir(name))
    problems += [f"left running: {sorted(left.values())}"] if left else []
    trial = go_on(
        hosts.servers, setting, reference, name, arguments, what, kind=kind, module=module, address=address
    )
    problems += trial.problems
    if not problems:
        shutil.rmtree(setting.run_dir(name), ignore_errors=True)
    return Trial(kind, what, tuple(problems), trial.lost_steps, trial.wrong, detect_s)


def judge_detection(
    setting: Setting, ranks: Ranks, codes: Sequence[int | None], rank: int, run_dir: Path
) -> list[str]:
    """What is wrong with the ends of the ranks, the verdict and the stacks after a fault on one rank."""
    problems = []
    others = [code for index, code in enumerate(codes) if index != rank]
    if None in codes:
        running = [index for index, code in enumerate(codes) if code is None]
        problems.append(f"ranks {running} still ran {setting.min_timeout_s + SLACK_S:.0f} s later")
    if not any(code in LOST_OR_HUNG for code in others):
        problems.append(f"ended with {codes}: no rank with 6 or 7")
    verdict = read_verdict(ranks.launch_dir, run_dir)
    if verdict is None:
        problems.append("no verdict.json")
    else:
        if verdict.get("rank") != rank or not verdict.get("host"):
            problems.append(f"the verdict blames rank {verdict.get('rank')} on {verdict.get('host')}")
        if verdict.get("exit_code") not in LOST_OR_HUNG:
            problems.append(f"the verdict's exit code is {verdict.get('exit_code')}")
        if str(verdict.get("message", "-"))[:40] not in ranks.read():
            problems.append("the verdict's message was not printed")
    if not [*run_dir.rglob("stacks-rank-*.txt"), *ranks.launch_dir.rglob("stacks-rank-*.txt")]:
        problems.append("no stacks were kept")
    return problems


def read_verdict(launch_dir: Path, run_dir: Path) -> dict[str, Any] | None:
    """verdict.json of the launch folder, or of the run's logs."""
    for path in (launch_dir / "verdict.json", run_dir / "logs" / "verdict.json"):
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
    return None
