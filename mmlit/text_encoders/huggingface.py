"""Text towers of the Hugging Face hub, or of a directory in its layout."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded, TextEncoder, TextSpec
from mmlit.layers.weights import is_weight_file, read_weights, require_fit

#: what checkpoints hold beside the tower, by the first part of the key: heads of pre-training, dropped knowingly
_HEADS = frozenset({"pooler", "cls", "lm_head"})
#: tables of constants that checkpoints of old versions hold, by the last part of the key
_CONSTANTS = frozenset({"position_ids", "token_type_ids"})
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
        with _quiet():
            config, self.tokenizer = _obtain_settings(name)
            self.tower = _obtain_tower(name, config, weights)
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

    config = _obtain(name, AutoConfig.from_pretrained)
    lacking = [key for key in ("hidden_size", "vocab_size", "max_position_embeddings") if not hasattr(config, key)]
    if lacking or config.is_encoder_decoder:
        raise ValueError(f"name={name} is a {config.model_type} model: not a single text tower")
    tokenizer = _obtain(name, AutoTokenizer.from_pretrained)
    # Without its files the library may make one that knows special tokens only, to which every word is unknown.
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"name={name} has no vocabulary for its tokenizer (tokenizer.json or vocab.txt)")
    return config, tokenizer


def _obtain_tower(name: str, config: Any, weights: str) -> nn.Module:
    """The tower in fp32 without its pooler."""
    from transformers import AutoModel

    if weights == "random":
        tower = AutoModel.from_config(config)
    elif weights == "pretrained":
        tower = _loaded(f"name={name}", lambda **options: _obtain(name, AutoModel.from_pretrained, **options), config)
    elif is_weight_file(weights):
        tensors = read_weights(weights)
        with torch.device("meta"):  # only its class is wanted: it knows how keys of older files are spelt today
            kind = type(AutoModel.from_config(config))
        source = f"weights={weights} for name={name}"
        tower = _loaded(source, lambda **options: kind.from_pretrained(None, state_dict=tensors, **options), config)
    else:
        raise ValueError(f"weights must be pretrained, random, or a .safetensors, .pt or .pth file, got {weights}")
    if getattr(tower, "pooler", None) is not None:
        tower.pooler = None
    return tower


def _loaded(source: str, load: Callable[..., Any], config: Any) -> nn.Module:
    """What `load` gives, if it used every weight and every weight was there."""
    tower, told = load(config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True)
    missing = [key for key in told["missing_keys"] if key.partition(".")[0] != "pooler"]
    unexpected = [
        key
        for key in told["unexpected_keys"]
        if key.partition(".")[0] not in _HEADS and key.rpartition(".")[2] not in _CONSTANTS
    ]
    misshapen = [f"{key} {list(found)} instead of {list(own)}" for key, found, own in told["mismatched_keys"]]
    require_fit(source, missing=missing, unexpected=unexpected, misshapen=misshapen)
    return tower


def _obtain(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """`load`, from the directory `name` or else from the hub, failing with one line."""
    directory = Path(name).expanduser()
    local = directory.is_dir()
    try:
        return load(str(directory) if local else name, local_files_only=local, **options)
    except Exception as error:  # readers of several libraries, and of other languages, with errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = "cannot be read" if local else "is neither a directory nor obtainable from the Hugging Face hub"
        raise ValueError(f"name={name} {where}: {reason}") from error


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
    table = getattr(getattr(tower, "embeddings", None), "position_embeddings", None)
    if getattr(table, "padding_idx", None) is not None:  # RoBERTa counts positions from behind the padding's
        limit -= table.padding_idx + 1
    least = tokenizer.num_special_tokens_to_add() + 1
    if not least <= max_length <= limit:
        raise ValueError(f"max_length must be in {least}...{limit}, got {max_length}")


def _digest(tokenizer: Any, config: Any) -> str:
    """Of the tokenizer's rules and the tower's configuration: both change the output, neither is a weight."""
    settings = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    return sha256(f"{tokenizer.backend_tokenizer.to_str()}|{sorted(settings.items())}".encode()).hexdigest()[:16]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries from reporting keys, retries and progress of their own; what is wrong is raised."""
    from transformers.utils import logging as library

    hub, level, bars = logging.getLogger("huggingface_hub"), library.get_verbosity(), library.is_progress_bar_enabled()
    hub_level = hub.level
    library.set_verbosity_error()
    library.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            library.enable_progress_bar()
