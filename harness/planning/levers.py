"""What would raise the predicted rate: each lever a setting, judged by the same functions as the run itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.cards import MIB, find_card
from harness.planning.recommend import best_at_stage, fill
from harness.planning.setting import Setting
from harness.planning.workload import SongLengths, Workload, assume_workload
from harness.shapes import SHAPES

CUT_LYRICS = 260
"""Tokens of the 1,000 characters that the plan cuts lyrics to."""


def best_rate(setting: Setting) -> float | None:
    """Examples/s with the best rows and recomputed layers at the setting's stage; None where it cannot be told."""
    found = best_at_stage(setting)
    return None if found is None else found.time.examples_per_s


def filled_rate(setting: Setting) -> float | None:
    """Examples/s with steps so large that every rank fills its card, so that the link weighs least."""
    found = fill(setting)
    return None if found is None else found.time.examples_per_s


def list_levers(setting: Setting) -> Iterator[tuple[str, Setting]]:
    """Single changes that raise examples/s, and the settings that they give."""
    if _can_fp8(setting):
        yield "frozen projections in float8", replace(setting, case=replace(setting.case, fp8=True))
    yield "8 questions a song", _with_songs(setting, tasks=8)
    yield (
        f"lyrics cut to 1,000 characters ({CUT_LYRICS} tokens)",
        _with_songs(setting, lyrics=CUT_LYRICS),
    )
    if setting.case.shape != SHAPES["llama-3.2-1b"]:
        smaller = replace(setting.case, shape=SHAPES["llama-3.2-1b"])
        yield "Llama-3.2-1B", replace(setting, case=replace(smaller, recompute_layers=0))
    for name in ("H100 SXM", "B200"):
        card = find_card(name)
        if setting.card is not None and card.bf16_tflops > setting.card.bf16_tflops:
            yield f"{name}", replace(setting, card=card, memory_bytes=card.memory_mib * MIB)


def pull_all_levers(setting: Setting) -> Setting:
    """Those together that need no other card or model: questions, lyrics, float8."""
    both = _with_songs(setting, tasks=8, lyrics=CUT_LYRICS)
    return replace(both, case=replace(both.case, fp8=True)) if _can_fp8(setting) else both


def _can_fp8(setting: Setting) -> bool:
    return not setting.case.fp8 and setting.card is not None and setting.card.fp8_tflops is not None


def mean_lengths(work: Workload) -> SongLengths:
    """The lengths of a workload's mean song, from which "what if" begins."""
    tasks = max(1, round(work.examples / work.songs))
    alone, whole = work.unshared_tokens / work.examples, work.tokens / work.songs
    branch = (whole - alone) / (tasks - 1) if tasks > 1 else min(85.0, alone / 2)
    answer = max(1, round(work.supervised / work.examples))
    question = max(1, round(branch) - answer)
    lyrics = max(1, round(alone) - question - answer)
    return SongLengths(max(work.longest_row, lyrics + question + answer), tasks, lyrics, question, answer)


def _with_songs(setting: Setting, tasks: int | None = None, lyrics: int | None = None) -> Setting:
    """The same with more questions a song, or with shorter lyrics; never with fewer or longer ones."""
    mean = mean_lengths(setting.workload)
    lengths = replace(
        mean,
        tasks=max(mean.tasks, tasks or 0),
        lyrics=mean.lyrics if lyrics is None else min(mean.lyrics, lyrics),
    )
    return setting.with_workload(assume_workload(lengths))
