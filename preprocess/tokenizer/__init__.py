"""Tokenizers: loaded from a file, a folder, a GGUF model or a hub id, exact, and fast where a fast path is proven."""

from preprocess.tokenizer.byte_level import (
    LLAMA3_NUM_TEXT_TOKENS,
    LLAMA3_PATTERN,
    LLAMA3_SPECIAL_TOKENS,
)
from preprocess.tokenizer.load import PACKAGE_PREFIX, load_tokenizer, locate_source
from preprocess.tokenizer.music import MUSIC_TOKENS, SECTION_TOKENS, add_music_tokens
from preprocess.tokenizer.text import TextTokenizer

__all__ = [
    "LLAMA3_NUM_TEXT_TOKENS",
    "LLAMA3_PATTERN",
    "LLAMA3_SPECIAL_TOKENS",
    "MUSIC_TOKENS",
    "PACKAGE_PREFIX",
    "SECTION_TOKENS",
    "TextTokenizer",
    "add_music_tokens",
    "load_tokenizer",
    "locate_source",
]
