"""Sigmoid alignment: two heads, and a yes or no for every pair of the global batch."""

import math

import torch
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine, pooled_only
from mmlit.losses.sigmoid import sigmoid


class Sigmoid(Alignment):
    """Pairwise sigmoid loss on cosines with a learned bias; every pair of the batch with one image id is a positive.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.
        bias: start of the learned number that is added to all logits. −ln of the negatives that an item meets in a
            batch starts each pair at its prior; far below, all items first draw together, which a short training does
            not make good. It has no bounds: unlike a scale, no value of it makes gradients explode or ends its own.

    Raises:
        ValueError: if the temperature is out of range, the bias is not finite, or the heads do not fit.

    Source: Zhai et al. 2023, "Sigmoid loss for language image pre-training", Sec. 3.2, arXiv 2303.15343; its
    recipe starts 1 / temperature at 10 and the bias at −10.
    Differs: several positives per image; the temperature keeps the bounds that all alignments have.
    When: large batches, or few devices' memory: its loss is a sum over pairs, so no row waits for another.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        dropout: float,
        temperature: float,
        learn_temperature: bool,
        bias: float,
    ) -> None:
        super().__init__()
        if not math.isfinite(bias):
            raise ValueError(f"bias must be finite, got {bias}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.bias = nn.Parameter(torch.tensor(float(bias)))  # a scalar: no decay

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image."""
        return pooled_only(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text."""
        return pooled_only(self.space.embed_text(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Of each image the sum over all texts; their mean is the published loss."""
        return {"sigmoid": sigmoid(pairs, self.temperature.scale(), self.bias)}

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors."""
        return cosine(image.pooled, text.pooled)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature in bounds."""
        self.temperature.clamp()
