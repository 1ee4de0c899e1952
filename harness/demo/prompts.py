"""What the demo asks: held-out songs or shipped examples, a task each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.evaluation.questions import HeldOut, Question, TaskLabels
from harness.json_lines import JsonObject, read_json_lines
from preprocess.clean.explicit import is_explicit
from preprocess.clean.sung import split_sung
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import Manifest
from preprocess.prompt import PromptFormat, encode_pieces
from preprocess.schema import Song
from preprocess.tasks.instruct import make_examples
from preprocess.tasks.load import OWN_TASKS, find_task
from preprocess.tasks.task import Facts, Task
from preprocess.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked.

    Attributes:
        ids: The whole prompt.
        song: The song with what is known of it, and the lyrics that stand in the prompt.
        question: As the model gets it.
        expected: The right answer, or None.
        task: The task that the question belongs to; None for a question of the user's.
    """

    ids: list[int]
    song: Song
    question: str
    expected: str | None = None
    task: str | None = None


def read_songs(data: Path) -> dict[str, JsonObject]:
    """The held-out songs of a data set with their facts, by id, in the order of the file.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    path = data / "eval_songs.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: missing, so there are no songs to show. Build the data set again")
    songs = {str(song.get("id")): song for song in read_json_lines(path)}
    if any(not isinstance(song.get("lyrics"), str) for song in songs.values()):
        raise DataError(f"{path}: damaged (a song without lyrics); build the data set again")
    return songs


def choose_prompts(
    held_out: HeldOut, songs: dict[str, JsonObject], num_songs: int, task: str | None = None
) -> list[Prompt]:
    """One question for each of some songs, the tasks in turn; the same choice every time.

    Args:
        held_out: The data set.
        songs: Its held-out songs; see `read_songs`. Leave out those that are not to be shown.
        num_songs: How many; all of them where there are fewer.
        task: Ask this alone.

    Raises:
        DataError: None of the songs is asked anything about its lyrics.
        ConfigError: The data set has no such task, or it asks for lyrics.
    """
    tasks = [check_task(task, held_out.manifest.tasks)] if task else held_out.manifest.tasks
    tasks = [name for name in tasks if name not in OWN_TASKS or OWN_TASKS[name].with_lyrics]
    by_song: dict[str, dict[str, Question]] = {}
    for question in held_out.questions:
        if question.task in tasks:
            by_song.setdefault(question.song_id, {})[question.task] = question
    chosen = choose_songs({id_: song for id_, song in songs.items() if id_ in by_song}, num_songs)
    if not chosen:
        raise DataError(
            f"{held_out.folder}: eval_songs.jsonl and the eval split have no song in common"
            + (f" that is asked the task {task}" if task else "")
            + "; build it again"
        )
    prompts = []
    for turn, id_ in enumerate(chosen):
        question = next(by_song[id_][name] for name in in_turn(tasks, turn) if name in by_song[id_])
        prompts.append(make_prompt(question, songs[id_], held_out))
    return prompts


def check_task(task: str, tasks: Collection[str]) -> str:
    """The name of a task that a data set has, and that asks about lyrics.

    Raises:
        ConfigError: It has none of that name, or it asks for lyrics.
    """
    if task not in tasks:
        raise ConfigError(f"task {task!r} is not among those of the data set: {', '.join(tasks)}")
    return find_lyrics_task(task).name if task in OWN_TASKS else task


def find_lyrics_task(name: str) -> Task:
    """The project's task of a name that asks about lyrics.

    Raises:
        ConfigError: There is no such task, or it is not about given lyrics.
    """
    found = find_task(name)
    if not found.with_lyrics:
        raise ConfigError(f"task {name!r} asks for lyrics and is not about some; see `generate`")
    return found


def list_lyrics_tasks(tasks: Iterable[str]) -> list[str]:
    """Those of some tasks that are the project's and ask about lyrics, so that any lyrics can be asked them."""
    return [name for name in tasks if name in OWN_TASKS and OWN_TASKS[name].with_lyrics]


def in_turn(tasks: Sequence[str], turn: int) -> list[str]:
    """The tasks, beginning with another one at each turn."""
    first = turn % len(tasks)
    return [*tasks[first:], *tasks[:first]]


def prompt_examples(
    songs: Sequence[Song],
    manifest: Manifest,
    labels: Mapping[str, TaskLabels],
    tokenizer: TextTokenizer,
    prompt: PromptFormat,
    num_songs: int,
    task: str | None = None,
) -> list[Prompt]:
    """One question for each of some songs that are not of the data set, the tasks in turn.

    A song is not asked for a name that the data set does not know, unless the task is asked for.

    Args:
        songs: The songs.
        manifest: Of the data set that the model was tuned on: its tasks are asked.
        labels: Its closed sets of names.
        tokenizer: Its tokenizer.
        prompt: Its prompt format.
        num_songs: How many.
        task: Ask this alone.

    Raises:
        ConfigError: Nothing can be asked, or the task asks for lyrics.
    """
    tasks = [find_lyrics_task(task).name] if task else list_lyrics_tasks(manifest.tasks)
    prompts: list[Prompt] = []
    for song in songs[:num_songs] if tasks else ():
        made = {one.task: one for one in make_examples(song, tasks=tasks)}
        for name in in_turn(tasks, len(prompts)):
            if name not in made or not (task or _is_known(made[name].label, labels.get(name))):
                continue
            question = made[name].instruction
            ids = encode_prompt(song.lyrics, question, tokenizer, prompt)
            prompts.append(Prompt(ids, song, question, made[name].answer, name))
            break
    if not prompts:
        raise ConfigError(
            f"the shipped examples cannot be asked {task or 'any of ' + ', '.join(manifest.tasks)}; pass --songs 3 to "
            "ask about held-out songs of the data set, or --lyrics FILE"
        )
    return prompts


def _is_known(label: str | None, labels: TaskLabels | None) -> bool:
    return label is None or labels is None or label in labels.train_counts


def question_of(song: Song, task: str) -> str:
    """A task's question about a song, with what it states before it of what is known.

    Raises:
        ConfigError: There is no such task, or it is not about given lyrics.
    """
    found = find_lyrics_task(task)
    return found.introduce(Facts(song)) + found.questions[0]


def leave_out_explicit(songs: dict[str, JsonObject]) -> dict[str, JsonObject]:
    """The songs that sing no word of the explicit lexicon."""
    return {id_: song for id_, song in songs.items() if not is_explicit(split_sung(song["lyrics"]))}


def choose_songs(songs: dict[str, JsonObject], num_songs: int) -> list[str]:
    """Ids of songs by artists and of genres as different as there are, in the order of the file among equals."""
    artists: Counter[object] = Counter()
    genres: Counter[object] = Counter()
    left, chosen = list(songs), list[str]()
    while left and len(chosen) < num_songs:
        best = min(left, key=lambda id_: (artists[songs[id_].get("artist")], genres[songs[id_].get("genre")]))
        left.remove(best)
        chosen.append(best)
        artists[songs[best].get("artist")] += 1
        genres[songs[best].get("genre")] += 1
    return chosen


def make_prompt(question: Question, song: JsonObject, held_out: HeldOut) -> Prompt:
    """The very ids of the eval row, with the song's facts beside them."""
    return Prompt(
        ids=question.prompt,
        song=song_of(song),
        question=decode_question(question.prompt, held_out.tokenizer, held_out.prompt),
        expected=held_out.tokenizer.decode(question.answer, skip_special_tokens=True).strip(),
        task=question.task,
    )


def song_of(value: JsonObject) -> Song:
    """A song out of a line of `eval_songs.jsonl`; what the line does not hold is not known."""
    known = {name: value[name] for name in Song.__dataclass_fields__ if name in value}
    return Song(**known | {"themes": tuple(value.get("themes") or ())})


def decode_question(ids: Sequence[int], tokenizer: TextTokenizer, prompt: PromptFormat) -> str:
    """The question's text out of a whole prompt."""
    after = "".join(piece.text for piece in prompt.after_question)
    text = tokenizer.decode(ids).removesuffix(after)
    return text.rpartition(prompt.after_lyrics + prompt.before_question)[2]


def encode_prompt(lyrics: str, question: str, tokenizer: TextTokenizer, prompt: PromptFormat) -> list[int]:
    """Ids of a prompt, as training has them."""
    return encode_pieces(tokenizer, [*prompt.prefix(lyrics), *prompt.question(question)])
