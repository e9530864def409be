"""Text towers of contrastive pairs (CLIP, SigLIP) from the Hugging Face hub, or from a directory in its layout."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Encoded, TextEncoder, TextSpec
from mmlit.layers.clip_pooling import can_pool, pooled_state
from mmlit.layers.pretrained import Half, digest, is_pair, obtain_config, obtain_half, quiet
from mmlit.layers.similarity import pooled_only
from mmlit.text_encoders.tokenization import (
    check_length,
    check_vocabulary,
    num_ids,
    obtain_tokenizer,
    rules,
    tokenize,
)


class PairTextEncoder(TextEncoder):
    """The text half of CLIP or SigLIP, pooled as in its training; the picture half of the checkpoint is not kept.

    Tokens are the last hidden states behind the final norm. CLIP: pooled is the state of the end-of-text token, and
    with `projection` tokens and pooled are carried into the pair's shared space. SigLIP: texts are padded to the full
    length and padding is attended to, as in its training; pooled is the last position through the tower's head. Where
    the head changes the width, tokens go through it, too.

    Args:
        name: a directory (nothing is fetched then), or a name on the Hugging Face hub; of both towers or this one.
        weights: `pretrained` for those that belong to `name`; null for random ones; or a `.safetensors`, `.pt` or
            `.pth` file with a state dict for the model that `name` describes.
        projection: whether CLIP's own text projection is kept; SigLIP has none.
        max_length: longest text in tokens, special ones included; what is longer loses its end.
        freeze: whether nothing moves.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if `name` is neither a directory nor obtainable, or is no such model, tokenizer and tower do not
            match, the weights do not fit, a projection is asked for and there is none, or `max_length` is more than
            the tower has positions.

    Source: Radford et al. 2021 (CLIP), Sec. 2.4, arXiv 2103.00020; Zhai et al. 2023 (SigLIP), arXiv 2303.15343.
    """

    projection: nn.Linear | None

    def __init__(self, *, name: str, weights: str | None, projection: bool, max_length: int, freeze: bool) -> None:
        super().__init__()
        with quiet(name):
            self.tokenizer = obtain_tokenizer(name)
            half = _obtain(name, weights, projection)
        self.tower, config, self.projection = half
        self.num_positions: int = config.max_position_embeddings
        _check_match(self.tokenizer, config, name=name)
        check_length(self.tokenizer, self.num_positions, max_length=max_length)
        self._settings = digest(config, rules(self.tokenizer))
        self._is_siglip = config.model_type.startswith("siglip")
        self._can_pool = not self._is_siglip and can_pool(self.tower.encoder)
        head: Any = getattr(self.tower, "head", self.projection)
        self.spec = TextSpec(
            dim=config.hidden_size if head is None else head.out_features,
            vocabulary_size=num_ids(self.tokenizer),
            mask_id=self.tokenizer.mask_token_id,
            special_ids=tuple(self.tokenizer.all_special_ids),
            max_length=max_length,
        )
        self.train()  # the library hands towers over in evaluation mode, and Lightning leaves modes as they are
        if freeze:
            self.freeze()

    def extra_repr(self) -> str:
        """The settings that neither the spec nor the weights tell; those of tokenizer and tower as a digest."""
        return f"projection={self.projection is not None}, settings={self._settings}"

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.tokenize`; special tokens stay when a text is cut."""
        ids, mask, num_truncated = tokenize(self.tokenizer, texts, self.spec.max_length)
        self.num_truncated += num_truncated
        return ids, mask

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """See `TextEncoder.forward`."""
        ids = ids.masked_fill(~mask, self.tokenizer.pad_token_id)  # whatever the caller padded with
        if self._is_siglip:
            return self._forward_siglip(ids, mask)
        tower: Any = self.tower
        if self._can_pool and not self.needs_tokens:
            end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
            states = tower.embeddings(input_ids=ids)
            pooled = tower.final_layer_norm(pooled_state(tower.encoder, states, end, causal=True))
            return pooled_only(pooled if self.projection is None else self.projection(pooled))
        # what stands behind the end is padding, which no token before it sees: a mask would only cost time
        output = tower(input_ids=ids)
        tokens, pooled = output.last_hidden_state, output.pooler_output
        if self.projection is not None:
            tokens, pooled = self.projection(tokens), self.projection(pooled)
        return Encoded(tokens, pooled, mask)

    def _forward_siglip(self, ids: Tensor, mask: Tensor) -> Encoded:
        width = ids.shape[1]
        full = F.pad(ids, (0, self.num_positions - width), value=self.tokenizer.pad_token_id)
        output = self.tower(input_ids=full)
        tokens = F.pad(output.last_hidden_state, (0, 0, 0, width - self.num_positions))
        head: Any = self.tower.head
        if head.in_features != head.out_features:
            tokens = head(tokens)
        return Encoded(tokens, output.pooler_output, mask)


def _obtain(name: str, weights: str | None, projection: bool) -> Half:
    config = obtain_config(name)
    if not is_pair(config, "text"):
        raise ValueError(f"name={name} is a {config.model_type} model: not CLIP or SigLIP with a text tower")
    return obtain_half(name, config, weights, side="text", projection=projection)


def _check_match(tokenizer: Any, config: Any, *, name: str) -> None:
    """Refuses a tokenizer that was not made for this tower.

    CLIP pools where the end-of-text token is. Configurations of old checkpoints say that it is 2 and mean the highest
    id. SigLIP's do not tell the truth of any special token.
    """
    check_vocabulary(tokenizer, config.vocab_size, name=name)
    if config.model_type.startswith("siglip"):
        expected = tokenizer.eos_token_id
    else:
        expected = num_ids(tokenizer) - 1 if config.eos_token_id == 2 else config.eos_token_id
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id != expected:
        raise ValueError(
            f"name={name}: the tokenizer ends a text with id {tokenizer.eos_token_id}, the tower expects {expected}; "
            "they do not belong together"
        )
