from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from preprocess.corpus import generate_songs
from preprocess.errors import ConfigError
from preprocess.tokenizer import (
    LLAMA3_NUM_TEXT_TOKENS,
    LLAMA3_SPECIAL_TOKENS,
    MUSIC_TOKENS,
    TextTokenizer,
    add_music_tokens,
    load_tokenizer,
)
from preprocess.tokenizer.engines import contraction_difference, every_character
from preprocess.tokenizer.fast import Verdict
from tests.toys import SPECIAL_TOKENS, Family, make_tokenizer

MULTI_SCRIPT_TEXTS = (
    "Hello darkness, my old friend\nI've come to talk with you again",
    "  leading, trailing  \n\n\nand   inner   spaces\t\ttabs ",
    "C'est l'été — « déjà vu » naïve, I'LL we'Ve don't 1234567 3.14",
    "雨の夜に歌を聴く。我愛你、中國人",
    "Дорога домой, ночь без сна",
    "شمس الليل والقمر",
    "हिन्दी गीत के बोल",
    "노래 가사 사랑해",
    "😀\U0001f469\u200d\U0001f467 ♪♫ e\u0301 \ufb01 \uff57\uff49\uff44\uff45 \u200b\u00a0",
    "\r\nWindows lines\r\n\r\nCR\ronly",
    "",
)
INJECTIONS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|im_start|>",
)


def ids_of(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


def test_a_gguf_gives_the_ids_of_transformers(smollm2: TextTokenizer, smollm2_gguf: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    expected = [theirs.encode(text, add_special_tokens=False) for text in MULTI_SCRIPT_TEXTS]
    assert ids_of(smollm2, MULTI_SCRIPT_TEXTS) == expected
    assert smollm2.vocab_size == len(theirs) == 49_152
    for token in SPECIAL_TOKENS["chatml"]:
        assert smollm2.special_id(token) == theirs.convert_tokens_to_ids(token)


def test_a_gguf_of_smollm2_keeps_each_digit_apart_as_its_tokenizer_json_does(smollm2: TextTokenizer) -> None:
    """transformers' reading of the GGUF forgets this rule, which shows only in digits beyond 0 … 9."""
    for digits in ("\u00b2\u00b3", "\u0661\u0662"):
        apart = [smollm2.encode(character) for character in f" {digits}"]
        assert smollm2.encode(f" {digits}") == [token_id for ids in apart for token_id in ids]
    unsplit = json.loads(smollm2.to_json())
    unsplit["pre_tokenizer"] = unsplit["pre_tokenizer"]["pretokenizers"][-1]
    control = TextTokenizer(Tokenizer.from_str(json.dumps(unsplit)), "unsplit")
    assert control.encode(" \u00b2") != smollm2.encode(" \u00b2")
    assert control.encode(" 1234") == smollm2.encode(" 1234")


def test_the_comparison_of_ids_would_see_another_pre_tokenizer(smollm2: TextTokenizer) -> None:
    value = json.loads(smollm2.to_json())
    byte_level = value["pre_tokenizer"]["pretokenizers"][-1]
    assert byte_level["use_regex"] is True
    byte_level["use_regex"] = False
    other = TextTokenizer(Tokenizer.from_str(json.dumps(value)), "without the split into words")
    assert ids_of(other, MULTI_SCRIPT_TEXTS) != ids_of(smollm2, MULTI_SCRIPT_TEXTS)


def test_tokenizer_model_and_tokenizer_json_give_the_same_llama_3_ids(
    llama3_from_model: TextTokenizer, llama3_from_json: TextTokenizer
) -> None:
    assert ids_of(llama3_from_model, MULTI_SCRIPT_TEXTS) == ids_of(llama3_from_json, MULTI_SCRIPT_TEXTS)
    assert llama3_from_model.vocab_size == 128_256
    for token in LLAMA3_SPECIAL_TOKENS[
        :11
    ]:  # those in use; the names of reserved ones differ between releases
        assert llama3_from_model.special_id(token) == llama3_from_json.special_id(token)


def test_each_llama_3_token_s_own_text_is_one_token(llama3_from_model: TextTokenizer) -> None:
    """As in tiktoken, which looks a word up whole before it merges pairs.

    Some `tokenizer.json` in circulation lack `ignore_merges` and split such words; hub copies from Meta have it.
    """
    texts = {i: llama3_from_model.decode([i]) for i in range(0, LLAMA3_NUM_TEXT_TOKENS, 8)}
    texts = {i: text for i, text in texts.items() if "\N{REPLACEMENT CHARACTER}" not in text}
    assert len(texts) > 15_000
    ids = llama3_from_model.encode_batch(list(texts.values()))
    assert [i for i, own in zip(texts, ids, strict=True) if own != [i]] == []
    merging = json.loads(llama3_from_model.to_json())
    merging["model"]["ignore_merges"] = False
    control = TextTokenizer(Tokenizer.from_str(json.dumps(merging)), "merging")
    assert len(control.encode(" vi\u1ec7c")) == 3
    assert len(llama3_from_model.encode(" vi\u1ec7c")) == 1


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_tokenizer_model_and_tokenizer_json_agree_on_any_text(
    llama3_from_model: TextTokenizer, llama3_from_json: TextTokenizer, text: str
) -> None:
    assert llama3_from_model.encode(text) == llama3_from_json.encode(text)


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
def test_special_tokens_in_lyrics_stay_text(family: Family) -> None:
    tokenizer = make_tokenizer(family)
    special_ids = {tokenizer.special_id(token) for token in SPECIAL_TOKENS[family]}
    text = "la la " + " ".join(INJECTIONS) + " la"
    ids = tokenizer.encode(text)
    assert not special_ids & set(ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "la"]) == [ids, tokenizer.encode("la")]


def test_without_the_switch_the_same_lyrics_would_hold_a_special_token(
    chatml_tokenizer: TextTokenizer,
) -> None:
    backend = Tokenizer.from_str(chatml_tokenizer.to_json())
    backend.encode_special_tokens = False
    assert chatml_tokenizer.special_id("<|im_end|>") in backend.encode("la <|im_end|> la").ids


def test_special_tokens_in_lyrics_stay_text_for_real_tokenizers(
    smollm2: TextTokenizer, llama3_from_model: TextTokenizer, llama3_from_json: TextTokenizer
) -> None:
    text = "".join(INJECTIONS)
    for tokenizer in (smollm2, llama3_from_model, llama3_from_json):
        special = {i for i, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special}
        assert not special & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_survives_the_round_trip(text: str) -> None:
    tokenizer = make_tokenizer("chatml")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_truncation_and_padding_kept_in_a_file_are_switched_off(tmp_path: Path) -> None:
    backend = Tokenizer.from_str(make_tokenizer("chatml").to_json())
    backend.enable_truncation(max_length=3)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "Sing me a song of the road and the rain"
    assert load_tokenizer(tmp_path).encode(text) == make_tokenizer("chatml").encode(text)
    assert len(load_tokenizer(tmp_path).encode(text)) > 3
    assert len(load_tokenizer(tmp_path).encode("a")) == 1


def test_saving_and_loading_keeps_the_hash(tmp_path: Path, chatml_tokenizer: TextTokenizer) -> None:
    (tmp_path / "tokenizer.json").write_text(chatml_tokenizer.to_json(), encoding="utf-8")
    assert load_tokenizer(tmp_path).sha256 == chatml_tokenizer.sha256
    assert load_tokenizer(tmp_path / "tokenizer.json").sha256 == chatml_tokenizer.sha256
    assert make_tokenizer("llama3").sha256 != chatml_tokenizer.sha256


def test_a_token_that_is_missing_is_named(chatml_tokenizer: TextTokenizer) -> None:
    assert not chatml_tokenizer.has_token("<|eot_id|>")
    with pytest.raises(ConfigError, match=r"toy-chatml has no token '<\|eot_id\|>'"):
        chatml_tokenizer.special_id("<|eot_id|>")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"not json"),
        ("tokenizer.json", b""),
        ("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00 sentencepiece"),
        ("tokenizer.model", b"IQ== zero\n"),
        ("tokenizer.model", b"!!!! 0\n"),
        ("tokenizer.model", b"IQ==\n"),
        ("tokenizer.model", b""),
        ("model.gguf", b"GGUF"),
        ("model.gguf", b"not a gguf at all, but long enough for a header of one"),
    ],
)
def test_a_malformed_file_is_a_config_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_tokenizer(tmp_path / name)


def test_a_tokenizer_model_cut_at_a_line_end_is_refused(tmp_path: Path, llama3_model_tokenizer: Path) -> None:
    lines = llama3_model_tokenizer.read_bytes().splitlines(keepends=True)
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ConfigError, match=r"127,999 tokens, expected Llama 3's 128,000"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["./nothing", "/nowhere/tokenizer.json", "a/b/c", "toy.gguf", "~/models"])
def test_a_missing_path_is_not_taken_for_a_hub_id(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(
        "preprocess.tokenizer.load._load_from_hub", lambda _name: pytest.fail("asked the hub")
    )
    with pytest.raises(ConfigError, match="no such file or folder"):
        load_tokenizer(name)


def test_a_folder_without_a_tokenizer_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither tokenizer\.json nor tokenizer\.model nor tekken"):
        load_tokenizer(tmp_path)


class FakeTokenizer:
    """Stands where `tokenizers.Tokenizer` stands, for the hub path."""

    error: Exception | None = None
    asked: list[str]

    @classmethod
    def from_pretrained(cls, name: str) -> Any:
        cls.asked.append(name)
        if cls.error is not None:
            raise cls.error
        return Tokenizer.from_str(make_tokenizer("llama3").to_json())


def test_a_hub_id_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTokenizer, "asked", [], raising=False)
    monkeypatch.setattr("preprocess.tokenizer.load.Tokenizer", FakeTokenizer)
    tokenizer = load_tokenizer("some-lab/some-model")
    assert FakeTokenizer.asked == ["some-lab/some-model"]
    assert tokenizer.sha256 == make_tokenizer("llama3").sha256
    assert tokenizer.source == "some-lab/some-model"


@pytest.mark.parametrize("error", [OSError("no route\nmore lines"), RuntimeError(""), ValueError("gated")])
def test_a_hub_that_does_not_answer_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(FakeTokenizer, "asked", [], raising=False)
    monkeypatch.setattr(FakeTokenizer, "error", error)
    monkeypatch.setattr("preprocess.tokenizer.load.Tokenizer", FakeTokenizer)
    with pytest.raises(ConfigError, match=r"Pass a folder with tokenizer\.json") as raised:
        load_tokenizer("some-lab/some-model")
    assert "\n" not in str(raised.value)


HYMNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymns.jsonl"
HARD_TEXTS = (
    *MULTI_SCRIPT_TEXTS,
    *INJECTIONS,
    "! \n" * 2_000,
    "\x00\x04\x13 control \U00040000\U000e0001\ufffe",
    "d'\u017f 'LL '\u212a",
)
LONG_TEXTS = (
    "a" * 110_000,
    " " * 110_000 + "a",
    "\n" * 110_000,
    "la " * 40_000,
    "雨" * 5_000,
)


def slow_ids(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """What `tokenizers` itself gives."""
    return [e.ids for e in tokenizer.backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def fast(tokenizer: TextTokenizer) -> TextTokenizer:
    assert tokenizer.fast_path == "tiktoken"
    tokenizer.prepare()
    return tokenizer


def test_the_fast_path_gives_the_ids_of_tokenizers(
    smollm2: TextTokenizer, llama3_from_model: TextTokenizer, llama3_from_json: TextTokenizer
) -> None:
    for tokenizer in (smollm2, llama3_from_model, llama3_from_json):
        assert fast(tokenizer).encode_batch(HARD_TEXTS) == slow_ids(tokenizer, HARD_TEXTS)
        assert ids_of(tokenizer, HARD_TEXTS[:20]) == slow_ids(tokenizer, HARD_TEXTS[:20])


@pytest.mark.skipif(not HYMNS.is_file(), reason="hymns.jsonl is not here")
def test_the_fast_path_gives_the_ids_of_hymns(
    smollm2: TextTokenizer, llama3_from_json: TextTokenizer
) -> None:
    songs = [json.loads(line)["lyrics"] for line in HYMNS.read_text(encoding="utf-8").splitlines()]
    assert len(songs) == 280
    for tokenizer in (smollm2, llama3_from_json):
        assert fast(tokenizer).encode_batch(songs) == slow_ids(tokenizer, songs)


def test_the_fast_path_gives_the_ids_of_made_up_songs(
    smollm2: TextTokenizer, llama3_from_model: TextTokenizer
) -> None:
    songs = [song.lyrics for song in generate_songs(300, seed=5)]
    for tokenizer in (smollm2, llama3_from_model):
        assert fast(tokenizer).encode_batch(songs) == slow_ids(tokenizer, songs)


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.text(" \n\r\t'sStTlLrReEvVmMdD1\u00b2\u0661é雨!/\u0301\u017f\u00a0", max_size=30),
    )
)
def test_the_fast_path_agrees_on_any_text(
    smollm2: TextTokenizer, llama3_from_model: TextTokenizer, llama3_from_json: TextTokenizer, text: str
) -> None:
    for tokenizer in (smollm2, llama3_from_model, llama3_from_json):
        assert [fast(tokenizer).encode(text)] == slow_ids(tokenizer, [text])


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
def test_a_toy_tokenizer_has_the_fast_path_too(family: Family) -> None:
    tokenizer = make_tokenizer(family)
    texts = [*HARD_TEXTS, *LONG_TEXTS]
    assert fast(tokenizer).encode_batch(texts) == slow_ids(tokenizer, texts)


def test_words_that_no_merge_makes_are_kept_from_the_fast_path(llama3_from_json: TextTokenizer) -> None:
    """This `tokenizer.json` lacks `ignore_merges`: 588 of its tokens are words that it splits."""
    left_out = fast(llama3_from_json)._judge().left_out
    assert len(left_out) == 588
    assert len(llama3_from_json.encode(" vi\u1ec7c")) == 3


@pytest.mark.parametrize("token", ["a b", "\u2581a"])
def test_a_vocabulary_that_is_not_spelled_in_bytes_is_left_to_tokenizers(
    chatml_tokenizer: TextTokenizer, token: str
) -> None:
    tokenizer = altered(chatml_tokenizer, lambda value: value["model"]["vocab"].update({token: 9_000}))
    assert tokenizer.fast_path == "tokenizers: its vocabulary is not spelled in bytes"


def test_contractions_match_the_same_in_both_engines_for_every_character() -> None:
    text = "".join(f"'{char}" for char in every_character())
    assert contraction_difference(text) == 0


def altered(tokenizer: TextTokenizer, change: Callable[[dict[str, Any]], None]) -> TextTokenizer:
    value = json.loads(tokenizer.to_json())
    change(value)
    return TextTokenizer(Tokenizer.from_str(json.dumps(value)), "altered")


def swap_merges(value: dict[str, Any]) -> None:
    merges = value["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


def reverse_merges(value: dict[str, Any]) -> None:
    value["model"]["merges"].reverse()


def split_off_words(value: dict[str, Any]) -> None:
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, {**value["pre_tokenizer"], "use_regex": False}],
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (split_off_words, "tokenizers: not a byte-level BPE that splits words by a known pattern"),
        (lambda v: v["pre_tokenizer"].update(add_prefix_space=True), "tokenizers: not a byte-level BPE"),
        (lambda v: v["model"].update(dropout=0.1), "tokenizers: its BPE has options"),
        (swap_merges, "tokenizers: its merges are not in the order of its ids"),
        (
            lambda v: v["model"].update(ignore_merges=True, merges=v["model"]["merges"][:-1]),
            "pairs that make",
        ),
    ],
)
def test_a_tokenizer_that_tiktoken_cannot_stand_in_for_says_why(
    chatml_tokenizer: TextTokenizer, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    tokenizer = altered(chatml_tokenizer, change)
    assert reason in tokenizer.fast_path
    tokenizer.prepare()
    if "dropout" not in tokenizer.to_json() or "0.1" not in tokenizer.to_json():
        assert ids_of(tokenizer, MULTI_SCRIPT_TEXTS) == slow_ids(tokenizer, MULTI_SCRIPT_TEXTS)


def test_the_probes_alone_see_a_difference_in_ids(
    monkeypatch: pytest.MonkeyPatch, chatml_tokenizer: TextTokenizer
) -> None:
    monkeypatch.setattr("preprocess.tokenizer.judge._verdicts", {})
    monkeypatch.setattr("preprocess.tokenizer.judge._order_problem", lambda *_, **__: None)
    monkeypatch.setattr("preprocess.tokenizer.judge._not_reached", lambda *_, **__: ())
    assert "of the probed texts differ" in altered(chatml_tokenizer, reverse_merges).fast_path


def test_an_added_token_that_is_read_out_of_text_is_left_to_tokenizers(
    chatml_tokenizer: TextTokenizer,
) -> None:
    backend = Tokenizer.from_str(chatml_tokenizer.to_json())
    backend.add_tokens(["oh yeah"])
    tokenizer = fast(TextTokenizer(backend, "added"))
    texts = ["sing oh yeah now", "sing oh no"]
    assert tokenizer.encode_batch(texts) == slow_ids(tokenizer, texts)
    assert backend.token_to_id("oh yeah") in tokenizer.encode(texts[0])


def test_a_normaliser_is_applied_on_the_fast_path(chatml_tokenizer: TextTokenizer) -> None:
    tokenizer = fast(altered(chatml_tokenizer, lambda value: value.update(normalizer={"type": "NFC"})))
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é") == slow_ids(tokenizer, ["e\u0301"])[0]
    assert chatml_tokenizer.encode("e\u0301") != tokenizer.encode("e\u0301")


def test_half_a_surrogate_pair_is_an_error_on_both_paths(chatml_tokenizer: TextTokenizer) -> None:
    for tokenizer in (chatml_tokenizer, fast(make_tokenizer("chatml"))):
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode("la \ud800 la")
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode_batch(["la", "la \ud800 la"])


def test_a_pickled_tokenizer_keeps_its_ids_and_its_verdict(
    monkeypatch: pytest.MonkeyPatch, llama3_from_json: TextTokenizer
) -> None:
    data = pickle.dumps(fast(llama3_from_json))
    monkeypatch.setattr("preprocess.tokenizer.text.judge", lambda *_: pytest.fail("judged again"))
    copy: TextTokenizer = pickle.loads(data)
    assert (copy.fast_path, copy.sha256) == ("tiktoken", llama3_from_json.sha256)
    copy.prepare()
    assert ids_of(copy, MULTI_SCRIPT_TEXTS) == ids_of(llama3_from_json, MULTI_SCRIPT_TEXTS)


def test_a_few_texts_do_not_set_up_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    tokenizer = make_tokenizer("chatml")
    judge = TextTokenizer._judge

    def note(self: TextTokenizer) -> Verdict:
        asked.append("judge")
        return judge(self)

    monkeypatch.setattr(TextTokenizer, "_judge", note)
    tokenizer.encode("la la")
    assert asked == []
    tokenizer.encode("la la " * 50_000)
    assert asked == ["judge"]


def test_music_tokens_follow_the_vocabulary_and_never_come_out_of_text(
    chatml_tokenizer: TextTokenizer,
) -> None:
    tokenizer = add_music_tokens(chatml_tokenizer)
    size = chatml_tokenizer.vocab_size
    assert [tokenizer.special_id(token) for token in MUSIC_TOKENS] == list(range(size, size + 7))
    assert tokenizer.vocab_size == size + 7
    text = "[VERSE] la [CHORUS]"
    assert tokenizer.encode(text) == fast(tokenizer).encode(text) == chatml_tokenizer.encode(text)
    assert add_music_tokens(tokenizer).sha256 == tokenizer.sha256
    assert not chatml_tokenizer.has_token("[VERSE]")
