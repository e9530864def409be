"""The vocabulary that every room shares: a few named tuples and three interfaces.

Shape letters of the whole project: `N` images, `M` texts, `L` text tokens, `P` image tokens, `T` either side's
tokens, `D` encoder width, `E` embedding width, `H W` pixels, `B` either side's batch. Masks: True = keep.
Correspondence travels as int64 ids, never as a dense matrix over a whole data set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn


class Encoded(NamedTuple):
    """What an encoder, or an alignment's `embed_*`, says of each item of a batch.

    `tokens` (B,T,D), `pooled` (B,D), `mask` (B,T) bool. T is 0 where nothing later needs the tokens.
    """

    tokens: Tensor
    pooled: Tensor
    mask: Tensor

    def take(self, index: Tensor | slice) -> "Encoded":
        """The items at `index` of the batch, in that order."""
        return Encoded(*(part[index] for part in self))

    def ends(self) -> Tensor:
        """For each item the place behind its last kept token: (B,), 0 where none is kept."""
        places = self.mask * torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        return places.amax(1) if places.shape[1] else places.sum(1)

    def trimmed(self) -> "Encoded":
        """The same items without the tokens that all of them pad at the end."""
        length = int(self.ends().max()) if self.mask.numel() else 0
        return Encoded(self.tokens[:, :length], self.pooled, self.mask[:, :length])


class ImageSpec(NamedTuple):
    """What an image encoder needs of a picture: `size` px square, `dim` is the width D of what it returns.

    `squash` makes both sides `size`; `crop` makes the shorter side `resize_to` px (None: `size`) and keeps the middle.
    """

    dim: int
    size: int
    resize: Literal["squash", "crop"]
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    resize_to: int | None = None


class TextSpec(NamedTuple):
    """What a text encoder's token ids mean. `special_ids` are never masked or counted as words."""

    dim: int
    vocabulary_size: int
    mask_id: int | None
    special_ids: tuple[int, ...]
    max_length: int


class Item(NamedTuple):
    """One image with the captions asked for: `image` is the undecoded file."""

    image: bytes
    texts: tuple[str, ...]
    image_id: int
    text_ids: tuple[int, ...]
    labels: tuple[int, ...] | None = None


class Batch(NamedTuple):
    """N images and M texts.

    `image` uint8 (N,3,H,W) in 0…255, or `Encoded` from a store; `image_id` (N,); `token_ids`, `token_mask` (M,L),
    trimmed to the longest caption of the batch; `text` `Encoded` from a store or None; `text_id`, `text_image_id`
    (M,). `labels` (N,K) in [0, 1], which of K tags an image has; `views` each uint8 (N,3,H,W), further augmentations of
    the images; a mixed picture shows `mix_image_id` (N,) with the share 1 − `mix_weight` (N,).
    """

    image: Tensor | Encoded
    image_id: Tensor
    token_ids: Tensor
    token_mask: Tensor
    text: Encoded | None
    text_id: Tensor
    text_image_id: Tensor
    labels: Tensor | None = None
    views: tuple[Tensor, ...] | None = None
    mix_image_id: Tensor | None = None
    mix_weight: Tensor | None = None


def _no_towers(*_: Tensor) -> Encoded:
    raise ValueError("these pairs came without the towers that another view of the batch would need")


class Pairs(NamedTuple):
    """What `Alignment.losses` receives: this device's rows and the whole global batch.

    `image`, `text` are this device's N and M rows after `embed_*`; `all_image`, `all_text` every device's, gathered
    with gradient, this device's beginning at `image_offset` and `text_offset` (on one device: the same objects).
    `batch` holds the local ids. `teacher` is (image, text) of every device as momentum towers embed them, or None.
    `encode_image(pixels)` and `encode_text(ids, mask)` run tower and `embed_*` on another view. `draw_key` changes with
    seed and step. `all_views` is what the image encoder says of every device's `Batch.views`, gathered with gradient.
    """

    image: Encoded
    text: Encoded
    all_image: Encoded
    all_text: Encoded
    image_offset: int
    text_offset: int
    all_image_id: Tensor
    all_text_id: Tensor
    all_text_image_id: Tensor
    batch: Batch
    encode_image: Callable[[Tensor], Encoded] = _no_towers
    encode_text: Callable[[Tensor, Tensor], Encoded] = _no_towers
    draw_key: int = 0
    teacher: tuple[Encoded, Encoded] | None = None
    all_mix_image_id: Tensor | None = None
    all_mix_weight: Tensor | None = None
    all_views: tuple[Encoded, ...] = ()

    @property
    def image_rows(self) -> slice:
        """This device's images among all images."""
        return slice(self.image_offset, self.image_offset + len(self.image.pooled))

    @property
    def text_rows(self) -> slice:
        """This device's texts among all texts."""
        return slice(self.text_offset, self.text_offset + len(self.text.pooled))

    def positives(self, rows: slice, columns: slice) -> Tensor:
        """Images `rows` against texts `columns` of the global batch: 1 a pair, 0 not, between for mixed pictures.

        Decided by ids, so that an image or a caption that comes twice is a positive by construction.
        """
        owner = self.all_text_image_id[columns]
        same = (self.all_image_id[rows, None] == owner).float()
        if self.all_mix_image_id is None or self.all_mix_weight is None:
            return same
        weight = self.all_mix_weight[rows, None]
        return weight * same + (1 - weight) * (self.all_mix_image_id[rows, None] == owner).float()

    def draws(self, rows: slice, columns: slice) -> Tensor:
        """Uniform draws in (0, 1) for images `rows` × texts `columns`, a function of (seed, step, ids) alone."""
        return uniform(self.draw_key, self.all_image_id[rows, None], self.all_text_id[columns])


def uniform(*keys: int | Tensor) -> Tensor:
    """Uniform draws in (0, 1), float64: a hash of the broadcast integer `keys`, the same on every device and rank.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        state = _mix((state.to(key.device) if isinstance(key, Tensor) else state) + key)
    # 52 bits and a half are exact in float64: with 53 the highest draw would round up to 1
    return ((state >> 12) & (2**52 - 1)).double().add(0.5).div(2**52)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's output function on int64 with wrap-around; the masks make the arithmetic shifts logical."""
    state = state + -7046029254386353131
    state = (state ^ ((state >> 30) & (2**34 - 1))) * -4658895280553007687
    state = (state ^ ((state >> 27) & (2**37 - 1))) * -7723592293110705685
    return state ^ ((state >> 31) & (2**33 - 1))


class Encoder(nn.Module):
    """What image and text encoders share: being frozen, and a fingerprint.

    Attributes:
        needs_tokens: whether anybody reads `Encoded.tokens`; if not, their length may be 0, and `pooled` is the same.
        adapted: whether adapters in it train, while its own weights, batch norms and dropouts stand still.
        additions: parts put into it for training, adapters' dropout for instance; they train where it is not frozen.
        still: parts that stay in evaluation mode while the rest trains, batch norms for instance.
    """

    frozen: bool = False
    needs_tokens: bool = True
    adapted: bool = False
    additions: tuple[nn.Module, ...] = ()
    still: tuple[nn.Module, ...] = ()

    def freeze(self) -> Self:
        """Frozen means that nothing moves: no gradient, no batch-norm statistic, no dropout (see `train`)."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but what is frozen, or `still`, or an adapted one's own, stays in evaluation mode."""
        trains = mode and not self.frozen
        super().train(trains and not self.adapted)
        for part in self.additions:
            part.train(trains)
        for part in self.still:
            part.eval()
        return self

    def fingerprint(self) -> str:
        """Hex digest of all that determines this encoder's output: its class, its settings and its weights."""
        digest = sha256(f"{type(self).__qualname__}|{self.extra_repr()}|{getattr(self, 'spec', None)}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class ImageEncoder(Encoder, ABC):
    """Pixels → `Encoded`. Normalization of the pixels lies inside `forward`."""

    spec: ImageSpec

    @abstractmethod
    def forward(self, pixels: Tensor) -> Encoded:
        """`pixels` (N,3,H,W) in 0…255, H = W = `spec.size` → tokens (N,P,D), pooled (N,D), mask (N,P)."""


class TextEncoder(Encoder, ABC):
    """Token ids → `Encoded`; it brings its own tokenizer, so the two cannot disagree.

    Attributes:
        num_truncated: how many texts `tokenize` has cut at `spec.max_length`. It only counts; the run tells it once.
    """

    spec: TextSpec
    num_truncated: int = 0

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """M texts → ids int64 (M,L) and mask bool (M,L), padded to the longest, at most `spec.max_length`."""

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """`ids`, `mask` (M,L) → tokens (M,L,D), pooled (M,D), mask (M,L); padding changes nothing."""


class Alignment(nn.Module, ABC):
    """A strategy: two `Encoded` → embeddings, losses, scores.

    Constructed with `image: ImageSpec, text: TextSpec` and the options of its yaml. An alignment whose `score` is
    costly may offer `coarse(image, text) → (N,M)` (candidates for reranking); one with attention may offer
    `attention_map(image, text) → (B,L,P)` for pictures. None of its methods calls torch.distributed.
    """

    #: whether `embed_*` reads the encoders' tokens, so that stores must keep them
    needs_tokens: ClassVar[bool] = False
    #: of the moving averages of towers and alignment that make `Pairs.teacher`, in [0, 1); None: no teacher is wanted
    momentum: float | None = None

    @abstractmethod
    def embed_image(self, image: Encoded) -> Encoded:
        """An image encoder's output → all that `score` and `losses` need later, and nothing more."""

    @abstractmethod
    def embed_text(self, text: Encoded) -> Encoded:
        """A text encoder's output → all that `score` and `losses` need later, and nothing more."""

    @abstractmethod
    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """{name: (k,) one weighted value per row of this device's share}; no side effect.

        The training loss is the sum over names of the mean over all devices' rows. A term of the whole batch is the
        same single value on every device.
        """

    @abstractmethod
    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Embedded images and texts → (N,M), higher = closer; a cosine unless the method's docstring says otherwise."""

    def after_step(self, pairs: Pairs) -> None:
        """Called once per optimizer step: the place where queues, momentum copies and clamps move."""


class Auxiliary(nn.Module, ABC):
    """A further term of the training loss, beside any alignment's: evaluation and checkpoints' readers know none.

    Constructed with `image: ImageSpec`, `width`, E of the vectors that `Alignment.embed_image` pools, and the options
    of its yaml. None of its methods calls torch.distributed.
    """

    #: whether `losses` reads `Batch.labels`
    needs_tags: ClassVar[bool] = False
    #: (undecoded picture, spec, key) → augmentations, each uint8 (3,H,W), decided by the key; None: none are read
    views: Callable[[bytes, ImageSpec, int], tuple[Tensor, ...]] | None = None

    def begin(self, tags: Sequence[str]) -> None:
        """Called once before training, with the names of the columns of `Batch.labels`."""

    @abstractmethod
    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """As `Alignment.losses`."""
