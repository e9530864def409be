"""What alignments are given in tests: outputs of two encoders, and `Pairs` and scores made of them.

Encoder outputs are random but fixed functions of their ids. The two encoders have different widths.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmlit.contracts import Alignment, Batch, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder

SIZE = 16
IMAGE = ImageSpec(dim=32, size=SIZE, resize="squash", interpolation="bilinear")
TEXT = TextSpec(dim=64, vocabulary_size=100, mask_id=2, special_ids=(0, 1, 2), max_length=12)


class Input(NamedTuple):
    """What the two encoders return for a batch, and its ids."""

    image: Encoded
    text: Encoded
    image_id: Tensor
    text_id: Tensor
    text_image_id: Tensor


def images(ids: Tensor, *, num_tokens: int = 4) -> Encoded:
    """The image encoder's output for these ids: every token kept."""
    parts = [_random(int(i), num_tokens + 1, IMAGE.dim) for i in ids]
    tokens = torch.stack(parts)
    return Encoded(tokens[:, 1:], tokens[:, 0], torch.ones(len(ids), num_tokens, dtype=torch.bool))


def texts(ids: Tensor) -> Encoded:
    """The text encoder's output for these ids: 2 to 5 tokens, padded to the longest with zeros."""
    lengths = 2 + ids % 4
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.stack([_random(10_000 + int(i), 7, TEXT.dim) for i in ids])
    return Encoded(tokens[:, 1 : 1 + mask.shape[1]] * mask[..., None], tokens[:, 0], mask)


def batch_of(image_id: list[int], owner: list[int], *, image_features: list[int] | None = None) -> Input:
    """Images, and one text for each entry of `owner`; `image_features` where the features do not follow the id."""
    text_id = torch.arange(100, 100 + len(owner))
    features = torch.tensor(image_id if image_features is None else image_features)
    return Input(images(features), texts(text_id), torch.tensor(image_id), text_id, torch.tensor(owner))


def usual_batch() -> Input:
    """Five images, seven texts in no order, each image with at least one."""
    return batch_of([3, 1, 4, 5, 9], [4, 3, 9, 1, 5, 3, 9])


def padded(encoded: Encoded, extra: int) -> Encoded:
    """The same items with `extra` more masked tokens of large garbage."""
    count, _, dim = encoded.tokens.shape
    garbage = 100 * torch.randn(count, extra, dim, generator=torch.Generator().manual_seed(7))
    mask = torch.cat([encoded.mask, torch.zeros(count, extra, dtype=torch.bool)], 1)
    return Encoded(torch.cat([encoded.tokens, garbage], 1), encoded.pooled, mask)


def without_dropout(alignment: Alignment) -> Alignment:
    """In training mode, but nothing is dropped, so that two passes can be compared."""
    for module in alignment.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return alignment.train()


def pairs_of(
    alignment: Alignment,
    given: Input,
    *,
    images_at: slice = slice(None),
    texts_at: slice = slice(None),
    mix: tuple[Tensor, Tensor] | None = None,
) -> Pairs:
    """What the device that has these rows of the global batch hands to `losses`."""
    all_image, all_text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    whole = images_at == slice(None) and texts_at == slice(None)
    own_text = given.text.take(texts_at)
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, TEXT.vocabulary_size, own_text.mask.shape, generator=generator) * own_text.mask
    mix_image_id, mix_weight = (None, None) if mix is None else mix
    batch = Batch(
        image=torch.randint(256, (len(given.image_id[images_at]), 3, SIZE, SIZE), generator=generator).byte(),
        image_id=given.image_id[images_at],
        token_ids=ids,
        token_mask=own_text.mask,
        text=None,
        text_id=given.text_id[texts_at],
        text_image_id=given.text_image_id[texts_at],
        mix_image_id=None if mix_image_id is None else mix_image_id[images_at],
        mix_weight=None if mix_weight is None else mix_weight[images_at],
    )
    image_tower, text_tower = _towers()
    return Pairs(
        image=all_image if whole else all_image.take(images_at),
        text=all_text if whole else all_text.take(texts_at),
        all_image=all_image,
        all_text=all_text,
        image_offset=images_at.start or 0,
        text_offset=texts_at.start or 0,
        all_image_id=given.image_id,
        all_text_id=given.text_id,
        all_text_image_id=given.text_image_id,
        batch=batch,
        encode_image=lambda pixels: alignment.embed_image(image_tower(pixels)),
        encode_text=lambda ids, mask: alignment.embed_text(text_tower(ids, mask)),
        draw_key=11,
        all_mix_image_id=mix_image_id,
        all_mix_weight=mix_weight,
        teacher=teacher_of(alignment, all_image, all_text),
    )


def teacher_of(alignment: Alignment, image: Encoded, text: Encoded) -> tuple[Encoded, Encoded] | None:
    """What momentum towers say that are the towers themselves, for an alignment that asks for them."""
    if alignment.momentum is None:
        return None
    image, text = (Encoded(*(part.detach().clone() for part in side)) for side in (image, text))
    return image, text


def total(terms: dict[str, Tensor]) -> Tensor:
    """The training loss on one device: the sum over terms of their means."""
    return torch.stack([term.mean() for term in terms.values() if len(term)]).sum()


def fit(alignment: Alignment, given: Input, *, steps: int, lr: float = 2e-3) -> None:
    """Full-batch training on these encoder outputs."""
    alignment.train()
    trainable = [parameter for parameter in alignment.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=lr)
    for _ in range(steps):
        pairs = pairs_of(alignment, given)
        optimizer.zero_grad()
        total(alignment.losses(pairs)).backward()
        optimizer.step()
        alignment.after_step(pairs)


@torch.no_grad()
def scores_of(alignment: Alignment, given: Input) -> Tensor:
    """All scores in evaluation mode."""
    alignment.eval()
    return alignment.score(alignment.embed_image(given.image), alignment.embed_text(given.text))


def _random(key: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(key))


def _towers() -> tuple[TinyImageEncoder, TinyTextEncoder]:
    """Small real encoders of these widths, for what an alignment encodes again; they draw no global numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        image = TinyImageEncoder(size=SIZE, dim=IMAGE.dim, num_layers=0, freeze=True)
        text = TinyTextEncoder(
            vocabulary_size=TEXT.vocabulary_size, max_length=TEXT.max_length, dim=TEXT.dim, num_layers=1, freeze=True
        )
    return image, text
