"""What the demo asks: held-out songs with a task each, or the user's own lyrics and question."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.evaluation.questions import HeldOut, Question
from harness.json_lines import JsonObject, read_json_lines
from preprocess.errors import ConfigError, DataError
from preprocess.prompt import PromptFormat, encode_pieces
from preprocess.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: the ids, and the item that the answers will complete."""

    ids: list[int]
    title: str | None
    artist: str | None
    lyrics: str
    question: str
    expected: str | None


def read_lyrics(path: Path) -> str:
    """Read a text file of lyrics: UTF-8, any line ends.

    Raises:
        DataError: There is no such file, it is not UTF-8, or it is empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; --lyrics names a text file with one song's lyrics")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8") from error
    lyrics = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    if not lyrics:
        raise DataError(f"{path}: empty; expected one song's lyrics")
    return lyrics


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


def choose_prompts(held_out: HeldOut, songs: dict[str, JsonObject], num_songs: int) -> list[Prompt]:
    """One question for each of some songs, the tasks in turn; the same choice every time.

    Raises:
        DataError: None of the songs is asked anything.
    """
    by_song: dict[str, dict[str, Question]] = {}
    for question in held_out.questions:
        by_song.setdefault(question.song_id, {})[question.task] = question
    chosen = choose_songs({id_: song for id_, song in songs.items() if id_ in by_song}, num_songs)
    if not chosen:
        raise DataError(
            f"{held_out.folder}: eval_songs.jsonl and the eval split have no song in common; build it again"
        )
    tasks = held_out.manifest.tasks
    prompts = []
    for turn, id_ in enumerate(chosen):
        in_turn = [*tasks[turn % len(tasks) :], *tasks[: turn % len(tasks)]]
        question = next(by_song[id_][task] for task in in_turn if task in by_song[id_])
        prompts.append(make_prompt(question, songs[id_], held_out))
    return prompts


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
        title=song.get("title"),
        artist=song.get("artist"),
        lyrics=song["lyrics"],
        question=decode_question(question.prompt, held_out.tokenizer, held_out.prompt),
        expected=held_out.tokenizer.decode(question.answer, skip_special_tokens=True).strip(),
    )


def decode_question(ids: Sequence[int], tokenizer: TextTokenizer, prompt: PromptFormat) -> str:
    """The question's text out of a whole prompt."""
    after = "".join(piece.text for piece in prompt.after_question)
    text = tokenizer.decode(ids).removesuffix(after)
    return text.rpartition(prompt.after_lyrics + prompt.before_question)[2]


def encode_prompt(lyrics: str, question: str, tokenizer: TextTokenizer, prompt: PromptFormat) -> list[int]:
    """Ids of a prompt, as training has them."""
    return encode_pieces(tokenizer, [*prompt.prefix(lyrics), *prompt.question(question)])


def fit_lyrics(lyrics: str, question: str, tokenizer: TextTokenizer, prompt: PromptFormat, room: int) -> str:
    """The longest run of whole lines from the start whose prompt takes at most `room` tokens.

    Raises:
        ConfigError: Not even the first line fits.
    """
    lines = lyrics.split("\n")

    def is_too_long(num_lines: int) -> bool:
        return len(encode_prompt("\n".join(lines[:num_lines]), question, tokenizer, prompt)) > room

    num_lines = bisect_left(range(len(lines) + 1), True, key=is_too_long) - 1
    kept = "\n".join(lines[: max(num_lines, 0)]).rstrip("\n")
    if not kept:
        raise ConfigError(
            f"not even the first line of the lyrics fits: the prompt has room for {max(room, 0):,} tokens beside the "
            "answer. Ask for fewer new tokens, or shorten the question or the line"
        )
    return kept
