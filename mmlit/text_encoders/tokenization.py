"""What text towers of the transformers library ask of the tokenizer that lies beside them."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlit.layers.pretrained import obtain

#: rows that a tower's table may have without a token: some were rounded up for speed, or reserved
_SPARE_ROWS = 1000
_SPARE_SHARE = 0.02


def obtain_tokenizer(name: str) -> Any:
    """The tokenizer in the directory `name`, or of that name on the hub; it pads on the right."""
    from transformers import AutoTokenizer

    # Else the library warns at every fork of a data worker. Workers do not tokenize.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokenizer = obtain(name, AutoTokenizer.from_pretrained)
    # Without its files the library may make one that knows special tokens only, to which every word is unknown.
    readable = tokenizer.is_fast or hasattr(tokenizer, "sp_model")
    if not readable or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"name={name} has no vocabulary for its tokenizer (tokenizer.json, vocab.txt or spiece.model)")
    tokenizer.padding_side = "right"
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor, int]:
    """Ids (M,L), mask (M,L) padded to the longest, and how many texts were cut; special tokens stay."""
    if not texts:
        return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool), 0
    encoded = tokenizer(
        list(texts),
        padding="longest",
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,  # SigLIP's do not unless asked
        return_tensors="pt",
    )
    if tokenizer.is_fast:
        num_truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    else:
        num_truncated = sum(len(row) > max_length for row in tokenizer(list(texts), verbose=False)["input_ids"])
    return encoded["input_ids"], encoded["attention_mask"].bool(), num_truncated


def num_ids(tokenizer: Any) -> int:
    """One more than the highest id."""
    return max(tokenizer.get_vocab().values()) + 1


def check_vocabulary(tokenizer: Any, rows: int, *, name: str) -> None:
    """Refuses a tokenizer whose ids are not those of a table with `rows` rows, or that cannot pad."""
    ids = num_ids(tokenizer)
    if ids > rows or rows - ids > max(_SPARE_ROWS, _SPARE_SHARE * rows):
        raise ValueError(f"name={name}: the tokenizer has ids up to {ids - 1}, the tower's embedding has {rows} rows")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"name={name}: the tokenizer has no token to pad with")


def check_length(tokenizer: Any, limit: int, *, max_length: int) -> None:
    """Refuses a `max_length` beyond the tower's positions, or without room for a word."""
    least = tokenizer.num_special_tokens_to_add() + 1
    if not least <= max_length <= limit:
        raise ValueError(f"max_length must be in {least}...{limit}, got {max_length}")


def rules(tokenizer: Any) -> bytes:
    """All that decides which ids a text gets."""
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.to_str().encode()
    return tokenizer.sp_model.serialized_model_proto() + f"|{getattr(tokenizer, 'do_lower_case', None)}".encode()
