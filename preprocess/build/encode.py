"""From songs and their examples to groups of segments: ids, masks by construction, shared prefix, cuts at line ends.

Songs are encoded some hundreds at a time: each text goes through the tokenizer once, the lyrics of all songs in one
batch, a question once for all songs that are asked it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from preprocess.build.encode_counts import EncodeCounts
from preprocess.build.lyrics_fit import cut_lyrics
from preprocess.build.questions import Branch, Questions
from preprocess.build.seam import is_checked_in_full, is_constant
from preprocess.build.segments import make_group, make_whole
from preprocess.errors import ConfigError
from preprocess.forest import PackedRow, concatenate
from preprocess.prompt import PromptFormat, encode_pieces, encode_pieces_batch
from preprocess.schema import Example, Song
from preprocess.tokenizer import TextTokenizer

__all__ = ["EncodeCounts", "EncodedSong", "SongEncoder", "check_row_length", "pack_groups"]

NO_TASK = "no task fits what the row says"
NO_LINE = "no line of the lyrics fits beside the question and answer"
NO_ROOM = "question and answer leave no room for a line of the lyrics"
TOO_LONG = "an example stored whole does not fit the row"

MakeExamples = Callable[[Sequence[Song]], list[list[Example]]]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSong:
    """A song in the shards.

    Attributes:
        song: As the model sees it: its lyrics may be cut.
        groups: Its segments, in groups that fit a row; none when the song was dropped.
        asked: Names of the tasks in the groups.
    """

    song: Song
    groups: list[PackedRow]
    asked: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A song with what fits beside it: prefix ids, the examples kept, as branches of the lyrics and as wholes."""

    song: Song
    prefix: list[int]
    branches: list[Branch]
    wholes: list[Branch]
    dropped: tuple[tuple[str, int], ...]


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
        self.tasks = tuple(tasks)
        self.seq_len = seq_len
        self.max_lyrics_tokens = max_lyrics_tokens
        self.share_prefix = share_prefix
        self.counts = EncodeCounts()
        self._questions = Questions(tokenizer, prompt, self.tasks)
        self._frame_length = len(self._questions.frame)
        self._seam_is_constant = is_constant(tokenizer)

    def encode_songs(self, songs: Sequence[Song], make_examples: MakeExamples) -> list[EncodedSong]:
        """Encode songs, cutting lyrics that do not fit and asking again about what is left of them.

        Args:
            songs: Cleaned songs.
            make_examples: Makes the examples of each. Answers count lines and words, so cut songs get new ones.

        Returns:
            One for each song, in order. The counts say why one has no groups.
        """
        fitted = self._fit_songs(songs, make_examples)
        return [
            EncodedSong(song, [], frozenset()) if own is None else self._encode_fitted(own)
            for song, own in zip(songs, fitted, strict=True)
        ]

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
        (fitted,) = self._fit_songs([song], lambda songs: [make_examples(song) for song in songs])
        if fitted is None:
            return None
        return fitted.song, [branch.example for branch in [*fitted.branches, *fitted.wholes]]

    def encode(self, song: Song, examples: Sequence[Example]) -> list[PackedRow]:
        """Encode one song with given examples, which stay as they are when its lyrics are cut.

        Returns:
            Groups of at most `seq_len` slots, each a small forest: the prefix and its branches. Empty when the
            song has no example or not even its first line fits; the reason is counted.
        """
        (encoded,) = self.encode_songs([song], lambda _: [list(examples)])
        return encoded.groups

    def _fit_songs(self, songs: Sequence[Song], make_examples: MakeExamples) -> list[_Fitted | None]:
        done: list[_Fitted | None] = [None] * len(songs)
        seen = self._cap_lyrics(songs)
        pending = list(range(len(songs)))
        while pending:
            current = [seen[i] for i in pending]
            prefixes = encode_pieces_batch(self.tokenizer, [self.prompt.prefix(s.lyrics) for s in current])
            branches = self._questions.encode(make_examples(current))
            again: list[int] = []
            for i, song, prefix, own in zip(pending, current, prefixes, branches, strict=True):
                result = self._fit(song, prefix, own)
                if isinstance(result, str):
                    seen[i] = replace(song, lyrics=result)
                    again.append(i)
                elif result is not None:
                    done[i] = result
                    self.counts.songs_cut += result.song.lyrics != songs[i].lyrics
                    self.counts.examples_dropped.update(dict(result.dropped))
            pending = again
        return done

    def _cap_lyrics(self, songs: Sequence[Song]) -> list[Song]:
        """The songs, those cut that are longer than `max_lyrics_tokens`; one whose first line is longer stays."""
        if self.max_lyrics_tokens is None:
            return list(songs)
        prefixes = encode_pieces_batch(self.tokenizer, [self.prompt.prefix(song.lyrics) for song in songs])
        capped = []
        for song, prefix in zip(songs, prefixes, strict=True):
            too_long = len(prefix) - self._frame_length > self.max_lyrics_tokens
            cut = self._cut(song.lyrics, self.max_lyrics_tokens) if too_long else None
            capped.append(song if cut is None else replace(song, lyrics=cut))
        return capped

    def _fit(self, song: Song, prefix: list[int], branches: list[Branch]) -> _Fitted | str | None:
        """What fits of a song, or the shorter lyrics that would, or None with the reason counted."""
        if not branches:
            self.counts.dropped[NO_TASK] += 1
            return None
        lyrical = [branch for branch in branches if branch.example.with_lyrics]
        wholes = [branch for branch in branches if not branch.example.with_lyrics]
        lengths = [self._frame_length + b.length for b in lyrical] + [b.length for b in wholes]
        self.counts.note_prompt(min(lengths))
        short = [branch for branch in wholes if branch.length <= self.seq_len]
        kept, lyrics = self._fit_beside(song.lyrics, len(prefix) - self._frame_length, lyrical)
        if lyrics != song.lyrics and kept:
            return lyrics
        if not kept and not short:
            self.counts.dropped[NO_LINE if lyrical else TOO_LONG] += 1
            return None
        dropped = ((NO_ROOM, len(lyrical) - len(kept)), (TOO_LONG, len(wholes) - len(short)))
        return _Fitted(song, prefix, kept, short, tuple((why, num) for why, num in dropped if num))

    def _fit_beside(
        self, lyrics: str, lyrics_length: int, branches: list[Branch]
    ) -> tuple[list[Branch], str]:
        """The branches that leave room for a line of the lyrics, and the lines that fit beside the longest."""
        kept = sorted(branches, key=lambda branch: branch.length)
        while kept:
            budget = self.seq_len - self._frame_length - kept[-1].length
            if self.max_lyrics_tokens is not None:
                budget = min(budget, self.max_lyrics_tokens)
            fitted = lyrics if lyrics_length <= budget else self._cut(lyrics, budget)
            if fitted is not None:
                longest = kept[-1].length
                return [branch for branch in branches if branch.length <= longest], fitted
            longest = kept[-1].length
            kept = [branch for branch in kept if branch.length < longest]
        return [], lyrics

    def _cut(self, lyrics: str, budget: int) -> str | None:
        return cut_lyrics(lyrics, budget, self.tokenizer, self._lyrics_length)

    def _lyrics_length(self, lyrics: str) -> int:
        """Tokens that the lyrics add to an empty prefix (text before and after them included in both)."""
        return len(encode_pieces(self.tokenizer, self.prompt.prefix(lyrics))) - self._frame_length

    def _encode_fitted(self, fitted: _Fitted) -> EncodedSong:
        song, prefix = fitted.song, fitted.prefix
        shared, alone = self._divide(fitted)
        groups = [make_group(song.id, prefix, part) for part in self._split(len(prefix), shared)]
        self.counts.songs_split += len(groups) > 1
        self.counts.shared += len(shared)
        for prompt, branch in alone:
            if len(prompt) + len(branch.answer) > self.seq_len:
                self.counts.examples_dropped[TOO_LONG] += 1
                continue
            self.counts.alone += 1
            groups.append(make_whole(song.id, prompt, branch))
        self.counts.without_lyrics += len(fitted.wholes)
        groups += [make_whole(song.id, branch.question, branch) for branch in fitted.wholes]
        if not groups:
            self.counts.dropped[TOO_LONG] += 1
        asked = {self.tasks[task] for group in groups for task in group.tasks.tolist() if task >= 0}
        return EncodedSong(song, groups, frozenset(asked))

    def _divide(self, fitted: _Fitted) -> tuple[list[Branch], list[tuple[list[int], Branch]]]:
        """Branches whose ids are the same behind the prefix as in one piece with it, and the others with their prompt.

        See `preprocess.build.seam` for when one comparison a question is enough.
        """
        prefix, branches = fitted.prefix, fitted.branches
        if self._is_settled(fitted):
            whole = [] if self.share_prefix else [(prefix + branch.question, branch) for branch in branches]
            return (branches if self.share_prefix else []), whole
        pieces = self.prompt.prefix(fitted.song.lyrics)
        questions = [self.prompt.question(branch.example.instruction) for branch in branches]
        prompts = encode_pieces_batch(self.tokenizer, [[*pieces, *question] for question in questions])
        pairs = list(zip(prompts, branches, strict=True))
        differing = [branch for prompt, branch in pairs if prompt != prefix + branch.question]
        unforeseen = self._seam_is_constant and any(branch.is_exact for branch in differing)
        self.counts.seams_checked += bool(branches)
        self.counts.seams_differing += unforeseen
        if unforeseen or not self.share_prefix:
            return [], pairs
        lost = {id(branch) for branch in differing}
        shared = [branch for branch in branches if id(branch) not in lost]
        return shared, [(prompt, branch) for prompt, branch in pairs if id(branch) in lost]

    def _is_settled(self, fitted: _Fitted) -> bool:
        """Whether one comparison a question, made when it was encoded, is enough for this song."""
        is_exact = all(branch.is_exact for branch in fitted.branches)
        return self._seam_is_constant and is_exact and not is_checked_in_full(fitted.song.id)

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


def pack_groups(groups: Sequence[PackedRow], bins: Iterable[Iterable[int]]) -> Iterator[PackedRow]:
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
