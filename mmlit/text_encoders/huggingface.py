"""Text towers of the Hugging Face hub, or of a directory in its layout."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.contracts import Encoded, TextEncoder, TextSpec
from mmlit.layers.pretrained import digest, is_pair, obtain_config, obtain_tower, quiet
from mmlit.layers.similarity import pooled_only
from mmlit.text_encoders.tokenization import (
    check_length,
    check_vocabulary,
    num_ids,
    obtain_tokenizer,
    rules,
    tokenize,
)

#: texts that a CPU encodes at a time
_PART = 64


class HuggingFaceTextEncoder(TextEncoder):
    """A transformer with the tokenizer that lies beside it; tokens are its last hidden states.

    BERT, DistilBERT, RoBERTa, MiniLM, ModernBERT and others. The pooler that some checkpoints bring is dropped: it
    would be parameters without gradient. The text towers of CLIP and SigLIP are `mmlit.text_encoders.pair`.

    Args:
        name: a directory (nothing is fetched then), or a name on the Hugging Face hub.
        weights: `pretrained` for those that belong to `name`; null for random ones; or a `.safetensors`, `.pt` or
            `.pth` file with a state dict for the tower that `name` describes.
        pooling: `cls`, the first token; or `mean` over all kept tokens.
        max_length: longest text in tokens, special ones included; what is longer loses its end.
        freeze: whether nothing moves.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if `name` is neither a directory nor obtainable, tokenizer and tower do not match, the weights do
            not fit, or `max_length` is more than the tower has positions.

    Source: mean over kept tokens, Reimers, Gurevych 2019, "Sentence-BERT", Sec. 3, arXiv 1908.10084.
    """

    def __init__(
        self, *, name: str, weights: str | None, pooling: Literal["cls", "mean"], max_length: int, freeze: bool
    ) -> None:
        super().__init__()
        self.pooling = pooling
        with quiet(name):
            config = _obtain_config(name)
            self.tokenizer = obtain_tokenizer(name)
            self.tower = obtain_tower(name, config, weights)
        _check_match(self.tokenizer, self.tower, name=name)
        check_length(self.tokenizer, _num_positions(self.tower), max_length=max_length)
        if pooling == "cls" and self.tokenizer.cls_token_id is None:
            raise ValueError(f"pooling=cls: the tokenizer of {name} has no [CLS] token; use pooling=mean")
        self._settings = digest(config, rules(self.tokenizer))
        self.spec = TextSpec(
            dim=config.hidden_size,
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
        return f"pooling={self.pooling}, settings={self._settings}"

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.tokenize`; special tokens stay when a text is cut."""
        ids, mask, num_truncated = tokenize(self.tokenizer, texts, self.spec.max_length)
        self.num_truncated += num_truncated
        return ids, mask

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """See `TextEncoder.forward`."""
        ids = ids.masked_fill(~mask, self.tokenizer.pad_token_id)  # whatever the caller padded with
        # A GPU would wait for the lengths, and compiled code be made anew for each of them.
        if ids.device.type == "cpu" and len(ids) > _PART and not torch.compiler.is_compiling():
            return self._in_parts(ids, mask)
        tokens = self.tower(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return Encoded(tokens, self._pooled(tokens, mask), mask)

    def _in_parts(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Texts of like length together, so that little is padded: the same numbers in less than half of the time."""
        ends = (mask * torch.arange(1, mask.shape[1] + 1)).amax(1)
        order = ends.argsort(stable=True)
        tokens, pooled = [], []
        for rows in order.split(_PART):
            width = max(1, int(ends[rows[-1]]))
            found = self.tower(input_ids=ids[rows, :width], attention_mask=mask[rows, :width].long()).last_hidden_state
            pooled.append(self._pooled(found, mask[rows, :width]))
            if self.needs_tokens:
                tokens.append(F.pad(found, (0, 0, 0, mask.shape[1] - width)))
        back = order.argsort()
        if not self.needs_tokens:
            return pooled_only(torch.cat(pooled)[back])
        return Encoded(torch.cat(tokens)[back], torch.cat(pooled)[back], mask)

    def _pooled(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return tokens[:, 0]
        weight = mask.to(tokens.dtype)[..., None]
        return (tokens * weight).sum(1) / weight.sum(1)


def _obtain_config(name: str) -> Any:
    config = obtain_config(name)
    if is_pair(config, "text"):
        raise ValueError(
            f"name={name} is a {config.model_type} model, whose texts are pooled in a way of its own: "
            "use text_encoder=clip or text_encoder=siglip"
        )
    lacking = [key for key in ("hidden_size", "vocab_size", "max_position_embeddings") if not hasattr(config, key)]
    if lacking or config.is_encoder_decoder:
        raise ValueError(f"name={name} is a {config.model_type} model: not a single text tower")
    return config


def _check_match(tokenizer: Any, tower: Any, *, name: str) -> None:
    """Refuses a tokenizer that was not made for this tower."""
    check_vocabulary(tokenizer, tower.get_input_embeddings().num_embeddings, name=name)
    if tokenizer.pad_token_id != tower.config.pad_token_id:
        raise ValueError(
            f"name={name}: the tokenizer pads with id {tokenizer.pad_token_id}, the tower expects "
            f"{tower.config.pad_token_id}; they do not belong together"
        )


def _num_positions(tower: Any) -> int:
    limit: int = tower.config.max_position_embeddings
    table: Any = getattr(getattr(tower, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return limit if padding is None else limit - padding - 1  # RoBERTa counts positions from behind the padding's
