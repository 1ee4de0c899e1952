"""A sentencepiece BPE model read without its library, as the `tokenizer.json` that transformers would make of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

CONTROL, USER_DEFINED, UNKNOWN = 3, 4, 2


def read_pieces(path: Path) -> list[tuple[str, float, int]]:
    """Text, score and type of each piece (protobuf `ModelProto`: field 1; inside it fields 1, 2 and 3)."""
    pieces = []
    for number, value in _fields(path.read_bytes()):
        if number == 1:
            assert isinstance(value, bytes)
            fields = dict(_fields(value))
            text, score = fields[1], fields[2]
            assert isinstance(text, bytes)
            assert isinstance(score, bytes)
            kind = fields.get(3, 1)
            assert isinstance(kind, int)
            pieces.append((text.decode(), struct.unpack("<f", score)[0], kind))
    return pieces


def make_backend(path: Path) -> Tokenizer:
    """Pairs merge in the order of the score of what they make; a space is read before every text."""
    pieces = read_pieces(path)
    vocab = {text: i for i, (text, _, _) in enumerate(pieces)}
    scored = [
        (-score, vocab[text[:i]], vocab[text[i:]], text[:i], text[i:])
        for text, score, kind in pieces
        if kind == 1
        for i in range(1, len(text))
        if text[:i] in vocab and text[i:] in vocab
    ]
    merges = [(left, right) for *_, left, right in sorted(scored)]
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(space, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [text for text, _, kind in pieces if kind in (CONTROL, USER_DEFINED, UNKNOWN)]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return backend


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        if key & 7 == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        assert key & 7 in (1, 2, 5)
        length, position = _varint(data, position) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], position)
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
