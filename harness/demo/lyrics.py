"""The user's own lyrics: from a file, from standard input or from a page, cleaned, cut to what a prompt holds."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.demo.items import count_lines
from harness.demo.prompts import Prompt, encode_prompt, question_of
from preprocess.clean.explicit import is_explicit
from preprocess.clean.lyrics import clean_lyrics
from preprocess.clean.sung import split_sung
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import Manifest
from preprocess.outside_text import holds_surrogates
from preprocess.prompt import PromptFormat
from preprocess.schema import Song
from preprocess.tokenizer import TextTokenizer

STDIN = Path("-")

MAX_LYRICS_CHARS = 100_000
"""No song is longer."""

PASTED = "pasted"
"""Id of the song that the user's own lyrics make."""


def read_lyrics(path: Path) -> str:
    """Read a text file of lyrics, or standard input for "-": UTF-8, any line ends.

    Raises:
        DataError: There is no such file, it is not UTF-8, it is empty, or larger than any song.
    """
    if path != STDIN and not path.is_file():
        raise DataError(
            f"{path}: no such file; --lyrics names a text file with one song's lyrics, or - to paste"
        )
    try:
        with sys.stdin.buffer if path == STDIN else path.open("rb") as file:
            text = file.read(4 * MAX_LYRICS_CHARS + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8") from error
    return check_lyrics(text, str(path))


def check_lyrics(text: str, where: str) -> str:
    """Lyrics with plain line ends and no spaces at them.

    Raises:
        DataError: They are empty, longer than any song, or no UTF-8.
    """
    if holds_surrogates(text):
        raise DataError(
            f"{where}: half of a surrogate pair in it, which UTF-8 does not hold; save it as UTF-8"
        )
    if len(text) > MAX_LYRICS_CHARS:
        raise DataError(f"{where}: more than {MAX_LYRICS_CHARS:,} characters; expected one song's lyrics")
    lyrics = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    if not lyrics.strip():
        raise DataError(f"{where}: empty; expected one song's lyrics")
    return lyrics


def check_question(question: str) -> str:
    """A question of the user's without the spaces around it.

    Raises:
        ConfigError: It is empty, or no UTF-8.
    """
    asked = question.strip()
    if not asked:
        raise ConfigError("the question is empty; ask something about the lyrics, or name a task")
    if holds_surrogates(asked):
        raise ConfigError("the question holds bytes that are no UTF-8; type it in a UTF-8 terminal")
    return asked


def pasted_song(lyrics: str, manifest: Manifest) -> Song:
    """A song of which nothing is known but its lyrics, cleaned as the data set's were.

    Raises:
        DataError: Nothing is left of them.
    """
    headings = manifest.extra.get("config", {}).get("clean", {}).get("headings", "plain")
    cleaned = clean_lyrics(lyrics, headings=headings)
    if not cleaned:
        raise DataError(
            "nothing is left of the lyrics when headings, page residue and empty lines are cleaned away"
        )
    return Song(PASTED, cleaned)


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


def prompt_lyrics(
    manifest: Manifest,
    tokenizer: TextTokenizer,
    prompt: PromptFormat,
    lyrics: str,
    *,
    task: str | None,
    question: str | None,
    max_new_tokens: int,
) -> tuple[Prompt, str | None]:
    """A question about the user's own lyrics.

    Args:
        manifest: Of the data set whose prompt format and row length the adapter was trained with.
        tokenizer: The data set's.
        prompt: The data set's prompt format.
        lyrics: Cut at a line end where the prompt and its answer would exceed a training row.
        task: The task whose question is asked, or None.
        question: The question, or None; one of the two.
        max_new_tokens: Tokens of an answer, at most.

    Returns:
        The question, and what the reader must know (lyrics that were cut, a task that training never had), or None.

    Raises:
        ConfigError: Neither a task nor a question or both, or nothing of the lyrics fits.
        DataError: Nothing is left of the lyrics.
    """
    song = pasted_song(lyrics, manifest)
    if task is not None and question is not None:
        raise ConfigError(f"got the task {task!r} and a question of your own; expected one of them")
    asked = question_of(song, task) if task else check_question(question or "")
    kept = fit_lyrics(song.lyrics, asked, tokenizer, prompt, manifest.seq_len - max_new_tokens)
    ids = encode_prompt(kept, asked, tokenizer, prompt)
    notes = []
    if kept != song.lyrics:
        notes.append(
            f"The lyrics were cut after line {count_lines(kept):,} of {count_lines(song.lyrics):,}: with the question "
            f"and {max_new_tokens:,} tokens of answer, no more fit the {manifest.seq_len:,} tokens of a training row."
        )
    if task and task not in manifest.tasks:
        notes.append(f"The data set has no task {task}: nothing trained the adapter on it.")
    if is_explicit(split_sung(kept)):
        notes.append("These lyrics hold words of the explicit lexicon.")
    return Prompt(ids, replace(song, lyrics=kept), asked, task=task), " ".join(notes) or None


def prompt_question(
    songs: Sequence[Song],
    question: str,
    tokenizer: TextTokenizer,
    prompt: PromptFormat,
    room: int,
) -> tuple[list[Prompt], str | None]:
    """The user's own question about each of some songs.

    Args:
        songs: The songs; lyrics that do not fit are cut at a line end.
        question: The question.
        tokenizer: The data set's.
        prompt: The data set's prompt format.
        room: Tokens of a prompt, at most.

    Returns:
        The questions, and how many songs' lyrics were cut, or None.

    Raises:
        ConfigError: The question is empty, or nothing of a song's lyrics fits.
    """
    asked = check_question(question)
    prompts = []
    for song in songs:
        kept = fit_lyrics(song.lyrics, asked, tokenizer, prompt, room)
        ids = encode_prompt(kept, asked, tokenizer, prompt)
        prompts.append(Prompt(ids, replace(song, lyrics=kept), asked))
    num_cut = sum(one.song.lyrics != song.lyrics for one, song in zip(prompts, songs, strict=True))
    note = (
        f"The lyrics of {num_cut:,} of {len(prompts):,} songs were cut at a line's end: with the question, no more fit "
        f"the {room:,} tokens that a training row leaves beside the answer."
    )
    return prompts, note if num_cut else None
