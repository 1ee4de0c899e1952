"""The same questions asked of the model before and after fine-tuning, side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.config import ModelSettings
from harness.demo_prompts import Prompt, choose_prompts, encode_prompt, fit_lyrics, read_songs
from harness.evaluation.questions import open_held_out, open_tokenizer
from harness.generation.plain import generate_answer
from harness.tuned import TunedModel, Version, load_tuned_model
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import ConfigError
from preprocess.manifest import read_manifest
from preprocess.outside_text import visible
from preprocess.terminal import make_progress
from preprocess.tokenizer import TextTokenizer

DEMO_FILE = "demo.json"

EXCERPT_LINES = 6

MAX_NEW_TOKENS = 160
"""Room for the longest of the training answers, the full analysis."""

ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class DemoItem:
    """One question with the answers of both models. What is not known, or was not asked, is None.

    Attributes:
        title: Of the song.
        artist: The true one.
        lyrics_excerpt: Its first lines.
        question: As the model got it.
        expected: The data set's own answer.
        before: The base model's answer.
        after: The answer with the adapter; None without one.
    """

    title: str | None
    artist: str | None
    lyrics_excerpt: str
    question: str
    expected: str | None
    before: str
    after: str | None


@dataclass(frozen=True, slots=True)
class Demo:
    """Some questions and answers.

    Attributes:
        items: The questions, in the order they were asked.
        seconds: What generating took, loading left out.
        num_tokens: Generated tokens, by all models together.
        note: What the reader must know (lyrics that were cut), or None.
    """

    items: list[DemoItem]
    seconds: float
    num_tokens: int
    note: str | None = None

    def to_json(self) -> list[dict[str, Any]]:
        """The items, in the form of `demo.json`."""
        return [asdict(item) for item in self.items]


def demo_songs(
    settings: ModelSettings,
    data: Path,
    adapter: Path | None,
    console: Console,
    *,
    num_songs: int = 5,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Demo:
    """Ask about some held-out songs, a different task each.

    Args:
        settings: The base model.
        data: Folder of the data set.
        adapter: Folder of a peft adapter, or None for the base alone.
        console: For progress.
        num_songs: Songs to ask about; all of them where there are fewer.
        max_new_tokens: Tokens of an answer, at most.

    Raises:
        DataError: The data set is missing, incomplete, or of another tokenizer than the model.
        ConfigError: There is no such model, or a count is below 1.
        CheckpointError: There is no such adapter.
    """
    check_counts(num_songs, max_new_tokens)
    held_out = open_held_out(data)
    prompts = choose_prompts(held_out, read_songs(data), num_songs)
    model = load_tuned_model(settings, held_out.manifest, adapter)
    stop_id = held_out.manifest.stop_token_id
    return ask(model, prompts, held_out.tokenizer, stop_id, max_new_tokens, console)


def demo_lyrics(
    settings: ModelSettings,
    data: Path,
    adapter: Path | None,
    console: Console,
    *,
    lyrics: str,
    question: str,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Demo:
    """Ask the user's own question about the user's own lyrics.

    Args:
        settings: The base model.
        data: Folder of the data set whose prompt format and row length the adapter was trained with.
        adapter: Folder of a peft adapter, or None for the base alone.
        console: For progress.
        lyrics: See `read_lyrics`; cut at a line end where the prompt and its answer would exceed a training row.
        question: What to ask.
        max_new_tokens: Tokens of an answer, at most.

    Raises:
        ConfigError: The question is empty, nothing of the lyrics fits, a count is below 1, or there is no such
            model.
        DataError: The data set is missing, or of another tokenizer than the model.
        CheckpointError: There is no such adapter.
    """
    check_counts(1, max_new_tokens)
    if not question.strip():
        raise ConfigError("the question is empty; ask something about the lyrics")
    manifest = read_manifest(data)
    tokenizer, prompt = open_tokenizer(data, manifest)
    room = manifest.seq_len - max_new_tokens
    kept = fit_lyrics(lyrics, question.strip(), tokenizer, prompt, room)
    model = load_tuned_model(settings, manifest, adapter)
    ids = encode_prompt(kept, question.strip(), tokenizer, prompt)
    asked = Prompt(ids, None, None, kept, question.strip(), None)
    demo = ask(model, [asked], tokenizer, manifest.stop_token_id, max_new_tokens, console)
    if kept == lyrics:
        return demo
    note = (
        f"The lyrics were cut after line {count_lines(kept):,} of {count_lines(lyrics):,}: with the question and "
        f"{max_new_tokens:,} tokens of answer, no more fit the {manifest.seq_len:,} tokens of a training row."
    )
    return replace(demo, note=note)


def check_counts(num_songs: int, max_new_tokens: int) -> None:
    """Refuse to ask about nothing or for nothing.

    Raises:
        ConfigError: A count is below 1.
    """
    for name, count in (("songs", num_songs), ("new tokens", max_new_tokens)):
        if count < 1:
            raise ConfigError(f"{count} {name}: expected 1 or more")


def ask(
    model: TunedModel,
    prompts: Sequence[Prompt],
    tokenizer: TextTokenizer,
    stop_id: int,
    max_new_tokens: int,
    console: Console,
) -> Demo:
    """Put every prompt to the model before and after fine-tuning."""
    items, num_tokens, started_s = [], 0, time.perf_counter()
    with make_progress(console) as progress:
        for prompt in progress.track(prompts, description="asking"):
            answers: dict[Version, str] = {}
            for version in model.versions:
                with model.as_version(version) as causal:
                    ids = generate_answer(causal, prompt.ids, stop_id, max_new_tokens)
                num_tokens += len(ids)
                text = tokenizer.decode(ids, skip_special_tokens=True).strip()
                answers[version] = text + (f" {ELLIPSIS}" if len(ids) == max_new_tokens else "")
            items.append(
                DemoItem(
                    title=prompt.title,
                    artist=prompt.artist,
                    lyrics_excerpt=shorten(prompt.lyrics),
                    question=prompt.question,
                    expected=prompt.expected,
                    before=answers["before"],
                    after=answers.get("after"),
                )
            )
    return Demo(items, time.perf_counter() - started_s, num_tokens)


def shorten(lyrics: str) -> str:
    """The first few lines, with a mark where lines were left out."""
    lines = lyrics.split("\n")
    first = "\n".join(lines[:EXCERPT_LINES]).rstrip("\n")
    return f"{first}\n{ELLIPSIS}" if len(lines) > EXCERPT_LINES else first


def count_lines(lyrics: str) -> int:
    """Lines, empty ones included."""
    return lyrics.count("\n") + 1


def write_demo(folder: Path, demo: Demo) -> None:
    """Write `demo.json` into a folder, made if it is missing.

    Raises:
        DataError: The folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    make_folder(folder)
    write_text_durably(folder / DEMO_FILE, json.dumps(demo.to_json(), indent=2, ensure_ascii=False) + "\n")


def print_demo(demo: Demo, console: Console) -> None:
    """Each question with its answers side by side. Lyrics and answers are never read as markup."""
    for item in demo.items:
        print_item(item, console)
    speed = f", {demo.num_tokens / demo.seconds:,.1f} tokens/s" if demo.seconds > 0 else ""
    lines = [
        *([demo.note] if demo.note else []),
        f"{demo.num_tokens:,} tokens in {demo.seconds:,.1f} s{speed}",
    ]
    for line in lines:
        console.print(plain(line))


def print_item(item: DemoItem, console: Console) -> None:
    """One question."""
    facts = " by ".join(fact for fact in (item.title, item.artist) if fact)
    console.rule(plain(facts or "lyrics"))
    console.print(plain(item.lyrics_excerpt, style="dim"))
    console.print(plain(f"\n{item.question}", style="bold"))
    table = Table(expand=True)
    answers = {"before": item.before, "after": item.after}
    shown = {name: answer for name, answer in answers.items() if answer is not None}
    for name in shown:
        table.add_column(name, ratio=1)
    table.add_row(*(plain(answer) for answer in shown.values()))
    console.print(table)
    if item.expected is not None:
        console.print(plain(f"expected: {item.expected}\n", style="green"))


def plain(text: str, style: str = "") -> Text:
    """Somebody's text for the terminal: no markup, control characters as pictures."""
    return Text(visible(text), style=style)
