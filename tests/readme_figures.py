"""Which figure of README.md stands in which record of bench/results, and the search for those that stand in none.

A claim is a sentence of README with `{}` where its measured numbers are; what fills them is read from the newest record
of a program and must round to what is printed. A paragraph that names a file of bench/results, the tables beside it and
a paragraph that leads up to such a table may hold no other number, but for those in `SETTINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.recorded import Record, read_records

RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"

NUMBER = re.compile(r"(?<![\w.,=-])\d[\d,]*(?:\.\d+)?(?![\w])")
"""A number in running text: 3.6, 2,240; not the one in Llama-3.2-3B, bf16 or r=128."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, as it stands in README but for its numbers, and what they are.

    Attributes:
        text: Line breaks as spaces, `{}` for each number.
        values: What the records say, in the order of the holes.
    """

    text: str
    values: tuple[Callable[[], float], ...]


@cache
def newest(name: str) -> Record:
    """The newest record of a program."""
    return read_records(RESULTS / f"{name}.jsonl")[-1]


def figure(name: str, key: str, scale: float = 1.0) -> Callable[[], float]:
    """Median of a figure, times `scale`."""
    return lambda: newest(name).figures[key].median * scale


def ratio(name: str, key: str) -> Callable[[], float]:
    """Median of a ratio to the baseline."""
    return lambda: newest(name).ratios[key].median


def fact(name: str, key: str, scale: float = 1.0) -> Callable[[], float]:
    """A fact, times `scale`."""
    return lambda: float(newest(name).facts[key]) * scale


def accuracy_row(task: str, shown: str) -> Claim:
    """A row of quickstart's table: names, guessing, TF-IDF, before and after with their intervals."""
    ends = [
        f"{task}_{version}_{key}" for version in ("before", "after") for key in ("accuracy", "low", "high")
    ]
    return Claim(
        f"| {shown} | {{}} | {{}} % | {{}} % | {{}} % [{{}}, {{}}] | {{}} % [{{}}, {{}}] |",
        (
            lambda: 1 / float(newest("quickstart").facts[f"{task}_chance"]),
            fact("quickstart", f"{task}_chance", 100),
            fact("quickstart", f"{task}_tfidf", 100),
            *(fact("quickstart", key, 100) for key in ends),
        ),
    )


def learn_row(shown: str, keys: str, *, among: str = "", baseline: bool = True) -> Claim:
    """A row of the learning run's table: base, base with examples, tuned with its interval, TF-IDF.

    Args:
        shown: What the row begins with.
        keys: The names of facts, `{}` where the system stands.
        among: Fact whose inverse is the number of names.
        baseline: Whether TF-IDF has a figure; a rate of claims has none, and no interval is kept.
    """
    systems = ("before_rank", "few_shot_rank", "after_rank") if "acc" in keys or "decade" in keys else ()
    systems = systems or ("before_generate", "few_shot_generate", "after_generate")
    if not baseline:
        values = [fact("learn", keys.format(system), 100) for system in ("before", "few_shot", "after")]
        return Claim(f"| {shown} | {{}} | {{}} | {{}} | |", tuple(values))
    names = [*map(keys.format, systems), *(f"{keys.format(systems[-1])}_{end}" for end in ("low", "high"))]
    values = [fact("learn", name, 100) for name in (*names, keys.format("tfidf"))]
    number = [lambda: 1 / float(newest("learn").facts[among])] if among else []
    return Claim(f"| {shown} | {{}} | {{}} | {{}} [{{}}, {{}}] | {{}} |", (*number, *values))


def trl_row(shown: str, tasks: str) -> Claim:
    """A row of the table of speeds against others: SmolLM2-135M and the small Llama, for each of them."""
    others = ("trl", "trl_patched", "trainer_deepspeed")
    programs = ("trl_smollm2", "trl")
    return Claim(
        f"| {shown} | {{}}, {{}} | {{}}, {{}} | {{}}, {{}} |",
        tuple(ratio(program, f"{tasks} against {other}") for other in others for program in programs),
    )


def largest_memory_error() -> float:
    return newest("memory").figures["largest error of the step's peak"].median


CLAIMS = (
    Claim("Accuracy on {} held-out songs", (fact("quickstart", "held_out_songs"),)),
    accuracy_row("artist", "artist"),
    accuracy_row("genre", "genre"),
    accuracy_row("context", "context (decade)"),
    Claim(
        "From songs to answers it took {} minutes on two idle CPU cores",
        (fact("quickstart", "job_s", 1 / 60),),
    ),
    Claim(
        "It trains on {} songs with four questions each: {} tokens an example where separate examples take {},",
        (
            fact("quickstart", "train_songs"),
            fact("quickstart", "tokens_per_example"),
            fact("quickstart", "tokens_per_separate_example"),
        ),
    ),
    Claim(
        "{} examples/s and {} tokens/s, {} GiB",
        (
            figure("quickstart", "samples_per_s"),
            figure("quickstart", "tokens_per_s"),
            fact("quickstart", "peak_gib"),
        ),
    ),
    Claim(
        "SmolLM2-135M, one epoch of {} songs with five questions each, in {} minutes on two CPU cores",
        (fact("learn", "train_songs"), fact("learn", "training_s", 1 / 60)),
    ),
    Claim(
        "Then {} new songs by known artists and {} by strangers, names ranked, themes and claims from {} songs of each",
        (
            fact("learn", "genre_acc_after_rank_songs"),
            fact("learn", "unseen_artists: genre_acc_after_rank_songs"),
            fact("learn", "themes_f1_after_generate_songs"),
        ),
    ),
    learn_row("artist, of {}", "artist_acc_{}", among="artist_acc_chance"),
    learn_row("genre, of {}", "genre_acc_{}", among="genre_acc_chance"),
    learn_row("era within a decade", "context_within_decade_{}"),
    learn_row("themes (F1)", "themes_f1_{}"),
    learn_row("strangers: genre", "unseen_artists: genre_acc_{}"),
    learn_row("strangers: era within a decade", "unseen_artists: context_within_decade_{}"),
    learn_row("strangers: themes (F1)", "unseen_artists: themes_f1_{}"),
    learn_row("contradicted of checked claims", "hallucination_rate_{}", baseline=False),
    learn_row(
        "strangers: contradicted of checked claims",
        "unseen_artists: hallucination_rate_{}",
        baseline=False,
    ),
    Claim(
        "a linear probe tells the genre of {} % of the songs of unseen artists, TF-IDF {} %; with one artist a "
        "genre it is {} %, with five at as many songs {} %",
        (
            figure("strangers", "probe_0.6_unseen", 100),
            figure("strangers", "tfidf_unseen", 100),
            figure("strangers", "probe_0.6_unseen_1_artists_a_genre", 100),
            figure("strangers", "probe_0.6_unseen_5_artists_a_genre", 100),
        ),
    ),
    Claim(
        "precision@k is {} % where chance has {} % and the taught answers {} %",
        (
            fact("learn", "similar_precision_at_k_after_generate", 100),
            fact("learn", "similar_precision_at_k_chance", 100),
            fact("learn", "similar_precision_at_k_expected", 100),
        ),
    ),
    Claim("Of {} real hymns,", (fact("hymns", "hymns"),)),
    Claim(
        "themes have F1 {} % [{}, {}] after training, {} % before, {} % by TF-IDF, {} % for the most frequent ones, "
        "on {} held-out hymns; on {} by unseen authors {} % where TF-IDF has {} %",
        (
            *(fact("hymns", f"themes_f1_after_generate{end}", 100) for end in ("", "_low", "_high")),
            fact("hymns", "themes_f1_before_generate", 100),
            fact("hymns", "themes_f1_tfidf", 100),
            fact("hymns", "themes_f1_majority", 100),
            fact("hymns", "themes_f1_after_generate_songs"),
            fact("hymns", "unseen_artists: themes_f1_after_generate_songs"),
            fact("hymns", "unseen_artists: themes_f1_after_generate", 100),
            fact("hymns", "unseen_artists: themes_f1_tfidf", 100),
        ),
    ),
    Claim(
        "The author is the most frequent one, {} % [{}, {}],",
        tuple(fact("hymns", f"artist_acc_after_rank{end}", 100) for end in ("", "_low", "_high")),
    ),
    trl_row("one", "one_task"),
    trl_row("five", "five_tasks"),
    trl_row("eight", "eight_tasks"),
    Claim("Layers keep {} MB a token", (figure("activations", "lean, dropout 0.05"),)),
    Claim("where peft's keep {},", (figure("activations", "peft, dropout 0.05"),)),
    Claim(
        "built in {} minutes on two cores beside other work: {} songs/s, so five million take some {} minutes",
        (
            lambda: 1e6 / newest("stream").figures["songs_per_s_at_1000000"].median / 60,
            figure("stream", "songs_per_s_at_1000000"),
            lambda: 5e6 / newest("stream").figures["songs_per_s_at_1000000"].median / 60,
        ),
    ),
    Claim(
        "All its processes together hold {} MiB for 200,000 songs and {} for 1,000,000",
        (figure("stream", "peak_at_200000"), figure("stream", "peak_at_1000000")),
    ),
    Claim("Lyrics are tokenized {} times as fast", (ratio("tokenizer", "our_fast_path"),)),
    Claim("({} million tokens/s a core", (figure("tokenizer", "our_fast_path_tokens_per_s", 1e-6),)),
    Claim(
        "a million lengths packed in {} s with {} % of the slots filled",
        (figure("pack", "evened_all_s"), fact("pack", "evened_all_fill", 100)),
    ),
    Claim(
        "The whole build of {} songs, from CSV to shards with eight questions each, makes {} times the songs/s",
        (fact("build", "songs"), ratio("build", "two_workers")),
    ),
    Claim("two processes make {} times the songs/s of one there", (figure("build", "two_over_one"),)),
    Claim(
        "its step times were off by {} % (median; {} of {} within 15 %)",
        (
            figure("scaling", "links: error"),
            fact("scaling", "links: points within 15 %"),
            fact("scaling", "links: points"),
        ),
    ),
    Claim(
        "over {} configurations of five models",
        (lambda: newest("memory").figures["error of the step's peak"].n,),
    ),
)

BOUNDS = (("is within {} % of what torch counts", largest_memory_error),)
"""Sentences with a number that a recorded value must not exceed."""

SETTINGS = (
    "SmolLM2-135M,",
    "(80 % for artists, 85 % for genres)",
    "with 95 % intervals",
    "(the plan's 2,000 a genre)",
    "for 200,000 songs and",
    "for 1,000,000 (`bench",
    "with Llama 3's vocabulary",
    "at every ZeRO stage on 1 to 3 ranks",
    "and simulates 1 to 64 hosts",
    "ZeRO 0 to 3,",
    "within 15 %)",
)
"""Words with numbers that nobody measured: settings, levels, sizes."""


def squeeze(text: str) -> str:
    """A text with single spaces."""
    return " ".join(text.split())


def find_paragraphs(text: str) -> list[str]:
    """Paragraphs and tables of README that speak of records, each with single spaces."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    paragraphs = [part for part in re.split(r"\n\s*\n", prose) if part.strip()]
    chosen = {i for i, part in enumerate(paragraphs) if "bench/results/" in part}
    tables = {i for i, part in enumerate(paragraphs) if part.startswith("|")}
    beside = {i for i in tables if {i - 1, i + 1} & chosen}
    leading = {i - 1 for i in beside if paragraphs[i - 1].rstrip().endswith(":")} if beside else set()
    return [squeeze(paragraphs[i]) for i in sorted(chosen | beside | leading)]


def to_pattern(text: str) -> re.Pattern[str]:
    """What finds a claim: its words, with a number in each hole."""
    return re.compile(r"(\d[\d,]*(?:\.\d+)?)".join(re.escape(part) for part in text.split("{}")))


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value, rounded to the digits that are printed, is what is printed."""
    decimals = len(printed.partition(".")[2])
    return bool(abs(value - float(printed.replace(",", ""))) <= 0.5 * 10.0**-decimals * (1 + 1e-9))


def find_wrong_figures(text: str, claims: Sequence[Claim] = CLAIMS) -> list[str]:
    """Claims that README does not make once, or whose numbers are not those of the records."""
    whole, wrong = squeeze(text), []
    for claim in claims:
        found = list(to_pattern(claim.text).finditer(whole))
        if len(found) != 1:
            wrong.append(f"{claim.text!r} stands {len(found)} times in README")
            continue
        for printed, read in zip(found[0].groups(), claim.values, strict=True):
            if not rounds_to(read(), printed):
                wrong.append(f"{claim.text!r}: README says {printed}, the record {read():.6g}")
    for sentence, read in BOUNDS:
        found = list(to_pattern(sentence).finditer(whole))
        if len(found) != 1 or read() > float(found[0].group(1)):
            wrong.append(f"{sentence!r}: the record says {read():.6g}")
    return wrong


def find_unmapped_numbers(text: str) -> list[str]:
    """Numbers in what speaks of records that no claim, bound, setting or exception covers, with their surroundings."""
    phrases = [
        *(claim.text for claim in CLAIMS),
        *(sentence for sentence, _ in BOUNDS),
        *SETTINGS,
    ]
    patterns = [to_pattern(phrase) for phrase in phrases]
    found = []
    for paragraph in find_paragraphs(text):
        covered = [match.span() for pattern in patterns for match in pattern.finditer(paragraph)]
        code = [match.span() for match in re.finditer(r"`[^`]*`", paragraph)]
        for number in NUMBER.finditer(paragraph):
            if not any(start <= number.start() and number.end() <= end for start, end in covered + code):
                found.append(paragraph[max(0, number.start() - 30) : number.end() + 20])
    return found
