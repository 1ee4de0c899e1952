"""The music tokens: names of facts and sections as single tokens of the vocabulary. Off unless asked for."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer

from preprocess.tokenizer.text import TextTokenizer

SECTION_TOKENS = ("[VERSE]", "[CHORUS]", "[BRIDGE]")
"""Tokens that stand where a line of the lyrics is this heading and nothing else."""

MUSIC_TOKENS = ("[ARTIST]", "[GENRE]", "[THEME]", "[ERA]", *SECTION_TOKENS)


def add_music_tokens(tokenizer: TextTokenizer) -> TextTokenizer:
    """A tokenizer with the music tokens, their ids after the last of its vocabulary.

    What they cost: the model's embedding and head must grow by seven rows, and those rows must be trained, so an
    adapter carries their rows. vLLM and llama.cpp refuse such an adapter; only a merged model serves.
    As text each heading takes two to four tokens, so what they save is little.

    Args:
        tokenizer: Not changed. Music tokens that it has already keep their ids.
    """
    backend = Tokenizer.from_str(tokenizer.to_json())
    missing = [token for token in MUSIC_TOKENS if not tokenizer.has_added_token(token)]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return TextTokenizer(backend, tokenizer.source, chat_template=tokenizer.chat_template)
