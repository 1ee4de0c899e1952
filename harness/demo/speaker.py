"""One base model in memory that answers with its adapter off and on, both answers growing side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from harness.config import ModelSettings
from harness.demo.items import ELLIPSIS, DemoItem, Mark, Reply, Version, shorten
from harness.demo.prompts import Prompt
from harness.evaluation.questions import Question, TaskLabels, open_tokenizer, read_labels
from harness.evaluation.ranking import CandidateScorer, Ids, Scores, encode_candidates, plan_forests
from harness.evaluation.truth import Knowledge, check_statements, read_knowledge
from harness.generation.batch import stream_answer
from harness.generation.sampling import Sampling
from harness.tuned import TunedModel, load_tuned_model
from preprocess.errors import DataError
from preprocess.manifest import Manifest, read_manifest
from preprocess.prompt import PromptFormat
from preprocess.tokenizer import TextTokenizer

MAX_NEW_TOKENS = 200
"""Room for the longest of the taught answers, the full analysis (172 tokens on made-up songs)."""

MAX_SLOTS = 1024
"""Slots of one forward pass beside the prompt when names are ranked."""

TURN = 4
"""Tokens that a version says before the other's turn: switching the adapter costs nearly as much as a token."""

UNFINISHED = "\ufffd"
"""What a decoder makes of the first bytes of a character whose last ones are still to come."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that is growing: all of its text so far."""

    version: Version
    text: str


@dataclass(slots=True)
class _Growing:
    """One version's answer while it is generated."""

    stream: Iterator[tuple[int, float]]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    seconds: float = 0.0
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Asking:
    """How answers are generated.

    Attributes:
        max_new_tokens: Tokens of an answer, at most.
        sampling: None takes the likeliest token each time; else both versions draw by the same seed.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class OpenData:
    """What asking needs of a data set.

    Attributes:
        folder: The data set.
        manifest: As read.
        tokenizer: The one that the ids belong to.
        prompt: The chat format of the ids.
        labels: Closed sets of names by task; none where the data set has none.
        knowledge: What answers are checked against.
        note: What the reader must know, or None.
    """

    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    prompt: PromptFormat
    labels: dict[str, TaskLabels]
    knowledge: Knowledge
    note: str | None = None


class Speaker:
    """Answers questions before and after fine-tuning.

    Args:
        model: The base with its adapter, if it has one.
        data: The data set whose questions it knows.
    """

    def __init__(self, model: TunedModel, data: OpenData) -> None:
        self.model = model
        self.data = data
        self._scorer: CandidateScorer | None = None
        self._candidates: dict[str, list[Ids]] = {}

    def ask(self, prompt: Prompt, asking: Asking) -> Iterator[Said | DemoItem]:
        """Put one question to each version.

        Args:
            prompt: The question.
            asking: How.

        Yields:
            The growing answers, some tokens of each version in turn; at last the question with the whole answers.
        """
        growing = {
            version: _Growing(
                stream_answer(
                    self.model.causal,
                    prompt.ids,
                    self.data.manifest.stop_token_id,
                    asking.max_new_tokens,
                    sampling=asking.sampling,
                )
            )
            for version in self.model.versions
        }
        while waiting := [version for version, one in growing.items() if not one.is_done]:
            for version in waiting:
                yield from self._grow(version, growing[version])
        replies = {
            version: self._reply(version, one, prompt, asking.max_new_tokens)
            for version, one in growing.items()
        }
        yield make_item(prompt, replies["before"], replies.get("after"))

    def _grow(self, version: Version, one: _Growing) -> Iterator[Said]:
        """One turn; the adapter is switched back before anybody hears of it."""
        started_s = time.perf_counter()
        with self.model.as_version(version):
            found = list(islice(one.stream, TURN))
        one.seconds += time.perf_counter() - started_s
        one.is_done = len(found) < TURN
        for token, logprob in found:
            one.ids.append(token)
            one.logprobs.append(logprob)
            text = self.data.tokenizer.decode(one.ids, skip_special_tokens=True)
            yield Said(version, text.lstrip().rstrip(UNFINISHED))

    def _reply(self, version: Version, one: _Growing, prompt: Prompt, max_new_tokens: int) -> Reply:
        text = self.data.tokenizer.decode(one.ids, skip_special_tokens=True).rstrip(UNFINISHED).strip()
        text += f" {ELLIPSIS}" if len(one.ids) == max_new_tokens else ""
        likeliest = self._rank_names(version, prompt)
        return Reply(
            text=text,
            confidence=mean_probability(one.logprobs) if likeliest is None else likeliest[1],
            likeliest=None if likeliest is None else likeliest[0],
            marks=self._check(text, prompt),
            tokens_per_s=len(one.ids) / one.seconds if one.ids and one.seconds > 0 else None,
        )

    def _check(self, text: str, prompt: Prompt) -> tuple[Mark, ...]:
        """What the truth check says of an answer."""
        claims = check_statements(text, prompt.song, self.data.knowledge, introduced=prompt.question)
        return tuple(Mark.of(claim) for claim in claims)

    def _rank_names(self, version: Version, prompt: Prompt) -> tuple[str, float] | None:
        """The likeliest of a task's names with its probability among them; None where it has no closed set."""
        labels = self.data.labels.get(prompt.task or "")
        if prompt.task is None or labels is None:
            return None
        if prompt.task not in self._candidates:
            self._candidates[prompt.task] = encode_candidates(
                self.data.tokenizer, self.data.prompt, labels.stem, labels.train_counts
            )
        if self._scorer is None:
            self._scorer = CandidateScorer(self.model.causal)
        question = Question(prompt.song.id, prompt.task, (), tuple(prompt.ids), ())
        scores: Scores = {}
        with self.model.as_version(version):
            for forest in plan_forests([question], self._candidates, MAX_SLOTS + len(prompt.ids)):
                self._scorer.score(forest, scores)
        return find_likeliest(list(labels.train_counts), scores[question])


def find_likeliest(names: Sequence[str], scores: Sequence[float]) -> tuple[str, float]:
    """The likeliest of some names and its probability among them: the softmax of the scores.

    Args:
        names: The names, at least one.
        scores: Of each the sum of its tokens' log-probabilities, in nats.
    """
    best = max(range(len(names)), key=scores.__getitem__)
    return names[best], 1 / sum(math.exp(score - scores[best]) for score in scores)


def mean_probability(logprobs: Sequence[float]) -> float | None:
    """The mean probability of an answer's tokens (not the answer's probability); None for an empty answer."""
    return sum(map(math.exp, logprobs)) / len(logprobs) if logprobs else None


def unasked_item(prompt: Prompt) -> DemoItem:
    """A question that no model was asked yet."""
    return DemoItem(
        title=prompt.song.title,
        artist=prompt.song.artist,
        lyrics_excerpt=shorten(prompt.song.lyrics),
        question=prompt.question,
        expected=prompt.expected,
        before="",
        after=None,
        song_id=prompt.song.id,
        task=prompt.task,
    )


def make_item(prompt: Prompt, before: Reply, after: Reply | None) -> DemoItem:
    """A question with its answers, generated today."""
    return replace(
        unasked_item(prompt),
        before=before.text,
        after=None if after is None else after.text,
        confidence_before=before.confidence,
        confidence_after=None if after is None else after.confidence,
        likeliest_before=before.likeliest,
        likeliest_after=None if after is None else after.likeliest,
        claims_before=before.marks,
        claims_after=() if after is None else after.marks,
        tokens_per_s_before=before.tokens_per_s,
        tokens_per_s_after=None if after is None else after.tokens_per_s,
        date=datetime.now(UTC).date().isoformat(),
    )


def open_data(data: Path) -> OpenData:
    """Open what asking needs of a data set.

    Raises:
        DataError: The folder is no data set, or damaged.
        ConfigError: Its tokenizer cannot be read.
    """
    manifest = read_manifest(data)
    tokenizer, prompt = open_tokenizer(data, manifest)
    try:
        labels, note = read_labels(data, manifest.tasks), None
    except DataError as error:
        labels, note = {}, f"No names to rank, so the confidence is that of the answer's tokens: {error}."
    return OpenData(data, manifest, tokenizer, prompt, labels, read_knowledge(data), note)


def open_speaker(settings: ModelSettings, data: OpenData, adapter: Path | None) -> Speaker:
    """Load a model that answers.

    Raises:
        ConfigError: There is no such model.
        DataError: The data set's tokenizer has more ids than the model.
        CheckpointError: There is no such adapter, or it does not fit the model.
    """
    model = load_tuned_model(settings, data.manifest, adapter)
    return Speaker(model, data)
