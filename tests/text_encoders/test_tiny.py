"""The small text encoder and its tokenizer."""

import zlib
from typing import Any

import pytest

from mmlit.text_encoders.tiny import START, TinyTextEncoder


def _encoder(**options: int) -> TinyTextEncoder:
    settings: dict[str, Any] = {"vocabulary_size": 64, "max_length": 6, "dim": 32, "num_layers": 1, "freeze": False}
    return TinyTextEncoder(**(settings | options))


def test_ids_by_hand() -> None:
    ids, mask = _encoder().tokenize(["A red Dog's", ""])
    expected = [START, *(3 + zlib.crc32(word) % 61 for word in (b"a", b"red", b"dog's"))]
    assert ids.tolist() == [expected, [START, 0, 0, 0]]
    assert mask.tolist() == [[True] * 4, [True, False, False, False]]


def test_truncation_is_counted() -> None:
    encoder = _encoder()
    ids, _ = encoder.tokenize(["a b c d e", "a b c d e f", "a"])
    assert ids.shape == (3, 6)
    encoder.tokenize(["a b c d e f g"])
    assert encoder.num_truncated == 2


def test_no_texts() -> None:
    assert _encoder().tokenize([])[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 3}, "vocabulary_size must be > 3, got 3"),
        ({"max_length": 1}, "max_length must be >= 2, got 1"),
        ({"dim": 31}, "dim must be a multiple of 32, got 31"),
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
    ],
)
def test_wrong_numbers(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _encoder(**options)
