"""`Pairs` for losses that take them: unit vectors, ids that repeat, shares of devices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.contracts import Batch, Encoded, Pairs


def made_pairs(
    image: Tensor,
    text: Tensor,
    image_id: list[int],
    text_image_id: list[int],
    *,
    images_at: slice = slice(None),
    texts_at: slice = slice(None),
    mix: tuple[list[int], list[float]] | None = None,
) -> Pairs:
    """What the device with these rows of the vectors (N,E), (M,E) has; alone, it has the same objects twice."""
    alone = images_at == slice(None) and texts_at == slice(None)
    own_image, own_text = (image, text) if alone else (image[images_at], text[texts_at])
    ids, owner, numbers = torch.tensor(image_id), torch.tensor(text_image_id), torch.arange(len(text))
    batch = Batch(own_image, ids[images_at], numbers, numbers, None, numbers[texts_at], owner[texts_at])
    return Pairs(
        *(Encoded(side[:, :0], side, side.bool()) for side in (own_image, own_text)),
        *(Encoded(side[:, :0], side, side.bool()) for side in (image, text)),
        images_at.start or 0,
        texts_at.start or 0,
        ids,
        numbers,
        owner,
        batch,
        all_mix_image_id=None if mix is None else torch.tensor(mix[0]),
        all_mix_weight=None if mix is None else torch.tensor(mix[1]),
    )


def unit(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors (B,E) that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=1).to(dtype).requires_grad_()
