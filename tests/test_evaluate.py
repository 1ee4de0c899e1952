"""Ranking candidates in a forest against running each alone; accuracy and its errors, end to end on a toy model."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import harness.evaluation.ranking
from harness.config import LoraSettings, ModelSettings
from harness.data import MicroBatch, collate
from harness.evaluation.accuracy import (
    Choice,
    SongResult,
    choose,
    measure_accuracy,
    sign_test,
    summarize_task,
    wilson_interval,
)
from harness.evaluation.asking import Asking, rank_names
from harness.evaluation.judging import check_answers
from harness.evaluation.questions import Question, TaskLabels, open_held_out, read_labels, read_questions
from harness.evaluation.ranking import (
    CandidateForest,
    CandidateScorer,
    Ids,
    PreciseHead,
    Scores,
    common_prefix,
    encode_candidates,
    plan_forests,
    previous_slots,
)
from harness.evaluation.record import EVALUATION_FILE, SAMPLES_FILE, Record, print_summary, write_record
from harness.evaluation.run import evaluate_model
from harness.generation.batch import Generated
from harness.json_lines import read_json_lines
from harness.lora import add_lora, trainable_parameters
from harness.report.records import read_run
from harness.tuned import TunedModel
from preprocess.errors import CheckpointError, DataError
from preprocess.forest import PackedRow
from preprocess.prompt import encode_pieces, find_format
from preprocess.tokenizer import TextTokenizer
from tests.evaluations import make_adapter, make_evaluated, make_settings
from tests.toys import (
    ARTISTS,
    GENRES,
    TASKS,
    encode_songs,
    make_dataset,
    make_model_dir,
    make_songs,
    make_tokenizer,
)

VOCAB_SIZE = make_tokenizer().vocab_size
STEMS = {"artist": "The artist is ", "genre": "The genre is "}
NAMES = {"artist": [*ARTISTS, "Ada Vane", "Ada"], "genre": list(GENRES)}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), VOCAB_SIZE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, adapter and data set."""
    return make_evaluated(tmp_path_factory.mktemp("made"))


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    rows = encode_songs(make_songs(4), make_tokenizer(), seq_len=700)
    found = read_questions(rows, TASKS)
    return sorted((q for q in found if q.task in STEMS), key=lambda question: question.song_id)


@pytest.fixture(scope="module")
def candidates() -> dict[str, list[Ids]]:
    tokenizer = make_tokenizer()
    return {
        task: encode_candidates(tokenizer, find_format(tokenizer), stem, NAMES[task])
        for task, stem in STEMS.items()
    }


@pytest.fixture(scope="module")
def exact_model(model_dir: Path) -> nn.Module:
    """A float64 model with a random adapter in it."""
    causal = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64, attn_implementation="sdpa")
    for norm in [module for module in causal.modules() if isinstance(module, LlamaRMSNorm)]:
        norm.forward = partial(normalize_in_float64, norm)
    causal.requires_grad_(requires_grad=False)
    adapted = add_lora(causal, LoraSettings(r=4, alpha=8), seed=1)
    randomize(adapted, std=0.3)
    return cast("nn.Module", adapted.get_base_model())


def normalize_in_float64(norm: LlamaRMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm without the detour through float32 that transformers' own takes."""
    scale: torch.Tensor = norm.weight * torch.rsqrt(
        hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon
    )
    return scale * hidden


def randomize(model: nn.Module, std: float) -> None:
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(model):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=std)


def rank(
    model: nn.Module, questions: list[Question], candidates: dict[str, list[Ids]], max_slots: int = 700
) -> Scores:
    scorer, scores = CandidateScorer(model, chunk=7), cast("Scores", {})
    for forest in plan_forests(questions, candidates, max_slots):
        scorer.score(forest, scores)
    return scores


def score_alone(model: nn.Module, question: Question, candidate: Ids) -> float:
    """A candidate's log-probability by transformers' own forward pass of the whole text."""
    ids = torch.tensor([[*question.prompt, *candidate]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0]
    log_probs = logits.log_softmax(-1)[len(question.prompt) - 1 : -1]
    return float(log_probs.gather(1, torch.tensor(candidate)[:, None]).sum())


def largest_difference(
    model: nn.Module, scores: Scores, questions: list[Question], candidates: dict[str, list[Ids]]
) -> float:
    return max(
        abs(score - score_alone(model, question, candidate))
        for question in questions
        for candidate, score in zip(candidates[question.task], scores[question], strict=True)
    )


# The forest against each candidate alone


@pytest.mark.parametrize("max_slots", [2000, 700, 200])
def test_a_forest_gives_each_candidate_the_score_it_has_alone(
    exact_model: nn.Module, questions: list[Question], candidates: dict[str, list[Ids]], max_slots: int
) -> None:
    scores = rank(exact_model, questions, candidates, max_slots)
    assert list(scores) == questions
    assert largest_difference(exact_model, scores, questions, candidates) < 1e-9
    for question in questions:
        alone = [score_alone(exact_model, question, candidate) for candidate in candidates[question.task]]
        assert np.argmax(scores[question]) == np.argmax(alone)
        assert np.ptp(alone) > 0.1  # the candidates do differ


def test_a_mask_that_lets_candidates_see_each_other_gives_other_scores(
    exact_model: nn.Module,
    questions: list[Question],
    candidates: dict[str, list[Ids]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leak(rows: list[PackedRow]) -> MicroBatch:
        batch = collate(rows)
        last = torch.full_like(batch.exit, 1 + batch.exit.max().item())
        return replace(batch, entry=torch.zeros_like(batch.entry), exit=last)

    monkeypatch.setattr(harness.evaluation.ranking, "collate", leak)
    scores = rank(exact_model, questions, candidates)
    assert largest_difference(exact_model, scores, questions, candidates) > 1e-3


def test_a_first_token_predicted_from_the_slot_before_it_gives_other_scores(
    exact_model: nn.Module,
    questions: list[Question],
    candidates: dict[str, list[Ids]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        harness.evaluation.ranking, "previous_slots", lambda row: np.arange(len(row.input_ids)) - 1
    )
    scores = rank(exact_model, questions, candidates)
    assert largest_difference(exact_model, scores, questions, candidates) > 1e-3


def test_questions_that_are_stored_whole_get_the_same_scores(
    exact_model: nn.Module, questions: list[Question], candidates: dict[str, list[Ids]]
) -> None:
    rows = encode_songs(make_songs(4), make_tokenizer(), seq_len=700, share_prefix=False)
    whole = [q for q in read_questions(rows, TASKS) if q.task in STEMS]
    assert not any(question.prefix for question in whole)
    shared = rank(exact_model, questions, candidates)
    by_song = {(question.song_id, question.task): scores for question, scores in shared.items()}
    for question, scores in rank(exact_model, whole, candidates).items():
        np.testing.assert_allclose(scores, by_song[question.song_id, question.task], atol=1e-9)


def test_rows_keep_a_song_together_and_hold_its_prefix_once(
    questions: list[Question], candidates: dict[str, list[Ids]]
) -> None:
    forests = list(plan_forests(questions, candidates, max_slots=700))
    songs = [{ballot.question.song_id for ballot, _ in forest.leaves} for forest in forests]
    assert all(forest.num_slots == len(forest.to_row().input_ids) <= 700 for forest in forests)
    assert sum(len(found) for found in songs) == len(set.union(*songs)) == 4
    assert max(len(found) for found in songs) > 1
    assert all(len(forest.prefixes) == len(found) for forest, found in zip(forests, songs, strict=True))


def test_more_candidates_than_a_row_holds_are_spread_over_rows(
    questions: list[Question], candidates: dict[str, list[Ids]]
) -> None:
    longest = max(len(question.prompt) for question in questions)
    forests = list(plan_forests(questions[:1], candidates, max_slots=longest + 30))
    ranked = [
        candidate for forest in forests for ballot, _ in forest.leaves for candidate in ballot.candidates
    ]
    assert len(forests) > 1
    assert ranked == candidates[questions[0].task]


@pytest.mark.parametrize("num_times", [1, 40])
def test_long_lyrics_take_no_more_passes_than_short_ones(
    questions: list[Question],
    candidates: dict[str, list[Ids]],
    exact_model: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    num_times: int,
) -> None:
    forests: list[CandidateForest] = []
    monkeypatch.setattr(CandidateScorer, "score", lambda _self, forest, _scores: forests.append(forest))
    song = [q for q in questions if q.song_id == questions[0].song_id]
    asked = tuple(replace(question, prefix=question.prefix * num_times) for question in song)
    needed = sum(len(q.ids) + sum(map(len, candidates[q.task])) for q in song)
    rank_names(TunedModel(exact_model, None), [Asking("before", "before", asked)], candidates, needed, print)
    assert len(forests) == 1
    assert len(forests[0].leaves) == len(song) == 2


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([(1, 2, 3), (1, 2, 4)], (1, 2)),
        ([(1, 2), (1, 2, 4)], (1,)),  # the shorter one keeps a token of its own
        ([(1, 2, 3)], (1, 2)),
        ([(5,), (6,)], ()),
        ([(1, 7, 3), (2, 7, 3)], ()),
    ],
)
def test_the_common_prefix_leaves_every_candidate_a_token(ids: list[Ids], expected: Ids) -> None:
    assert common_prefix(ids) == expected


def test_a_childs_first_slot_follows_its_parents_last() -> None:
    row = PackedRow(
        input_ids=np.arange(7, dtype=np.int32),
        label_mask=np.zeros(7, dtype=np.bool_),
        seq_lens=np.array([3, 2, 1, 1], dtype=np.int32),
        parents=np.array([-1, 0, 0, -1], dtype=np.int32),
        tasks=np.full(4, -1, dtype=np.int32),
        song_ids=("",) * 4,
    )
    assert previous_slots(row).tolist() == [-1, 0, 1, 2, 3, 2, -1]


@pytest.mark.parametrize("name", [*ARTISTS, "St. Vincent Jr.", "R&B", "雨の夜", "1990s", " odd "])
def test_a_candidate_has_the_ids_that_the_answer_begins_with(
    name: str, chatml_tokenizer: TextTokenizer
) -> None:
    prompt = find_format(chatml_tokenizer)
    (candidate,) = encode_candidates(chatml_tokenizer, prompt, "The artist is ", [name])
    answer = encode_pieces(chatml_tokenizer, prompt.answer(f'The artist is {name}. It says "rain".'))
    assert tuple(answer[: len(candidate)]) == candidate
    assert chatml_tokenizer.decode(candidate) == f"The artist is {name}."


def test_the_head_is_computed_in_float32_from_a_bf16_model_with_its_adapter() -> None:
    torch.manual_seed(0)
    causal = nn.ModuleDict({"lm_head": nn.Linear(64, 500, bias=False, dtype=torch.bfloat16)})
    adapted = add_lora_to_head(causal)
    head, hidden = adapted["lm_head"], torch.randn(40, 64, dtype=torch.bfloat16)
    precise = PreciseHead(head)(hidden)
    exact = PreciseHead(head.double())(hidden)
    assert (precise.dtype, exact.dtype) == (torch.float32, torch.float64)
    assert (precise - exact).abs().max() < 1e-4
    assert (head.bfloat16()(hidden).double() - exact).abs().max() > 1e-3


def test_the_precise_head_follows_the_adapters_switch() -> None:
    torch.manual_seed(0)
    base = nn.Linear(64, 50, bias=False)
    adapted = add_lora_to_head(nn.ModuleDict({"lm_head": base}))
    head, hidden = PreciseHead(adapted["lm_head"]), torch.randn(4, 64)
    assert not torch.allclose(head(hidden), base(hidden), atol=1e-2)
    cast("Any", adapted["lm_head"]).enable_adapters(False)
    assert torch.equal(head(hidden), base(hidden))


def add_lora_to_head(causal: nn.ModuleDict) -> nn.ModuleDict:
    from peft import LoraConfig, inject_adapter_in_model

    adapted = inject_adapter_in_model(LoraConfig(r=4, target_modules=["lm_head"]), causal)
    randomize(adapted, std=0.3)
    return cast("nn.ModuleDict", adapted)


# Figures


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(10, 20, 0.2993, 0.7007), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_the_wilson_interval_has_its_published_values(
    correct: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "both", "expected"),
    [(0, 0, 5, 1.0), (5, 0, 0, 2 / 32), (1, 1, 0, 1.0), (9, 1, 3, 2 * 11 / 1024), (1, 9, 0, 2 * 11 / 1024)],
)
def test_the_sign_test_counts_only_songs_that_changed(
    gained: int, lost: int, both: int, expected: float
) -> None:
    before = [False] * gained + [True] * lost + [True] * both
    after = [True] * gained + [False] * lost + [True] * both
    assert sign_test(before, after) == pytest.approx(expected)


def test_the_margin_is_the_true_names_lead_over_the_best_other() -> None:
    names, scores = ["a", "b", "c"], [-3.0, -1.0, -1.5]
    assert choose(names, scores, "b") == Choice("b", 0.5)
    assert choose(names, scores, "a") == Choice("b", -2.0)
    assert choose(names, scores, "never seen") == Choice("b", None)
    assert choose(["a"], [-1.0], "a") == Choice("a", None)


def test_songs_with_an_unseen_name_are_counted_apart() -> None:
    def result(number: int, truth: str, before: str, after: str) -> SongResult:
        return SongResult(
            "genre", f"{number}", truth, truth in labels.train_counts, Choice(before, 0.0), Choice(after, 0.0)
        )

    labels = TaskLabels("", {"Pop": 2, "Folk": 5, "Rock": 5}, {})
    songs = [
        result(0, "Folk", "Pop", "Folk"),
        result(1, "Rock", "Rock", "Rock"),
        result(2, "Rock", "Pop", "Pop"),
        result(3, "Polka", "Pop", "Folk"),
    ]
    found = summarize_task(songs, labels, not_asked=2)
    assert (found.unseen, found.not_asked, found.num_candidates) == (1, 2, 3)
    assert found.before == measure_accuracy([False, True, False])
    assert found.after == measure_accuracy([True, True, False])
    assert (found.chance, found.majority, found.p_value) == (1 / 3, 1 / 3, 1.0)
    assert found.confusion["after"] == {
        "Folk": {"Folk": 1},
        "Polka": {"Folk": 1},
        "Rock": {"Pop": 1, "Rock": 1},
    }
    only_unseen = summarize_task(songs[3:], labels, 0)
    assert (only_unseen.before, only_unseen.majority, only_unseen.unseen) == (None, None, 1)


# End to end


def run(
    made: Path, console: Console, adapter: Path | None = None, *, model: Path | None = None, **changes: Any
) -> Record:
    """Rank with the toy model (or ask as `changes` say), before and, with an adapter, after."""
    settings = make_settings(
        made, **{"adapter": adapter, "methods": ("rank",), "baselines": False, **changes}
    )
    if model is not None:
        settings = settings.model_copy(update={"model": ModelSettings(path=str(model), precision="fp32")})
    (record,) = evaluate_model(settings, console)
    return record


def test_an_adapter_gives_figures_before_and_after_it_that_the_report_reads(
    made: Path, console: Console, tmp_path: Path
) -> None:
    record = run(made, console, made / "adapter")
    write_record(tmp_path / "run", record)
    content = json.loads((tmp_path / "run" / EVALUATION_FILE).read_text("utf-8"))
    assert list(content["tasks"]) == ["artist", "genre", "context"]
    num_songs = len(record.material.song_ids)
    assert content["num_songs"] == num_songs > 5
    read = {task.task: task for task in read_run(tmp_path / "run").tasks}
    for task, found in content["tasks"].items():
        right = [
            r.values["acc"] == 1
            for r in record.results
            if (r.task, r.system) == (task, "before") and r.is_seen
        ]
        assert found["before"] == asdict(cast("Any", measure_accuracy(right)))
        assert read[task].before == measure_accuracy(right)
        assert read[task].after is not None
        assert (
            found["before"]["total"]
            == len(record.material.of_songs(record.material.song_ids)) / 5 - found["unseen"]
        )
    samples = read_json_lines(tmp_path / "run" / SAMPLES_FILE)
    assert len(samples) == 2 * 3 * num_songs
    answers = {
        system: [r.answer for r in record.results if r.system == system] for system in ("before", "after")
    }
    assert answers["before"] != answers["after"]


def test_before_is_the_base_model_alone(made: Path, console: Console) -> None:
    both, alone = run(made, console, made / "adapter"), run(made, console)
    before = [(r.task, r.song_id, r.scores) for r in both.results if r.system == "before"]
    assert before == [(r.task, r.song_id, r.scores) for r in alone.results]
    assert all(task["after"] is None and task["p_value"] is None for task in alone.summary["tasks"].values())
    assert alone.summary["adapter"] is None


def test_fewer_songs_are_the_same_ones_every_time(made: Path, console: Console) -> None:
    some, again = run(made, console, songs=2), run(made, console, songs=2)
    assert some.summary["num_songs"] == 2
    assert some.results == again.results
    assert some.material.song_ids == run(made, console).material.song_ids[:2]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        run(made, console, songs=0)


def test_a_name_in_brackets_reaches_the_terminal_as_it_is(made: Path, console: Console) -> None:
    summary = run(made, console).summary
    task = {**summary["tasks"]["genre"], "unseen": 3}
    shown = io.StringIO()
    print_summary({**summary, "tasks": {"[red]": task}}, Console(width=140, file=shown))
    text = shown.getvalue()
    assert "[red]" in text
    assert "3 more songs with a name that training never saw" in text


# Errors


@pytest.mark.parametrize("method", ["rank", "generate"])
def test_an_adapter_that_was_not_trained_is_refused(
    made: Path, console: Console, tmp_path: Path, method: str
) -> None:
    untrained = make_adapter(made / "model", tmp_path / "untrained", std=0.0)
    with pytest.raises(CheckpointError, match="changes nothing"):
        run(made, console, untrained, methods=(method,), songs=2)


def test_written_answers_of_a_damaged_adapter_are_refused() -> None:
    def answer(logprob: float) -> dict[tuple[str, str], Generated]:
        return {("song", "artist"): Generated((5,), is_finished=True, logprobs=(logprob,))}

    check_answers({"before": answer(-1.0), "after": answer(-1.5), "few_shot": answer(-1.0)})
    with pytest.raises(CheckpointError, match="after fine-tuning gives scores that are not finite"):
        check_answers({"before": answer(-1.0), "after": answer(float("nan"))})
    with pytest.raises(CheckpointError, match="before fine-tuning gives scores that are not finite"):
        check_answers({"before": answer(float("-inf")), "after": answer(-1.0)})
    with pytest.raises(CheckpointError, match="changes nothing"):
        check_answers({"before": answer(-1.0), "after": answer(-1.0)})


def rewrite_adapter(
    adapter_dir: Path, folder: Path, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]
) -> Path:
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    save_file(
        dict(change(key, value) for key, value in weights.items()), folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_bytes((adapter_dir / "adapter_config.json").read_bytes())
    return folder


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_whose_keys_fit_no_layer_is_refused(made: Path, console: Console, tmp_path: Path) -> None:
    def misname(key: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
        return key.replace("model.layers", "model.model.layers"), value

    wrong = rewrite_adapter(made / "adapter", tmp_path / "wrong", misname)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        run(made, console, wrong)


def test_an_adapter_with_nan_is_refused(made: Path, console: Console, tmp_path: Path) -> None:
    damaged = rewrite_adapter(made / "adapter", tmp_path / "nan", lambda key, value: (key, value * torch.nan))
    with pytest.raises(CheckpointError, match="after fine-tuning gives scores that are not finite"):
        run(made, console, damaged)


def test_a_missing_adapter_is_a_bad_checkpoint(made: Path, console: Console, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        run(made, console, tmp_path)


def test_a_folder_without_eval_songs_says_how_to_get_them(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    with pytest.raises(DataError, match="eval_fraction"):
        open_held_out(tmp_path)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="preprocess build"):
        open_held_out(tmp_path)


def test_another_tokenizer_beside_the_shards_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    other = make_tokenizer(vocab_size=300)
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(DataError, match="not the tokenizer"):
        open_held_out(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "missing"),
        ("{", "damaged"),
        ('{"artist": {"Ada Vale": 3}}', "damaged"),
        ("{}", "no task with known names"),
        (
            '{"mood": {"stem": "", "train_counts": {"sad": 1}, "truth": {"a": "sad"}}}',
            "no task with known names",
        ),
    ],
)
def test_labels_that_cannot_be_ranked_are_bad_data(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "labels.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        read_labels(tmp_path, TASKS)


def test_labels_of_other_songs_are_bad_data(made: Path, console: Console, tmp_path: Path) -> None:
    data = shutil.copytree(made / "data", tmp_path / "data")
    labels: dict[str, Any] = json.loads((data / "labels.json").read_text("utf-8"))
    labels["genre"]["truth"] = {"another-song": "Folk"}
    (data / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    with pytest.raises(DataError, match="does not say what is true"):
        run(made, console, data=data)
