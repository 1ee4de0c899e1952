"""From a song and its examples to a group of segments: ids, masks by construction, shared prefix, cuts at line ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from preprocess.errors import ConfigError
from preprocess.forest import PackedRow, concatenate
from preprocess.prompt import Piece, PromptFormat, encode_pieces
from preprocess.schema import ROOT, Example, Song
from preprocess.tokenizer import TextTokenizer


@dataclass(slots=True)
class EncodeCounts:
    """What encoding did, for the manifest and the messages.

    Attributes:
        shared: Examples stored as a branch of their song's prefix.
        alone: Examples stored whole, because their ids change when the prefix is split off.
        songs_cut: Songs whose lyrics were shortened at a line end to fit.
        songs_split: Songs whose examples needed more than one group, the prefix repeated.
        dropped: Songs without an example in the shards, by reason.
        shortest_prompt: Tokens of the shortest prompt and answer seen, with no lyrics at all.
    """

    shared: int = 0
    alone: int = 0
    songs_cut: int = 0
    songs_split: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shortest_prompt: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """One encoded example: the question's ids, the answer's ids, the index of its task."""

    question: list[int]
    answer: list[int]
    task: int
    instruction: str

    @property
    def length(self) -> int:
        """Number of tokens of question and answer."""
        return len(self.question) + len(self.answer)


class SongEncoder:
    """Encodes songs for one tokenizer, prompt format and row length.

    Args:
        tokenizer: The model's tokenizer.
        prompt: The chat format.
        tasks: Names of the tasks; an example's task is stored as an index into them.
        seq_len: Slots in a row; a group never exceeds it.
        max_lyrics_tokens: Cut lyrics to about this many tokens (at a line end), or None.
        share_prefix: Store each example as a branch of its song's prefix; False stores every example whole.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        prompt: PromptFormat,
        tasks: Sequence[str],
        seq_len: int,
        max_lyrics_tokens: int | None = None,
        *,
        share_prefix: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.task_index = {task: i for i, task in enumerate(tasks)}
        self.seq_len = seq_len
        self.max_lyrics_tokens = max_lyrics_tokens
        self.share_prefix = share_prefix
        self.counts = EncodeCounts()
        self._frame_length = len(encode_pieces(tokenizer, prompt.prefix("")))

    def fit_song(
        self, song: Song, make_examples: Callable[[Song], list[Example]]
    ) -> tuple[Song, list[Example]] | None:
        """Cut a song's lyrics until they fit beside its examples, which are made of what is left of them.

        Args:
            song: A cleaned song.
            make_examples: Makes its examples. Answers count lines and words, so a cut song gets new ones.

        Returns:
            The song as the model will see it and its examples, or None (with the reason counted).
        """
        fitted = song
        while True:
            examples = make_examples(fitted)
            lyrics = self._fit_beside(fitted.lyrics, [self._encode_branch(example) for example in examples])
            if lyrics is None:
                return None
            if lyrics == fitted.lyrics:
                break
            fitted = replace(fitted, lyrics=lyrics)
        self.counts.songs_cut += fitted is not song
        return fitted, examples

    def _fit_beside(self, lyrics: str, branches: Sequence[Branch]) -> str | None:
        if not branches:
            self.counts.dropped["no task fits what the row says"] += 1
            return None
        longest = max(branch.length for branch in branches)
        self._note_prompt(min(branch.length for branch in branches))
        fitted = self._fit_lyrics(lyrics, self.seq_len - longest - self._frame_length)
        if fitted is None:
            self.counts.dropped["no line of the lyrics fits beside the question and answer"] += 1
        return fitted

    def encode(self, song: Song, examples: Sequence[Example]) -> list[PackedRow]:
        """Encode one song.

        Returns:
            Groups of at most `seq_len` slots, each a small forest: the prefix and its branches. Empty when the
            song has no example or not even its first line fits; the reason is counted.
        """
        branches = [self._encode_branch(example) for example in examples]
        lyrics = self._fit_beside(song.lyrics, branches)
        if lyrics is None:
            return []
        self.counts.songs_cut += lyrics != song.lyrics
        pieces = self.prompt.prefix(lyrics)
        prefix = encode_pieces(self.tokenizer, pieces)
        shared, alone = self._divide(pieces, prefix, branches)
        groups = [self._group(song.id, prefix, part) for part in self._split(len(prefix), shared)]
        self.counts.songs_split += len(groups) > 1
        return groups + [
            row for row in (self._alone(song.id, pieces, branch) for branch in alone) if row is not None
        ]

    def _note_prompt(self, length: int) -> None:
        total = self._frame_length + length
        known = self.counts.shortest_prompt
        self.counts.shortest_prompt = total if known is None else min(known, total)

    def _encode_branch(self, example: Example) -> Branch:
        return Branch(
            question=encode_pieces(self.tokenizer, self.prompt.question(example.instruction)),
            answer=encode_pieces(self.tokenizer, self.prompt.answer(example.answer)),
            task=self.task_index[example.task],
            instruction=example.instruction,
        )

    def _fit_lyrics(self, lyrics: str, budget: int) -> str | None:
        """The longest run of whole lines from the start that takes at most `budget` tokens, or None."""
        if self.max_lyrics_tokens is not None:
            budget = min(budget, self.max_lyrics_tokens)
        if budget < 1:
            return None
        fitted = lyrics
        while self._lyrics_length(fitted) > budget:
            shorter = self._cut_at_line(fitted, budget)
            if not shorter:
                return None
            fitted = shorter
        return fitted

    def _lyrics_length(self, lyrics: str) -> int:
        """Tokens that the lyrics add to an empty prefix (text before and after them included in both)."""
        return len(encode_pieces(self.tokenizer, self.prompt.prefix(lyrics))) - self._frame_length

    def _cut_at_line(self, lyrics: str, budget: int) -> str:
        """Whole lines of `lyrics` whose last one ends within the first `budget` tokens; always shorter than it."""
        encoding = self.tokenizer.backend.encode(lyrics, add_special_tokens=False)
        end = encoding.offsets[budget - 1][1] if budget <= len(encoding.offsets) else len(lyrics) - 1
        if end < len(lyrics) and lyrics[end] == "\n":
            return lyrics[:end].rstrip("\n")
        return lyrics[: max(lyrics.rfind("\n", 0, end), 0)].rstrip("\n")

    def _divide(
        self, pieces: list[Piece], prefix: list[int], branches: list[Branch]
    ) -> tuple[list[Branch], list[Branch]]:
        """Branches whose ids are the same behind the prefix as in one piece with it, and the others."""
        if not self.share_prefix:
            return [], branches
        shared: list[Branch] = []
        alone: list[Branch] = []
        for branch in branches:
            whole = encode_pieces(self.tokenizer, [*pieces, *self.prompt.question(branch.instruction)])
            (shared if whole == prefix + branch.question else alone).append(branch)
        self.counts.shared += len(shared)
        return shared, alone

    def _split(self, prefix_length: int, branches: list[Branch]) -> Iterator[list[Branch]]:
        """Runs of branches that fit in a row together with the prefix."""
        part: list[Branch] = []
        length = prefix_length
        for branch in branches:
            if part and length + branch.length > self.seq_len:
                yield part
                part, length = [], prefix_length
            part.append(branch)
            length += branch.length
        if part:
            yield part

    def _group(self, song_id: str, prefix: list[int], branches: Sequence[Branch]) -> PackedRow:
        mask = [False] * len(prefix)
        ids = list(prefix)
        for branch in branches:
            ids += branch.question + branch.answer
            mask += [False] * len(branch.question) + [True] * len(branch.answer)
        return PackedRow(
            input_ids=np.array(ids, dtype=np.int32),
            label_mask=np.array(mask, dtype=np.bool_),
            seq_lens=np.array([len(prefix), *(branch.length for branch in branches)], dtype=np.int32),
            parents=np.array([ROOT, *(0 for _ in branches)], dtype=np.int32),
            tasks=np.array([-1, *(branch.task for branch in branches)], dtype=np.int32),
            song_ids=(song_id,) * (1 + len(branches)),
        )

    def _alone(self, song_id: str, pieces: list[Piece], branch: Branch) -> PackedRow | None:
        prompt = encode_pieces(self.tokenizer, [*pieces, *self.prompt.question(branch.instruction)])
        if len(prompt) + len(branch.answer) > self.seq_len:
            self.counts.dropped["an example stored whole does not fit the row"] += 1
            return None
        self.counts.alone += 1
        length = len(prompt) + len(branch.answer)
        return PackedRow(
            input_ids=np.array(prompt + branch.answer, dtype=np.int32),
            label_mask=np.arange(length) >= len(prompt),
            seq_lens=np.array([length], dtype=np.int32),
            parents=np.array([ROOT], dtype=np.int32),
            tasks=np.array([branch.task], dtype=np.int32),
            song_ids=(song_id,),
        )


def pack_groups(groups: Sequence[PackedRow], bins: Sequence[Sequence[int]]) -> Iterator[PackedRow]:
    """The rows that bins of group indices stand for."""
    for bin_ in bins:
        yield concatenate([groups[i] for i in bin_])


def check_row_length(encoder: SongEncoder, num_groups: int) -> None:
    """Refuse a row length in which nothing fits.

    Raises:
        ConfigError: No song was encoded and the row is shorter than every prompt with its answer.
    """
    shortest = encoder.counts.shortest_prompt
    if num_groups == 0 and shortest is not None and shortest >= encoder.seq_len:
        raise ConfigError(
            f"seq_len {encoder.seq_len} is shorter than any prompt: the shortest, with its answer and without "
            f"lyrics, takes {shortest} tokens. Set encode.seq_len to {max(256, 2 * shortest)} or more"
        )
