"""`python -m harness export`: find the adapter and its base, judge, write, tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, PreTrainedConfig

from harness.config import ModelSettings, load_run_config
from harness.export.content import BaseFacts, read_content
from harness.export.fit import check_fit
from harness.export.folder import check_output, write_folder
from harness.export.merge import RoundingError, merge_adapter
from harness.export.model_files import write_model
from harness.export.servers import Verdict, judge_adapter, judge_merged
from harness.export.tokenizer_files import write_tokenizer
from harness.lora import ADAPTER_WEIGHTS, adapter_state, load_adapter, save_adapter
from harness.model import find_stored_dtype, load_base_model, locate_model, widest_dtype
from harness.vocabulary import new_rows_of
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import read_manifest
from preprocess.tokenizer import locate_source

Form = Literal["adapter", "merged"]
FORMS: tuple[Form, ...] = ("adapter", "merged")
EXPORTED_DTYPES = ("bf16", "fp16", "fp32")
NAMES: dict[torch.dtype, str] = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
DTYPES = {name: dtype for dtype, name in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported.

    Attributes:
        adapter: Folder of the adapter.
        model: Its base, as `model.path` names it.
        stop_id: The token that ends an answer, where the run's data set is there to tell it.
    """

    adapter: Path
    model: str
    stop_id: int | None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        form: "adapter" or "merged".
        dtype: Precision of its weights.
        base_dtype: Precision that the base is stored in.
        adapter_dtype: Precision of the adapter.
        rounded: Whether any weight was rounded; of a merged model the sums nearly always are.
        tied: Whether the head is the embedding; None for an adapter.
        rounding_error_of_update: What rounding the merged sums cost; None for an adapter.
    """

    folder: str
    form: Form
    dtype: str
    base_dtype: str
    adapter_dtype: str
    rounded: bool
    tied: bool | None
    rounding_error_of_update: RoundingError | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def run_export(
    run: Path | None,
    adapter: Path | None,
    model: str | None,
    output: Path | None,
    form: str,
    dtype: str | None,
    *,
    check: bool,
) -> tuple[list[Verdict], Exported | None]:
    """What the command does: the verdicts of --check, and what was written to --output.

    Raises:
        UserError: What went wrong, with its exit code.
    """
    if form not in FORMS:
        raise ConfigError(f"--format {form}: expected {' or '.join(FORMS)}")
    if dtype is not None and dtype not in EXPORTED_DTYPES:
        raise ConfigError(f"--dtype {dtype}: expected {', '.join(EXPORTED_DTYPES)}")
    if output is None and not check:
        raise ConfigError("pass --output FOLDER, or --check to hear which servers would take it")
    subject = find_subject(run, adapter, model)
    verdicts = judge(subject) if check else []
    if output is None:
        return verdicts, None
    return verdicts, export(subject, output, form, dtype)


def find_subject(run: Path | None, adapter: Path | None, model: str | None) -> Subject:
    """Take the adapter and its base from a run folder, or from the options, which win.

    Raises:
        ConfigError: Neither names both, or the run folder holds no run.
    """
    if run is None:
        if adapter is None or model is None:
            raise ConfigError("pass --run RUN, or --adapter ADAPTER and --model MODEL")
        return Subject(adapter, model, None)
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"--run {run}: no config.yaml there, so it is not the folder of a run")
    config = load_run_config(run / "config.yaml")
    try:
        stop_id = read_manifest(config.data.path).stop_token_id
    except DataError:  # the data set may be gone; the base knows its own end
        stop_id = None
    return Subject(adapter or run / "adapter", model or config.model.path, stop_id)


def read_base_config(model: str) -> PreTrainedConfig:
    """The base's configuration, without its weights.

    Raises:
        ConfigError: There is no such model.
    """
    try:
        source = locate_model(model)
        source.pop("quantization_config", None)
        return cast("PreTrainedConfig", AutoConfig.from_pretrained(**source))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"--model {model}: cannot be read ({str(error).splitlines()[0]})") from error


def find_facts(config: PreTrainedConfig) -> BaseFacts:
    """What of a base's configuration decides who takes an adapter for it."""
    architectures = config.architectures or [""]
    tied = bool(getattr(config, "tie_word_embeddings", False))
    return BaseFacts(config.model_type, architectures[0], tied, config.vocab_size)


def judge(subject: Subject) -> list[Verdict]:
    """What the servers say of an adapter and of its merged model.

    Raises:
        CheckpointError: There is no such adapter, or it is one of another base.
        ConfigError: There is no such model.
    """
    content, config = read_content(subject.adapter), read_base_config(subject.model)
    check_fit(subject.adapter, content, subject.model, config)
    base = find_facts(config)
    return [*judge_adapter(content, base), *judge_merged(base)]


def export(subject: Subject, output: Path, form: Form, dtype: str | None) -> Exported:
    """Write an adapter, or the model that it makes of its base.

    Args:
        subject: The adapter and its base.
        output: A folder that is not there yet.
        form: A plain peft adapter, or a whole model.
        dtype: Precision; None keeps the adapter's own, or that in which the base is stored (float32 for a GGUF file,
            which is what its blocks stand for). A merged model's sums are rounded to it.

    Raises:
        CheckpointError: No adapter, a damaged one, or one of another base.
        ConfigError: No base, `output` is there already or cannot be, or the form cannot hold what the adapter brings.
        NoSpaceError: The disk is too small.
    """
    content = read_content(subject.adapter)
    check_output(output)
    if form == "adapter" and content.new_ids and "lm_head" in content.targets:
        raise ConfigError(
            "plain peft holds no adapter with both a LoRA on lm_head and rows of new tokens; use --format merged"
        )
    base_dtype, adapter_dtype = (
        find_stored_dtype(subject.model),
        widest_dtype(subject.adapter / ADAPTER_WEIGHTS),
    )
    # peft holds an adapter in its base's precision, so the base is held in one that loses nothing of either.
    base = load_base_model(ModelSettings(path=subject.model), torch.promote_types(base_dtype, adapter_dtype))
    tuned = load_adapter(base, subject.adapter)
    state = adapter_state(tuned)
    if form == "adapter":
        target = DTYPES[dtype] if dtype else adapter_dtype
        _write_adapter(output, subject, tuned, state, target)
        tied, rounding = None, None
        rounded = _loses(adapter_dtype, target)
    else:
        target = DTYPES[dtype] if dtype else base_dtype
        tied, rounding = _write_merged(output, subject, tuned, target)
        rounded = rounding.total > 0 or _loses(base_dtype, target) or _loses(adapter_dtype, target)
    names = (NAMES[target], NAMES[base_dtype], NAMES[adapter_dtype])
    return Exported(str(output), form, *names, rounded, tied, rounding)


def _loses(source: torch.dtype, target: torch.dtype) -> bool:
    """Whether a cast rounds: bfloat16 to float16 does, both to float32 does not."""
    return torch.promote_types(source, target) != target


def _write_adapter(
    output: Path, subject: Subject, tuned: PeftModel, state: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    tuned.peft_config["default"].base_model_name_or_path = locate_source(subject.model)
    cast_state = {name: tensor.to(dtype) for name, tensor in state.items()}
    with write_folder(output, sum(tensor.nbytes for tensor in cast_state.values())) as folder:
        save_adapter(folder, tuned, cast_state)


def _write_merged(
    output: Path, subject: Subject, tuned: PeftModel, dtype: torch.dtype
) -> tuple[bool, RoundingError]:
    """Write the merged model. Returns whether its head is tied still, and what rounding its sums cost."""
    causal = cast("Any", tuned.get_base_model())
    numbers = sum(parameter.numel() for parameter in causal.parameters())
    head = causal.get_output_embeddings()
    untied = numbers + (head.base_layer.weight.numel() if hasattr(head, "base_layer") else 0)
    special = {name: _first(getattr(causal.config, f"{name}_id", None)) for name in SPECIAL_TOKENS}
    rows = new_rows_of(causal)
    with write_folder(output, untied * dtype.itemsize) as folder:
        merged = merge_adapter(tuned, dtype)
        write_model(folder, causal, merged, subject.stop_id)
        write_tokenizer(folder, subject.model, special, None if rows is None else rows.tokens)
    return merged.is_tied, merged.rounding


def _first(ids: int | list[int] | None) -> int | None:
    return ids[0] if isinstance(ids, list) else ids


def print_verdicts(verdicts: list[Verdict], console: Console) -> None:
    """A table of who takes what."""
    table = Table("server", "given", "takes it", "how, or why not")
    for verdict in verdicts:
        text = verdict.how if verdict.taken else "; ".join(verdict.reasons)
        table.add_row(verdict.server, verdict.what, "yes" if verdict.taken else "no", text)
    console.print(table)


def print_exported(exported: Exported, console: Console) -> None:
    """Where it is, in which precision, and what that cost."""
    console.print(f"{exported.form}: {exported.folder}", highlight=False)
    stored = f"base stored in {exported.base_dtype}, adapter in {exported.adapter_dtype}"
    note = "" if exported.rounded else "; nothing rounded"
    console.print(f"weights in {exported.dtype} ({stored}{note})", highlight=False)
    rounding = exported.rounding_error_of_update
    if rounding is not None and rounding.total > 0:
        console.print(_tell_rounding(rounding, exported.dtype), highlight=False)
    elif exported.rounded:
        console.print(f"rounded to {exported.dtype}", highlight=False)
    if exported.tied is not None:
        console.print(
            "head: " + ("the embedding (tied)" if exported.tied else "a matrix of its own (not tied)")
        )


def _tell_rounding(rounding: RoundingError, dtype: str) -> str:
    """How much of what was trained is lost in the merged weights, and what loses less."""
    remedy = "" if dtype == "fp32" else "; --dtype fp32 loses less"
    return (
        f"merged sums rounded to {dtype}: an error of {rounding.total:.2g} of the update over all matrices, "
        f"{rounding.worst:.2g} in the worst ({rounding.worst_matrix}){remedy}"
    )
