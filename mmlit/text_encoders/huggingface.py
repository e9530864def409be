"""Text towers of the Hugging Face hub, or of a directory in its layout."""

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import torch
from torch import Tensor

from mmlit.contracts import Encoded, TextEncoder, TextSpec
from mmlit.layers.pretrained import obtain, obtain_tower, quiet

#: of a configuration, what says nothing of the output
_VOLATILE = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"})


class HuggingFaceTextEncoder(TextEncoder):
    """A transformer with the tokenizer that lies beside it; tokens are its last hidden states.

    The pooler that some checkpoints bring is dropped: it would be parameters without gradient.

    Args:
        name: a directory (nothing is fetched then), or a name on the Hugging Face hub.
        weights: `pretrained` for those that belong to `name`; `random`; or a `.safetensors`, `.pt` or `.pth` file
            with a state dict for the tower that `name` describes.
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
        self, *, name: str, weights: str, pooling: Literal["cls", "mean"], max_length: int, freeze: bool
    ) -> None:
        super().__init__()
        # Else the library warns at every fork of a data worker. Workers do not tokenize.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self.pooling = pooling
        with quiet(name):
            config, self.tokenizer = _obtain_settings(name)
            self.tower = obtain_tower(name, config, weights)
        self.tokenizer.padding_side = "right"
        _check_match(self.tokenizer, self.tower, name=name)
        _check_length(self.tokenizer, self.tower, max_length=max_length)
        if pooling == "cls" and self.tokenizer.cls_token_id is None:
            raise ValueError(f"pooling=cls: the tokenizer of {name} has no [CLS] token; use pooling=mean")
        self._settings = _digest(self.tokenizer, config)
        self.spec = TextSpec(
            dim=config.hidden_size,
            vocabulary_size=max(self.tokenizer.get_vocab().values()) + 1,
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
        if not texts:
            return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool)
        encoded = self.tokenizer(
            list(texts), padding="longest", truncation=True, max_length=self.spec.max_length, return_tensors="pt"
        )
        self.num_texts += len(texts)
        self.num_truncated += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return encoded["input_ids"], encoded["attention_mask"].bool()

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """See `TextEncoder.forward`."""
        ids = ids.masked_fill(~mask, self.tokenizer.pad_token_id)  # whatever the caller padded with
        tokens = self.tower(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return Encoded(tokens, tokens[:, 0], mask)
        weight = mask.to(tokens.dtype)[..., None]
        return Encoded(tokens, (tokens * weight).sum(1) / weight.sum(1), mask)


def _obtain_settings(name: str) -> tuple[Any, Any]:
    """Configuration of the tower, and the tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    config = obtain(name, AutoConfig.from_pretrained)
    lacking = [key for key in ("hidden_size", "vocab_size", "max_position_embeddings") if not hasattr(config, key)]
    if lacking or config.is_encoder_decoder:
        raise ValueError(f"name={name} is a {config.model_type} model: not a single text tower")
    tokenizer = obtain(name, AutoTokenizer.from_pretrained)
    # Without its files the library may make one that knows special tokens only, to which every word is unknown.
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"name={name} has no vocabulary for its tokenizer (tokenizer.json or vocab.txt)")
    return config, tokenizer


def _check_match(tokenizer: Any, tower: Any, *, name: str) -> None:
    """Refuses a tokenizer that was not made for this tower."""
    rows, top = tower.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if top >= rows:
        raise ValueError(f"name={name}: the tokenizer has ids up to {top}, the tower's embedding has {rows} rows")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id != tower.config.pad_token_id:
        raise ValueError(
            f"name={name}: the tokenizer pads with id {tokenizer.pad_token_id}, the tower expects "
            f"{tower.config.pad_token_id}; they do not belong together"
        )


def _check_length(tokenizer: Any, tower: Any, *, max_length: int) -> None:
    limit = tower.config.max_position_embeddings
    table: Any = getattr(getattr(tower, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:  # RoBERTa counts positions from behind the padding's
        limit -= padding + 1
    least = tokenizer.num_special_tokens_to_add() + 1
    if not least <= max_length <= limit:
        raise ValueError(f"max_length must be in {least}...{limit}, got {max_length}")


def _digest(tokenizer: Any, config: Any) -> str:
    """Of the tokenizer's rules and the tower's configuration: both change the output, neither is a weight."""
    settings = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    return sha256(f"{tokenizer.backend_tokenizer.to_str()}|{sorted(settings.items())}".encode()).hexdigest()[:16]
