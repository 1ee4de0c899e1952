"""The tokenizer that everything else uses: exact ids, and no special token out of text.

Text is encoded with special tokens switched off: a lyric that contains the characters ``<|im_end|>`` becomes
ordinary tokens. Special tokens enter only by id, through :meth:`TextTokenizer.special_id`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from preprocess.errors import ConfigError
from preprocess.tokenizer.fast import FastEncoder, Verdict
from preprocess.tokenizer.judge import judge

_CHARS_BEFORE_FAST = 200_000
"""Characters that are encoded before the fast path is set up, which takes as long as encoding about so many."""


class TextTokenizer:
    """A `tokenizers` backend that never reads a special token out of text, and a faster one with the same ids.

    It pickles; a copy in another process keeps the verdict on the fast path and does not judge again.

    Attributes:
        backend: The Hugging Face fast tokenizer.
        source: What the user asked for (a path or a hub id).
        chat_template: The Jinja template that came with it, or None.
    """

    def __init__(
        self,
        backend: Tokenizer,
        source: str,
        *,
        chat_template: str | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self.backend = backend
        self.source = source
        self.chat_template = chat_template
        self._verdict = verdict
        self._fast: FastEncoder | None = None
        self._chars_until_fast = _CHARS_BEFORE_FAST

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.to_json(), self.source, self.chat_template, self._verdict)

    @cached_property
    def sha256(self) -> str:
        """Hash of the backend's JSON, the tokenizer's identity."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def fast_path(self) -> str:
        """Where ids come from: "tiktoken", or "tokenizers: " and why. The same for the same tokenizer."""
        return self._judge().name

    @cached_property
    def prepends_space(self) -> bool:
        """Whether a text is read as if a space stood before it, as sentencepiece does."""
        text = "a" if self.backend.normalizer is None else self.backend.normalizer.normalize_str("a")
        if self.backend.pre_tokenizer is not None:
            text = "".join(word for word, _ in self.backend.pre_tokenizer.pre_tokenize_str(text))
        return text != "a" and text.endswith("a")

    def to_json(self) -> str:
        """The backend as the text of a `tokenizer.json`."""
        return str(self.backend.to_str())

    def prepare(self) -> None:
        """Judge and set up the fast path now, where it would come with the first few hundred songs.

        Called before the tokenizer is handed to other processes, it spares them the judging.
        """
        verdict = self._judge()
        if verdict.pattern is not None and self._fast is None:
            self._fast = FastEncoder(self.backend, verdict)
        self._chars_until_fast = 0

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without special tokens.

        Raises:
            UnicodeEncodeError: The text holds half of a surrogate pair.
        """
        fast = self._fast_for(len(text))
        if fast is not None and fast.takes(text):
            return fast.encode(text)
        return list(self.backend.encode(_well_formed(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, without special tokens.

        Raises:
            UnicodeEncodeError: A text holds half of a surrogate pair.
        """
        fast = self._fast_for(sum(map(len, texts)))
        if fast is not None:
            return [fast.encode(text) if fast.takes(text) else self.encode(text) for text in texts]
        encodings = self.backend.encode_batch_fast([_well_formed(t) for t in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of a text that goes on after another one.

        A tokenizer that reads a space before every text is given the text without its own: `text` must begin
        with one for the ids to be those of the whole.
        """
        return self.encode(text.removeprefix(" ") if self.prepends_space else text)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of some ids."""
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens))

    def has_token(self, token: str) -> bool:
        """Whether the vocabulary holds this very token."""
        return self.backend.token_to_id(token) is not None

    def has_added_token(self, token: str) -> bool:
        """Whether this is a token that was added to the vocabulary, as special ones are."""
        return any(added.content == token for added in self.backend.get_added_tokens_decoder().values())

    def special_id(self, token: str) -> int:
        """Id of a special token.

        Raises:
            ConfigError: The vocabulary lacks it.
        """
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise ConfigError(f"tokenizer {self.source} has no token {token!r}")
        return int(token_id)

    def _judge(self) -> Verdict:
        if self._verdict is None:
            self._verdict = judge(self.backend, self.sha256)
        return self._verdict

    def _fast_for(self, num_chars: int) -> FastEncoder | None:
        if self._chars_until_fast > 0:
            self._chars_until_fast -= num_chars
            if self._chars_until_fast <= 0:
                self.prepare()
        return self._fast


def _restore(json: str, source: str, chat_template: str | None, verdict: Verdict | None) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(json), source, chat_template=chat_template, verdict=verdict)


def _well_formed(text: str) -> str:
    """The text itself. `tokenizers` would call half of a surrogate pair no string at all."""
    if not text.isascii():
        text.encode()
    return text
