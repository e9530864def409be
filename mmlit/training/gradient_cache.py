"""The gradient of a batch that does not fit: towers run chunk by chunk, the loss sees all of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmlit.contracts import Alignment, Batch, Encoded, ImageEncoder, TextEncoder
from mmlit.layers.similarity import pooled_only


class GradientCache:
    """Embeds a batch in chunks of which only the embeddings are kept; each chunk runs again in the backward pass.

    The loss is made from all cached embeddings, with other devices' rows gathered as ever. Going backward, the
    gradient that it leaves at a chunk's embeddings goes on through that chunk, made again with the random state and
    the autocast of the first time, before the next chunk is made. So memory is that of one chunk beside the embeddings
    and the loss, and the gradient is the whole batch's.

    Args:
        chunk_size: images, and texts, in the towers at a time on each device, ≥ 1.

    Raises:
        ValueError: if `chunk_size` is out of range.

    Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup", Sec. 3,
    arXiv 2101.06983.
    Differs: the chunks are activation checkpoints of one graph instead of a loop over backward passes. Hence there is
    one backward pass, and scaling of the loss, clipping, accumulation, any optimizer and the one synchronization of
    several devices' gradients are what they are without it. A frozen tower runs once, and its output is kept.
    """

    def __init__(self, *, chunk_size: int) -> None:
        if chunk_size < 1:
            raise ValueError(f"step.chunk_size must be >= 1, got {chunk_size}")
        self.chunk_size = chunk_size

    def encode(
        self, image_encoder: ImageEncoder, text_encoder: TextEncoder, alignment: Alignment, batch: Batch
    ) -> tuple[Encoded, Encoded]:
        """Images and texts of a batch, embedded; a side that a store has encoded skips its tower."""
        tokens = alignment.needs_tokens
        if isinstance(batch.image, Encoded):
            image = self._kept(alignment.embed_image, batch.image)
        else:
            image = self._side(image_encoder, alignment.embed_image, (batch.image,), tokens=tokens)
        if batch.text is not None:
            return image, self._kept(alignment.embed_text, batch.text)
        inputs = (batch.token_ids, batch.token_mask)
        return image, self._side(text_encoder, alignment.embed_text, inputs, tokens=tokens)

    def encode_view(self, image_encoder: ImageEncoder, pixels: Tensor) -> Encoded:
        """Another view of a batch's images, as the encoder says."""
        return self._side(image_encoder, lambda found: pooled_only(found.pooled), (pixels,), tokens=False)

    @staticmethod
    def refuse(alignment: Alignment) -> Callable[..., Encoded]:
        """What stands for `Pairs.encode_image` and `encode_text`, whose graphs would be whole batches'."""

        def refused(*_: Any) -> Encoded:
            raise ValueError(
                f"step=gradient_cache: a term of {type(alignment).__name__} encodes another view of the batch "
                "(pairs.encode_image or pairs.encode_text), which is not cached; train it without step="
            )

        return refused

    def _side(
        self,
        tower: ImageEncoder | TextEncoder,
        embed: Callable[[Encoded], Encoded],
        inputs: tuple[Tensor, ...],
        *,
        tokens: bool,
    ) -> Encoded:
        chunks = zip(*(part.split(self.chunk_size) for part in inputs), strict=True)
        if tower.frozen:  # nothing to go backward through: it need not run twice
            return self._kept(embed, _joined([_output(tower, chunk, tokens=tokens) for chunk in chunks]))
        return _joined([_again(lambda *chunk: embed(tower(*chunk)), *chunk) for chunk in chunks])

    def _kept(self, embed: Callable[[Encoded], Encoded], encoded: Encoded) -> Encoded:
        """What an encoder said of the whole batch, embedded in chunks."""
        chunks = zip(*(part.split(self.chunk_size) for part in encoded), strict=True)
        return _joined([_again(lambda *chunk: embed(Encoded(*chunk)), *chunk) for chunk in chunks])


def _again(function: Callable[..., Encoded], *inputs: Tensor) -> Encoded:
    """`function` now, and once more when its gradients are asked for, as if it were the first time."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=True)


@torch.no_grad()
def _output(tower: ImageEncoder | TextEncoder, inputs: tuple[Tensor, ...], *, tokens: bool) -> Encoded:
    """As a store keeps it: tokens only where the alignment reads them."""
    found: Encoded = tower(*inputs)
    return found if tokens else pooled_only(found.pooled)


def _joined(parts: list[Encoded]) -> Encoded:
    return Encoded(*(torch.cat(part) for part in zip(*parts, strict=True)))
