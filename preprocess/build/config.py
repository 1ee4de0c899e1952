"""Everything that decides what a data set holds."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from preprocess.choose.sample import SampleConfig
from preprocess.clean.song import CleanSettings
from preprocess.prompt import DEFAULT_SYSTEM
from preprocess.settings import Settings
from preprocess.tasks.instruct import DEFAULT_TASKS


class ReadSettings(Settings):
    """What the columns of the input mean."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Fact → column, as in {lyrics: text, artist: singer}, where the columns' names do not tell."""

    genres: str | None = None
    """YAML file with further spellings of genres; see preprocess/read/genres.yaml."""

    metadata: tuple[str, ...] = ()
    """Files with facts to fill in: joined by artist and title, or by the lyrics."""

    max_bad_fraction: float | None = Field(default=None, ge=0, le=1)
    """Refuse the input when a larger part of its rows is no song. None: bad rows are only counted."""

    max_rejected_kept: int = Field(default=10_000, ge=0)
    """Rows that are kept in rejected.jsonl with their reason."""


class StatisticsSettings(Settings):
    """What the examples know of the whole training corpus."""

    similar_pool: int = Field(default=20_000, ge=0)
    """Training songs among which similar ones are looked for. 0 makes no such examples."""


class EncodeSettings(Settings):
    """How songs and examples become rows."""

    seq_len: int = Field(default=2048, ge=16, le=1_048_576)
    """Slots in a row."""

    max_lyrics_tokens: int | None = Field(default=None, ge=1)
    """Cut lyrics at a line end to at most so many tokens. None: only where the row's length demands it."""

    share_prefix: bool = True
    """Store the lyrics once for all questions about them. False repeats them for each question."""

    system: str = DEFAULT_SYSTEM
    """The system message of every chat."""

    music_tokens: bool = False
    """Add [ARTIST], [GENRE], [THEME], [ERA], [VERSE], [CHORUS], [BRIDGE] to the vocabulary, and use the last three
    in lyrics. The model's embeddings must grow and be trained; most servers refuse such an adapter."""


class BuildConfig(Settings):
    """Everything that decides what a data set holds."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sample, the phrasings, and the packing."""

    read: ReadSettings = ReadSettings()
    """What the input's columns mean."""

    clean: CleanSettings = CleanSettings()
    """What is taken out of lyrics, and which are dropped."""

    sample: SampleConfig = SampleConfig()
    """Which songs are taken."""

    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Tasks to make examples for."""

    task_files: tuple[str, ...] = ()
    """Python files, each with a TASK of yours; see preprocess/tasks/task.py."""

    statistics: StatisticsSettings = StatisticsSettings()
    """What the examples know of the corpus."""

    encode: EncodeSettings = EncodeSettings()
    """How they are encoded."""

    rows_per_shard: int = Field(default=8192, ge=1)
    """Rows in one shard file."""

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError("tasks must name at least one task, each once")
        return tasks

    @model_validator(mode="after")
    def _check_music_tokens(self) -> BuildConfig:
        if self.encode.music_tokens and self.clean.headings != "tags":
            raise ValueError(
                f"encode.music_tokens needs clean.headings: tags, got {self.clean.headings}: the tokens stand for the "
                "headings [VERSE], [CHORUS] and [BRIDGE]"
            )
        return self

    @property
    def scan_settings(self) -> dict[str, Any]:
        """The settings that decide what the first stage leaves."""
        dumped = self.model_dump(mode="json")
        # The files' content is in the key by itself; their names would only part what is the same.
        apart = {"max_bad_fraction", "metadata", "genres"}
        read = {name: value for name, value in dumped["read"].items() if name not in apart}
        return {"read": read, "clean": dumped["clean"]}
