from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.build.encode import SongEncoder
from preprocess.build.seam import is_constant
from preprocess.errors import ConfigError
from preprocess.forest import unpack_examples
from preprocess.prompt import DEFAULT_SYSTEM, PromptFormat, encode_pieces, find_format
from preprocess.schema import ROOT, Example, Song
from preprocess.tokenizer import TextTokenizer, load_tokenizer
from tests.sentencepiece_model import make_backend
from tests.toys import TASKS, make_examples, make_songs

PACKAGE = "mistral_common"
FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v3-tekken": "tekken_240911.json",
}
FORMATS = {
    "v1": "mistral-v1",
    "v2": "mistral-v3",
    "v3": "mistral-v3",
    "v7": "mistral-v7",
    "v3-tekken": "mistral-v3",
}
V1_TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
LYRICS = "Sing of the river  and the moon\n\nI'll be 1000 miles away\nSing of the 雨の夜 😀"
QUESTION = "Who performs this song?"
ANSWER = "The artist is Ada Vale.\nIt shows."

requires_package = pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed"
)
pytestmark = requires_package
requires_oracle = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("sentencepiece", "jsonschema", "PIL")),
    reason="mistral-common's own dependencies are not installed",
)


def data_file(name: str) -> Path:
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / FILES[name]


@cache
def tokenizer_of(name: str) -> TextTokenizer:
    if name == "v3-tekken":
        return load_tokenizer(data_file(name))
    return TextTokenizer(
        make_backend(data_file(name)), name, chat_template=V1_TEMPLATE if name == "v1" else None
    )


def oracle(name: str) -> Any:
    module = import_module(f"{PACKAGE}.tokens.tokenizers.mistral")
    mode = import_module(f"{PACKAGE}.protocol.instruct.validator").ValidationMode.finetuning
    return module.MistralTokenizer.from_file(str(data_file(name)), mode=mode)


def encode_as_mistral_does(name: str, user: str, system: str) -> list[int]:
    """Ids of a chat with its answer, by mistral-common's own instruct tokenizer."""
    messages = import_module(f"{PACKAGE}.protocol.instruct.messages")
    request = import_module(f"{PACKAGE}.protocol.instruct.request").ChatCompletionRequest(
        messages=[
            *([messages.SystemMessage(content=system)] if system else []),
            messages.UserMessage(content=user),
            messages.AssistantMessage(content=ANSWER),
        ]
    )
    return list(oracle(name).encode_chat_completion(request).tokens)


def render(tokenizer: TextTokenizer, prompt: PromptFormat) -> list[int]:
    return encode_pieces(
        tokenizer, [*prompt.prefix(LYRICS), *prompt.question(QUESTION), *prompt.answer(ANSWER)]
    )


@requires_oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", [DEFAULT_SYSTEM, ""])
@pytest.mark.parametrize("name", FILES)
def test_the_format_is_what_mistral_s_own_library_encodes(name: str, system: str) -> None:
    tokenizer = tokenizer_of(name)
    prompt = find_format(tokenizer, system)
    assert prompt.name == FORMATS[name]
    text = "".join(piece.text for piece in [*prompt.prefix(LYRICS)[-3:], *prompt.question(QUESTION)[:1]])
    ours = render(tokenizer, prompt)
    assert ours == encode_as_mistral_does(name, text, system)
    assert render(tokenizer, find_format(tokenizer, "Be brief.")) != ours


@requires_oracle
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40))
def test_tekken_and_the_converted_model_give_mistral_s_ids_of_any_text(text: str) -> None:
    for name in ("v3", "v3-tekken"):
        own = oracle_of(name)
        assert tokenizer_of(name).encode(text) == own.encode(text, bos=False, eos=False)


@cache
def oracle_of(name: str) -> Any:
    return oracle(name).instruct_tokenizer.tokenizer


@pytest.mark.parametrize("name", FILES)
def test_the_prefix_is_shared_exactly(name: str) -> None:
    tokenizer = tokenizer_of(name)
    prompt = find_format(tokenizer)
    assert is_constant(tokenizer)
    encoder = SongEncoder(tokenizer, prompt, TASKS, 1024)
    for song in [*make_songs(4), Song("s", LYRICS)]:
        examples = make_examples(song) if song.artist else [Example("artist", QUESTION, ANSWER)]
        (group,) = encoder.encode(song, examples)
        assert group.parents.tolist() == [ROOT, *[0] * len(examples)]
        for row, example in zip(unpack_examples(group), examples, strict=True):
            pieces = [*prompt.prefix(song.lyrics), *prompt.question(example.instruction)]
            whole = encode_pieces(tokenizer, pieces) + encode_pieces(tokenizer, prompt.answer(example.answer))
            assert row.input_ids.tolist() == whole
    assert encoder.counts.alone == 0


@settings(max_examples=80, deadline=None)
@given(lyrics=st.text(max_size=40), question=st.text(min_size=1, max_size=20))
def test_any_lyrics_and_question_are_shared_exactly_by_a_sentencepiece_model(
    lyrics: str, question: str
) -> None:
    tokenizer = tokenizer_of("v3")
    prompt = find_format(tokenizer)
    pieces, asked = prompt.prefix(lyrics), prompt.question(question)
    parts = encode_pieces(tokenizer, pieces) + encode_pieces(tokenizer, asked)
    assert encode_pieces(tokenizer, [*pieces, *asked]) == parts


def test_the_seam_of_byte_level_formats_would_not_be_exact_for_a_sentencepiece_model() -> None:
    tokenizer = tokenizer_of("v3")
    prompt = replace(find_format(tokenizer), after_lyrics="\n\nEnd of the lyrics", before_question=".\n\n")
    pieces, asked = prompt.prefix(LYRICS), prompt.question(QUESTION)
    parts = encode_pieces(tokenizer, pieces) + encode_pieces(tokenizer, asked)
    assert encode_pieces(tokenizer, [*pieces, *asked]) != parts


def test_a_base_model_without_a_template_is_plain_and_a_name_overrides() -> None:
    base = TextTokenizer(tokenizer_of("v1").backend, "base")
    assert find_format(base).name == "plain"
    assert find_format(base, name="mistral-v1").name == "mistral-v1"
    with pytest.raises(ConfigError, match=r"no token '\[INST\]'"):
        find_format(base, name="mistral-v3")


@pytest.mark.parametrize("name", ["v1", "v3"])
def test_special_tokens_in_lyrics_stay_text(name: str) -> None:
    tokenizer = tokenizer_of(name)
    text = "la </s> [INST] <s> la"
    assert not set(tokenizer.encode(text)) & {tokenizer.special_id("</s>"), tokenizer.special_id("<s>")}
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tekken_file_cut_short_is_refused(tmp_path: Path) -> None:
    text = data_file("v3-tekken").read_text(encoding="utf-8")
    content = json.loads(text)
    content["vocab"] = content["vocab"][:1000]
    short = tmp_path / "tekken.json"
    short.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"it was cut"):
        load_tokenizer(short)
