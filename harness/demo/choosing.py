"""What `harness demo` was asked for, and the questions that this comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.demo.examples import read_examples
from harness.demo.items import join_notes
from harness.demo.lyrics import prompt_lyrics, prompt_question, read_lyrics
from harness.demo.prompts import (
    Prompt,
    choose_prompts,
    choose_songs,
    leave_out_explicit,
    prompt_examples,
    read_songs,
    song_of,
)
from harness.demo.speaker import MAX_NEW_TOKENS, Asking, OpenData
from harness.evaluation.questions import open_held_out
from harness.generation.sampling import Sampling
from harness.json_lines import JsonObject
from preprocess.errors import ConfigError
from preprocess.schema import Song

NUM_EXAMPLES = 3
"""Examples that are asked about where no number is given: half a minute on two cores, with a model of 135 M."""

TOP_P = 0.95
"""Share of the probability that sampled tokens are drawn from."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `harness demo` was asked for; see its help."""

    songs: int | None = None
    examples: int | None = None
    lyrics: Path | None = None
    task: str | None = None
    question: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = MAX_NEW_TOKENS
    html: Path | None = None
    web: bool = False
    port: int = 0
    store: Path | None = None
    stored: Path | None = None
    json: bool = False
    output: Path | None = None

    @property
    def asking(self) -> Asking:
        """How answers are generated."""
        sampling = Sampling(self.temperature, TOP_P, self.seed) if self.temperature > 0 else None
        return Asking(self.max_new_tokens, sampling)

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            ConfigError: Some do not.
        """
        sources = [name for name in ("songs", "examples", "lyrics") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ConfigError(f"got --{' and --'.join(sources)}; expected one of them")
        if self.task is not None and self.question is not None:
            raise ConfigError("got --task and --question; expected one of them")
        if self.lyrics is not None and self.task is None and self.question is None:
            raise ConfigError("--lyrics needs --task NAME or --question TEXT")
        for name in ("songs", "examples", "max_new_tokens"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{count} {name.replace('_', ' ')}: expected 1 or more")
        if self.web and (self.html or self.store or self.json):
            raise ConfigError("--web serves a page; leave out --html, --store and --json")
        if self.output is not None and (self.web or self.lyrics is not None or self.question is not None):
            raise ConfigError(
                "--output takes a demo.json of the data set's tasks; leave it out with --lyrics, --question and --web"
            )
        for name, path in (("html", self.html), ("store", self.store)):
            if path is not None and (path.is_dir() or not path.parent.is_dir()):
                raise ConfigError(f"--{name} {path}: expected a file in a folder that is there")
        if self.web and (self.lyrics is not None or self.question is not None):
            raise ConfigError("--web serves a page with a form for both; leave out --lyrics and --question")

    @property
    def needs_model(self) -> bool:
        """Whether stored answers cannot serve."""
        wished = (self.songs, self.lyrics, self.question, self.task, self.store, self.output)
        return any(value is not None for value in wished)


def choose_questions(data: OpenData, options: DemoOptions) -> tuple[list[Prompt], str | None]:
    """What is asked, and what the reader must know."""
    if options.lyrics is not None:
        prompt, note = prompt_lyrics(
            data.manifest,
            data.tokenizer,
            data.prompt,
            read_lyrics(options.lyrics),
            task=options.task,
            question=options.question,
            max_new_tokens=options.max_new_tokens,
        )
        return [prompt], note
    if options.question is not None:
        songs, note = some_songs(data, options)
        room = data.manifest.seq_len - options.max_new_tokens
        prompts, cut = prompt_question(songs, options.question, data.tokenizer, data.prompt, room)
        return prompts, join_notes([note, cut])
    if options.songs is not None:
        fit, note = held_out_songs(data.folder)
        return choose_prompts(open_held_out(data.folder), fit, options.songs, options.task), note
    examples = read_examples()
    number = options.examples or (
        len(examples) if options.web else NUM_EXAMPLES
    )  # a page asks when it is told to
    prompts = prompt_examples(
        examples, data.manifest, data.labels, data.tokenizer, data.prompt, number, options.task
    )
    is_trained = options.task is None or options.task in data.manifest.tasks
    untrained = f"The data set has no task {options.task}: nothing trained the adapter on it."
    return prompts, None if is_trained else untrained


def some_songs(data: OpenData, options: DemoOptions) -> tuple[list[Song], str | None]:
    """The songs that a question of the user's is asked about, and what the reader must know."""
    if options.songs is None:
        return read_examples()[: options.examples or NUM_EXAMPLES], None
    fit, note = held_out_songs(data.folder)
    return [song_of(fit[id_]) for id_ in choose_songs(fit, options.songs)], note


def held_out_songs(data: Path) -> tuple[dict[str, JsonObject], str | None]:
    """The held-out songs of a data set that are not explicit, and how many were left out."""
    songs = read_songs(data)
    fit = leave_out_explicit(songs)
    left_out = len(songs) - len(fit)
    note = (
        f"{left_out:,} of {len(songs):,} held-out songs hold words of the explicit lexicon and were left out."
    )
    if not fit:
        raise ConfigError(f"{data}: {note} Nothing is left to show")
    return fit, note if left_out else None
