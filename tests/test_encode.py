from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from preprocess.build.encode import SongEncoder, check_row_length, pack_groups
from preprocess.build.encode_counts import EncodeCounts
from preprocess.build.seam import is_checked_in_full, is_constant
from preprocess.errors import ConfigError
from preprocess.forest import PackedRow, check_row, labels, unpack_examples
from preprocess.prompt import AFTER_LYRICS, BEFORE_LYRICS, encode_pieces, find_format
from preprocess.schema import IGNORE_INDEX, ROOT, Example, Song
from preprocess.tokenizer import TextTokenizer
from tests.toys import ARTISTS, TASKS, Family, make_examples, make_songs, make_tokenizer

FAMILIES: tuple[Family, ...] = ("chatml", "llama3", "plain")
LONG_SONG = replace(make_songs(1, num_lines=60)[0], id="long")


def make_encoder(tokenizer: TextTokenizer, seq_len: int = 512, **options: Any) -> SongEncoder:
    return SongEncoder(tokenizer, find_format(tokenizer), TASKS, seq_len, **options)


def encode_whole(tokenizer: TextTokenizer, song: Song, example: Example) -> tuple[list[int], list[int]]:
    """Prompt ids and answer ids of one example, rendered in one piece."""
    prompt = find_format(tokenizer)
    asked = encode_pieces(tokenizer, [*prompt.prefix(song.lyrics), *prompt.question(example.instruction)])
    return asked, encode_pieces(tokenizer, prompt.answer(example.answer))


def assert_examples_are_whole(
    tokenizer: TextTokenizer, song: Song, examples: Sequence[Example], groups: Sequence[PackedRow]
) -> None:
    unpacked = [example for group in groups for example in unpack_examples(group)]
    assert [TASKS[int(row.tasks[0])] for row in unpacked] == [example.task for example in examples]
    for row, example in zip(unpacked, examples, strict=True):
        asked, answer = encode_whole(tokenizer, song, example)
        assert row.input_ids.tolist() == asked + answer
        assert labels(row).tolist() == [IGNORE_INDEX] * len(asked) + answer
        assert answer[-1] == tokenizer.special_id(find_format(tokenizer).stop_token)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_and_branch_are_the_ids_of_the_whole_and_exactly_the_answer_is_supervised(
    family: Family,
) -> None:
    tokenizer = make_tokenizer(family)
    encoder = make_encoder(tokenizer)
    for song in make_songs(8):
        groups = encoder.encode(song, make_examples(song))
        assert groups[0].parents.tolist() == [ROOT, 0, 0, 0, 0]
        assert_examples_are_whole(tokenizer, song, make_examples(song), groups)
    assert (encoder.counts.shared, encoder.counts.alone) == (32, 0)


lyrics_texts = st.text(
    alphabet=st.one_of(st.sampled_from(" \n.'a1é雨"), st.characters(codec="utf-8")), min_size=1, max_size=60
)


@settings(max_examples=80, deadline=None)
@given(lyrics=lyrics_texts, instruction=lyrics_texts, answer=lyrics_texts)
def test_any_lyrics_questions_and_answers_are_shared_exactly(
    lyrics: str, instruction: str, answer: str
) -> None:
    tokenizer = make_tokenizer("chatml")
    song, example = Song("s", lyrics), Example("artist", instruction, answer)
    encoder = make_encoder(tokenizer, seq_len=2048)
    assert_examples_are_whole(tokenizer, song, [example], encoder.encode(song, [example]))
    assert encoder.counts.shared == 1


def test_real_tokenizers_share_every_prefix(smollm2: TextTokenizer, llama3_from_model: TextTokenizer) -> None:
    for tokenizer in (smollm2, llama3_from_model):
        encoder = make_encoder(tokenizer)
        for song in make_songs(6, seed=3):
            groups = encoder.encode(song, make_examples(song))
            assert_examples_are_whole(tokenizer, song, make_examples(song), groups)
        assert (encoder.counts.shared, encoder.counts.alone) == (24, 0)


def test_an_answer_that_occurs_in_lyrics_and_question_does_not_shift_the_mask(
    chatml_tokenizer: TextTokenizer,
) -> None:
    song = Song("s", f"{ARTISTS[0]}\n{ARTISTS[0]}, oh {ARTISTS[0]}")
    examples = [Example("artist", f"Is it {ARTISTS[0]}? {ARTISTS[0]}", ARTISTS[0])]
    groups = make_encoder(chatml_tokenizer).encode(song, examples)
    assert_examples_are_whole(chatml_tokenizer, song, examples, groups)
    supervised = groups[0].input_ids[groups[0].label_mask].tolist()
    assert chatml_tokenizer.decode(supervised) == f"{ARTISTS[0]}<|im_end|>"
    assert chatml_tokenizer.decode(groups[0].input_ids.tolist()).count(ARTISTS[0]) == 6


def test_an_answer_that_spells_the_stop_token_has_it_once(chatml_tokenizer: TextTokenizer) -> None:
    groups = make_encoder(chatml_tokenizer).encode(Song("s", "la"), [Example("artist", "Who?", "<|im_end|>")])
    supervised = groups[0].input_ids[groups[0].label_mask].tolist()
    assert supervised.count(chatml_tokenizer.special_id("<|im_end|>")) == 1
    assert len(supervised) > 2


@pytest.fixture(scope="module")
def merging_tokenizer() -> TextTokenizer:
    """A tokenizer that does not split text into words, with a token across the end of the prefix."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(["lyrics.\n\nWho", "lyrics.\n\nWhich"] * 9, trainer)
    return TextTokenizer(backend, "merging")


def test_a_token_across_the_boundary_makes_the_example_a_root_of_its_own(
    merging_tokenizer: TextTokenizer,
) -> None:
    song, examples = make_songs(1)[0], make_examples(make_songs(1)[0])
    prompt = find_format(merging_tokenizer)
    prefix = encode_pieces(merging_tokenizer, prompt.prefix(song.lyrics))
    asked, _ = encode_whole(merging_tokenizer, song, examples[0])
    assert asked[: len(prefix)] != prefix
    encoder = make_encoder(merging_tokenizer, seq_len=1024)
    groups = encoder.encode(song, examples)
    assert_examples_are_whole(merging_tokenizer, song, examples, groups)
    assert [group.parents.tolist() for group in groups] == [[ROOT]] * 4
    assert (encoder.counts.shared, encoder.counts.alone) == (0, 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seq_len", [128, 200, 317, 500])
def test_lyrics_are_cut_at_a_line_end_and_the_answer_never(family: Family, seq_len: int) -> None:
    tokenizer = make_tokenizer(family)
    encoder = make_encoder(tokenizer, seq_len)
    groups = encoder.encode(LONG_SONG, make_examples(LONG_SONG))
    text = tokenizer.decode(groups[0].input_ids[: groups[0].seq_lens[0]].tolist())
    kept = text[text.index(BEFORE_LYRICS) + len(BEFORE_LYRICS) :].removesuffix(AFTER_LYRICS).split("\n")
    lines = LONG_SONG.lyrics.split("\n")
    assert 0 < len(kept) < len(lines)
    assert kept == lines[: len(kept)]
    cut = replace(LONG_SONG, lyrics="\n".join(kept))
    assert_examples_are_whole(tokenizer, cut, make_examples(cut), groups)
    assert all(len(group.input_ids) <= seq_len for group in groups)
    assert encoder.counts.songs_cut == 1
    longer = replace(LONG_SONG, lyrics="\n".join(lines[: len(kept) + 1]))
    whole = [encode_whole(tokenizer, longer, example) for example in make_examples(LONG_SONG)]
    assert max(len(asked) + len(answer) for asked, answer in whole) > seq_len


def test_lyrics_that_fit_are_not_cut(chatml_tokenizer: TextTokenizer) -> None:
    song = make_songs(1)[0]
    longest = max(
        len(asked) + len(answer)
        for asked, answer in (
            encode_whole(chatml_tokenizer, song, example) for example in make_examples(song)
        )
    )
    exact, short = make_encoder(chatml_tokenizer, longest), make_encoder(chatml_tokenizer, longest - 1)
    exact.encode(song, make_examples(song))
    short.encode(song, make_examples(song))
    assert (exact.counts.songs_cut, short.counts.songs_cut) == (0, 1)


def test_max_lyrics_tokens_cuts_below_the_row(chatml_tokenizer: TextTokenizer) -> None:
    free = make_encoder(chatml_tokenizer, 2048)
    capped = make_encoder(chatml_tokenizer, 2048, max_lyrics_tokens=100)
    frame = len(encode_pieces(chatml_tokenizer, find_format(chatml_tokenizer).prefix("")))
    (whole,) = free.encode(LONG_SONG, make_examples(LONG_SONG))
    (cut,) = capped.encode(LONG_SONG, make_examples(LONG_SONG))
    assert 60 < cut.seq_lens[0] - frame <= 100 < whole.seq_lens[0] - frame
    assert cut.seq_lens[1:].tolist() == whole.seq_lens[1:].tolist()


def test_a_group_that_does_not_fit_is_split_and_repeats_the_prefix(chatml_tokenizer: TextTokenizer) -> None:
    song, examples = make_songs(1)[0], make_examples(make_songs(1)[0]) * 3
    encoder = make_encoder(chatml_tokenizer, 200)
    groups = encoder.encode(song, examples)
    assert len(groups) > 1
    prefixes = {tuple(group.input_ids[: group.seq_lens[0]].tolist()) for group in groups}
    assert len(prefixes) == 1
    assert all(group.tasks[0] == -1 and group.num_examples >= 1 for group in groups)
    assert all(len(group.input_ids) <= 200 for group in groups)
    assert_examples_are_whole(chatml_tokenizer, song, examples, groups)
    assert encoder.counts.songs_split == 1
    assert encoder.counts.songs_cut == 0


def test_a_group_that_fills_the_row_exactly_is_not_split(chatml_tokenizer: TextTokenizer) -> None:
    song, examples = make_songs(1)[0], make_examples(make_songs(1)[0])
    (group,) = make_encoder(chatml_tokenizer).encode(song, examples)
    full = len(group.input_ids)
    exact, short = make_encoder(chatml_tokenizer, full), make_encoder(chatml_tokenizer, full - 1)
    assert [len(row.input_ids) for row in exact.encode(song, examples)] == [full]
    assert len(short.encode(song, examples)) == 2
    assert (exact.counts.songs_split, short.counts.songs_split) == (0, 1)


@pytest.mark.parametrize("seq_len", [128, 256, 512])
def test_without_sharing_the_examples_are_the_same(chatml_tokenizer: TextTokenizer, seq_len: int) -> None:
    shared, separate = (
        make_encoder(chatml_tokenizer, seq_len, share_prefix=share) for share in (True, False)
    )
    for song in [*make_songs(6), LONG_SONG]:
        with_sharing = shared.encode(song, make_examples(song))
        without = separate.encode(song, make_examples(song))
        assert all(group.parents.tolist() == [ROOT] for group in without)
        assert ids_and_labels(with_sharing) == ids_and_labels(without)
    assert (shared.counts.shared, shared.counts.alone) == (28, 0)
    assert (separate.counts.shared, separate.counts.alone) == (0, 28)


def ids_and_labels(groups: Sequence[PackedRow]) -> list[tuple[list[int], list[int]]]:
    return sorted(
        (row.input_ids.tolist(), labels(row).tolist()) for g in groups for row in unpack_examples(g)
    )


def test_groups_are_well_formed_and_packed_in_order(chatml_tokenizer: TextTokenizer) -> None:
    encoder = make_encoder(chatml_tokenizer)
    groups = [group for song in make_songs(5) for group in encoder.encode(song, make_examples(song))]
    for group in groups:
        check_row(group, chatml_tokenizer.vocab_size)
    first, second = pack_groups(groups, [[4, 0], [2, 1, 3]])
    assert first.input_ids.tolist() == [*groups[4].input_ids.tolist(), *groups[0].input_ids.tolist()]
    assert first.parents.tolist() == [ROOT, 0, 0, 0, 0, ROOT, 5, 5, 5, 5]
    assert list(dict.fromkeys(second.song_ids)) == ["song-0002", "song-0001", "song-0003"]


def test_a_song_without_an_example_is_counted(chatml_tokenizer: TextTokenizer) -> None:
    encoder = make_encoder(chatml_tokenizer)
    assert encoder.encode(make_songs(1)[0], []) == []
    assert encoder.counts.dropped == {"no task fits what the row says": 1}


def test_a_song_whose_first_line_does_not_fit_is_counted(chatml_tokenizer: TextTokenizer) -> None:
    encoder = make_encoder(chatml_tokenizer, 128)
    assert encoder.encode(Song("s", "la " * 200), make_examples(make_songs(1)[0])) == []
    assert encoder.counts.dropped == {"no line of the lyrics fits beside the question and answer": 1}


def test_a_row_shorter_than_every_prompt_is_refused_with_a_length_that_works(
    chatml_tokenizer: TextTokenizer,
) -> None:
    song = make_songs(1)[0]
    encoder = make_encoder(chatml_tokenizer, 40)
    groups = encoder.encode(song, make_examples(song))
    assert groups == []
    with pytest.raises(
        ConfigError, match=r"seq_len 40 is shorter than any prompt.*Set encode\.seq_len to 256"
    ):
        check_row_length(encoder, len(groups))
    longer = make_encoder(chatml_tokenizer, 256)
    check_row_length(longer, len(longer.encode(song, make_examples(song))))


def test_a_row_that_only_some_songs_do_not_fit_is_not_refused(chatml_tokenizer: TextTokenizer) -> None:
    encoder = make_encoder(chatml_tokenizer, 128)
    encoder.encode(Song("s", "la " * 200), make_examples(make_songs(1)[0]))
    check_row_length(encoder, 0)


def ask_many(songs: Sequence[Song]) -> list[list[Example]]:
    return [make_examples(song) for song in songs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seq_len", [150, 256, 512])
def test_a_chunk_gives_the_groups_of_each_song_alone(family: Family, seq_len: int) -> None:
    tokenizer = make_tokenizer(family)
    songs = [*make_songs(5), LONG_SONG, *make_songs(7, seed=2, num_lines=20)]
    together, alone = make_encoder(tokenizer, seq_len), make_encoder(tokenizer, seq_len)
    encoded = together.encode_songs(songs, ask_many)
    for song, whole in zip(songs, encoded, strict=True):
        fitted = alone.fit_song(song, make_examples)
        assert fitted is not None
        assert (whole.song, whole.asked) == (fitted[0], frozenset(TASKS))
        for ours, theirs in zip(whole.groups, alone.encode(*fitted), strict=True):
            assert ours.input_ids.tolist() == theirs.input_ids.tolist()
            assert ours.label_mask.tolist() == theirs.label_mask.tolist()
    assert together.counts == alone.counts


def test_a_cut_song_is_asked_again_about_what_is_left(chatml_tokenizer: TextTokenizer) -> None:
    def count_lines(songs: Sequence[Song]) -> list[list[Example]]:
        return [
            [Example("themes", "How many lines?", f"{song.lyrics.count(chr(10)) + 1} lines")]
            for song in songs
        ]

    (encoded,) = make_encoder(chatml_tokenizer, 200).encode_songs([LONG_SONG], count_lines)
    num_lines = encoded.song.lyrics.count("\n") + 1
    assert 1 < num_lines < 60
    text = chatml_tokenizer.decode(encoded.groups[0].input_ids.tolist())
    assert text.endswith(f"{num_lines} lines<|im_end|>")


def test_an_answer_longer_than_the_row_is_dropped_and_the_others_stay(
    chatml_tokenizer: TextTokenizer,
) -> None:
    song = make_songs(1)[0]
    examples = [*make_examples(song), Example("themes", "Tell all", "word " * 400)]
    encoder = make_encoder(chatml_tokenizer, 300)
    groups = encoder.encode(song, examples)
    assert_examples_are_whole(chatml_tokenizer, song, examples[:-1], groups)
    assert encoder.counts.examples_dropped == {
        "question and answer leave no room for a line of the lyrics": 1
    }
    assert encoder.counts.dropped == {}
    assert make_encoder(chatml_tokenizer, 8192).encode(song, examples)[0].num_examples == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_an_example_without_lyrics_is_a_root_of_its_own(family: Family) -> None:
    tokenizer, song = make_tokenizer(family), make_songs(1)[0]
    write = Example("themes", "Write lyrics in the style of Ada Vale.", song.lyrics, with_lyrics=False)
    encoder = make_encoder(tokenizer)
    (encoded,) = encoder.encode_songs([song], lambda _: [[*make_examples(song), write]])
    group, alone = encoded.groups
    prompt = find_format(tokenizer)
    asked = encode_pieces(tokenizer, prompt.without_lyrics(write.instruction))
    answer = encode_pieces(tokenizer, prompt.answer(song.lyrics))
    assert group.parents.tolist() == [ROOT, 0, 0, 0, 0]
    assert (alone.parents.tolist(), alone.tasks.tolist()) == ([ROOT], [TASKS.index("themes")])
    assert alone.input_ids.tolist() == asked + answer
    assert labels(alone).tolist() == [IGNORE_INDEX] * len(asked) + answer
    check_row(alone, tokenizer.vocab_size)
    assert (encoder.counts.shared, encoder.counts.without_lyrics) == (4, 1)
    short = make_encoder(tokenizer, len(asked) + len(answer) - 1)
    short.encode(song, [write])
    assert short.counts.dropped == {"an example stored whole does not fit the row": 1}


def test_one_song_of_a_hundred_is_compared_in_full(chatml_tokenizer: TextTokenizer) -> None:
    encoder = make_encoder(chatml_tokenizer)
    songs = [replace(make_songs(1)[0], id=f"song-{i}") for i in range(2_000)]
    checked = [song for song in songs if is_checked_in_full(song.id)]
    assert 10 <= len(checked) <= 35
    encoder.encode_songs(songs[:300], ask_many)
    assert encoder.counts.seams_checked == sum(is_checked_in_full(song.id) for song in songs[:300])
    assert encoder.counts.seams_differing == 0


def test_a_seam_that_breaks_its_promise_is_found_counted_and_not_stored(
    merging_tokenizer: TextTokenizer,
) -> None:
    encoder = make_encoder(merging_tokenizer, 1024)
    encoder._seam_is_constant = True
    encoder._questions._kept = {
        (example.instruction, True): (
            encode_pieces(merging_tokenizer, find_format(merging_tokenizer).question(example.instruction)),
            True,
        )
        for example in make_examples(make_songs(1)[0])
    }
    number = next(i for i in range(1_000) if is_checked_in_full(f"song-{i}"))
    song = replace(make_songs(1)[0], id=f"song-{number}")
    groups = encoder.encode(song, make_examples(song))
    assert_examples_are_whole(merging_tokenizer, song, make_examples(song), groups)
    assert (encoder.counts.seams_differing, encoder.counts.alone, encoder.counts.shared) == (1, 4, 0)


def test_only_tokenizers_with_a_known_split_have_a_constant_seam(
    merging_tokenizer: TextTokenizer, chatml_tokenizer: TextTokenizer, smollm2: TextTokenizer
) -> None:
    assert is_constant(chatml_tokenizer)
    assert is_constant(smollm2)
    assert not is_constant(merging_tokenizer)


def test_counts_add_up_and_survive_a_file(chatml_tokenizer: TextTokenizer) -> None:
    whole, parts = make_encoder(chatml_tokenizer, 150), EncodeCounts()
    songs = [*make_songs(6), LONG_SONG, Song("s", "la " * 200, artist="A", genre="Pop", year=1990)]
    whole.encode_songs(songs, ask_many)
    for song in reversed(songs):
        part = make_encoder(chatml_tokenizer, 150)
        part.encode_songs([song], ask_many)
        parts.merge(EncodeCounts.from_state(json.loads(json.dumps(part.counts.to_state()))))
    assert parts == whole.counts
    assert parts.songs_cut >= 1
    assert parts.dropped.total() >= 1


def test_a_one_line_song_is_kept_whole_or_dropped(chatml_tokenizer: TextTokenizer) -> None:
    song = replace(make_songs(1)[0], lyrics="la " * 30)
    (group,) = make_encoder(chatml_tokenizer).encode(song, make_examples(song))
    assert_examples_are_whole(chatml_tokenizer, song, make_examples(song), [group])
    encoder = make_encoder(chatml_tokenizer, len(group.input_ids[: group.seq_lens[0]]))
    assert encoder.encode(song, make_examples(song)) == []
