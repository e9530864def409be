"""Fusion by concatenation: the two pooled vectors side by side through a multi-layer perceptron."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.pairwise import all_pairs, both_ways
from mmlit.layers.similarity import pooled_only
from mmlit.losses.info_nce import info_nce

#: images and texts of a block, whose hidden layer stays in a core's cache
SIDE = 32


class Concatenation(Alignment):
    """A perceptron with one hidden layer judges [a; b], and a softmax over the batch trains its match scores both ways.

    score = w · gelu(W [a; b] + c). As W [a; b] = W_a a + W_b b, the first layer is made once per item, and a pair costs
    `hidden_dim` additions and activations. A linear perceptron would rank all queries alike, and one that starts out
    nearly linear learns much worse: so a and b are the heads' vectors at length √width instead of 1, and W starts as
    large as He et al. 2015 (arXiv 1502.01852, Eq. 10) have it.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`; of both, if both are: the two encoders'
            vectors as wide as they are, such as CLIP B/32's 768 + 512.
        image_head: the image side's head.
        text_head: the text side's head.
        hidden_dim: width of the hidden layer, ≥ 1.
        dropout: in the heads, in [0, 1).

    Raises:
        ValueError: if `hidden_dim` is out of range, or the heads do not fit.

    Source: the sentence-level model of Ma et al. 2015, "Multimodal convolutional neural networks for matching image and
    sentence" (m-CNN_st), arXiv 1504.06063. On what such a perceptron finds hard: Rendle et al. 2020, "Neural
    collaborative filtering vs. matrix factorization revisited", Sec. 4, arXiv 2005.09683.
    Differs: softmax contrastive loss instead of the hinge. No temperature, since w learns the scale of the scores, and
    no last bias, which a softmax does not see.
    When: the plainest learned fusion, a baseline for whatever scores pairs; every pair is scored.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        hidden_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim must be >= 1, got {hidden_dim}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout,
            of_one_width=False,
        )  # fmt: skip
        self.hidden = nn.Linear(sum(self.space.widths), hidden_dim)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")
        self.match = nn.Linear(hidden_dim, 1, bias=False)

    def embed_image(self, image: Encoded) -> Encoded:
        """The image's half of the first layer, W_a a: (N,hidden_dim)."""
        width = self.space.widths[0]
        weight = self.hidden.weight[:, :width]
        vector = math.sqrt(width) * self.space.embed_image(image.pooled)
        return pooled_only(F.linear(vector, weight).float())

    def embed_text(self, text: Encoded) -> Encoded:
        """The text's half of the first layer and the bias, W_b b + c: (M,hidden_dim)."""
        width = self.space.widths[1]
        weight = self.hidden.weight[:, -width:]
        vector = math.sqrt(width) * self.space.embed_text(text.pooled)
        return pooled_only(F.linear(vector, weight, self.hidden.bias).float())

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image's row and half of each text's."""
        i2t, t2i = both_ways(self.score, pairs)
        return {
            "i2t": 0.5 * info_nce(i2t, pairs.positives(pairs.image_rows, slice(None))),
            "t2i": 0.5 * info_nce(t2i, pairs.positives(slice(None), pairs.text_rows).T),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Not a cosine: a match logit of any size, comparable between pairs."""
        with torch.autocast(image.pooled.device.type, enabled=False):
            return all_pairs(self._match, image.pooled.float(), text.pooled.float(), side=SIDE)

    def _match(self, image: Tensor, text: Tensor) -> Tensor:
        """Halves (n,hidden_dim) and (M,hidden_dim) → (n,M)."""
        return F.gelu(image[:, None] + text) @ self.match.weight[0]
