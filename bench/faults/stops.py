"""Stops at chosen steps, by SIGTERM or by SIGKILL right after a save, and the way on from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from bench.faults.disk import KILLED, TIMEOUT_S, go_on
from bench.faults.ranks import ForkServer, fork_server, start_ranks
from bench.faults.setting import Reference, Setting, make_reference
from bench.faults.trial import Trial

HELD = "tests.faults.held"
STOPPED = 143


def run_stops(setting: Setting, number: int) -> Iterator[Trial]:
    """So many stop points: every step by SIGTERM (before it, or in its backward pass), every save by SIGKILL."""
    with fork_server() as server:
        servers = [server] * setting.num_ranks
        reference = make_reference(setting, servers, "stops-reference")
        for moment, signal_name in pick_moments(setting, number):
            yield try_stop(setting, servers, reference, moment, signal_name)


def pick_moments(setting: Setting, number: int) -> list[tuple[str, str]]:
    """Moments (see `tests.faults.held`) and signals, SIGTERM and SIGKILL in turns while there are both."""
    terms = [
        (f"{'step' if step % 2 else 'backward'}:{step}", "SIGTERM") for step in range(1, setting.num_steps)
    ]
    saves = range(setting.save_every, setting.num_steps, setting.save_every)
    kills = [(f"between:{step}", "SIGKILL") for step in saves]
    return [*kills[: number // 3], *terms[: number - min(len(kills), number // 3)]]


def try_stop(
    setting: Setting,
    servers: Sequence[ForkServer],
    reference: Reference,
    moment: str,
    signal_name: str,
    module: str = HELD,
    words: Sequence[str] = (),
) -> Trial:
    """Let every rank send itself the signal at the moment; resume; compare."""
    name = "-".join(["stop", *words, *moment.split(":"), signal_name])
    environment = {
        "HELD_AT": moment,
        "HELD_DO": f"signal:{signal_name}",
        "HELD_FILE": str(setting.root / name),
    }
    arguments = [*words, "--config", str(setting.write_config(name))]
    logs = setting.root / f"{name}-logs"
    ranks = start_ranks(servers, arguments, logs, module=module, environment=environment)
    codes = ranks.wait(TIMEOUT_S)
    ranks.kill()
    wanted = KILLED if signal_name == "SIGKILL" else STOPPED
    problems = [] if codes == [wanted] * len(servers) else [f"ended with {codes}, not {wanted}"]
    problems += ["a traceback"] if "Traceback" in ranks.read() else []
    # A stop by SIGTERM saves first, so nothing is lost.
    allowed_lost = 0 if wanted == STOPPED else None
    what = f"{signal_name} at {moment}"
    trial = go_on(
        servers,
        setting,
        reference,
        name,
        arguments,
        what,
        kind="stop",
        module=module,
        allowed_lost=allowed_lost,
    )
    problems += trial.problems
    if not problems:
        shutil.rmtree(setting.run_dir(name), ignore_errors=True)
    return Trial("stop", what, tuple(problems), trial.lost_steps, trial.wrong)
