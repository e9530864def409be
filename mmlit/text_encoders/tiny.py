"""A small text encoder with a tokenizer that needs no vocabulary file."""

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded, TextEncoder, TextSpec

PAD, START, MASK = 0, 1, 2
NUM_SPECIAL = 3


class TinyTextEncoder(TextEncoder):
    """Hashed words, learned positions, transformer layers; pooled by the mean over words.

    A word (letters, digits, apostrophes; lower case) has the id 3 + CRC-32 modulo the rest of the vocabulary: the same
    for any data set, in any process, without a file. Two words may share an id.

    Args:
        vocabulary_size: number of ids, > 3.
        max_length: longest text in tokens; what is longer loses its end.
        dim: D, a multiple of 32.
        num_layers: transformer layers, ≥ 1.
        freeze: whether nothing moves.

    Raises:
        ValueError: if a number does not fit.

    Source: hashing trick, Weinberger et al. 2009, arXiv 0902.2206.
    """

    def __init__(self, *, vocabulary_size: int, max_length: int, dim: int, num_layers: int, freeze: bool) -> None:
        super().__init__()
        if vocabulary_size <= NUM_SPECIAL:
            raise ValueError(f"vocabulary_size must be > {NUM_SPECIAL}, got {vocabulary_size}")
        if max_length < 2:
            raise ValueError(f"max_length must be >= 2, got {max_length}")
        if dim < 32 or dim % 32:
            raise ValueError(f"dim must be a multiple of 32, got {dim}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be >= 1, got {num_layers}")
        self.spec = TextSpec(
            dim=dim,
            vocabulary_size=vocabulary_size,
            mask_id=MASK,
            special_ids=(PAD, START, MASK),
            max_length=max_length,
        )
        self.token = nn.Embedding(vocabulary_size, dim)
        self.position = nn.Parameter(0.02 * torch.randn(max_length, dim))
        layer = nn.TransformerEncoderLayer(dim, dim // 32, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        nn.init.normal_(self.token.weight, std=0.02)
        if freeze:
            self.freeze()

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.tokenize`; every text begins with a start token, so that no text is empty."""
        modulus = self.spec.vocabulary_size - NUM_SPECIAL
        rows = [
            [
                START,
                *(NUM_SPECIAL + zlib.crc32(word.encode()) % modulus for word in re.findall(r"[\w']+", text.lower())),
            ]
            for text in texts
        ]
        self.num_truncated += sum(len(row) > self.spec.max_length for row in rows)
        return pad(rows, self.spec.max_length)

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """See `TextEncoder.forward`."""
        tokens = self.token(ids) + self.position[: ids.shape[1]]
        tokens = self.layers(tokens, src_key_padding_mask=~mask)
        weight = mask.to(tokens.dtype)[..., None]
        return Encoded(tokens, (tokens * weight).sum(1) / weight.sum(1), mask)


def pad(rows: list[list[int]], max_length: int) -> tuple[Tensor, Tensor]:
    """Lists of ids → ids int64 (M,L) padded with 0, mask bool (M,L); L = the longest row, at most `max_length`."""
    width = min(max(map(len, rows), default=0), max_length)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, values in enumerate(rows):
        kept = values[:max_length]
        ids[row, : len(kept)] = torch.tensor(kept)
        mask[row, : len(kept)] = True
    return ids, mask
