"""Non-contrastive alignment: pairs coincide, and each side's vectors stay spread out; no item is another's negative."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import cosine, pooled_only
from mmlit.losses.tiles import Truth, wide

#: γ of Eq. 1, the standard deviation below which a dimension is spread, and ε of Eq. 2
DEVIATION, EPSILON = 1.0, 1e-4


class NonContrastive(Alignment):
    """Variance, invariance and covariance of both sides' expanded vectors over the global batch.

    Both sides go through a head and an expander of their own. A text is pulled to its images, whose ids say which they
    are. Of each side the standard deviation of every dimension is kept above 1, and covariances of two dimensions are
    pushed to 0. An image or a caption that comes twice is twice in these statistics.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: width of the heads' space, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        expander_dim: E, width of the expanders' layers and of what is compared, ≥ 2; several times `dim` is far better
            than as much: on Flickr8k with frozen towers and 512 of `dim` rsum 161 with 512, 233 with 2,048 and a
            quarter of the learning rate.
        invariance: λ > 0, weight of the squared distance of pairs.
        variance: μ > 0, weight of the hinges on standard deviations.
        covariance: ν > 0, weight of the squared covariances.

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Bardes et al. 2021, "VICReg", Eq. 1–6, arXiv 2105.04906.
    Differs: as in the authors' code the squared distance is a mean over dimensions, not Eq. 5's sum, while both sides'
    variance terms are added as in Eq. 6, not halved as there; expanders of two
    layers that normalize each item by itself, since no item may depend on the rest of its batch; scores are cosines of
    what the expanders return, for what goes into two expanders shares no axes.
    When: to see what alignment without negatives learns; batches whose captions fit several images.
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
        expander_dim: int,
        invariance: float,
        variance: float,
        covariance: float,
    ) -> None:
        super().__init__()
        if expander_dim < 2:
            raise ValueError(f"expander_dim must be >= 2, got {expander_dim}")
        for name, weight in {"invariance": invariance, "variance": variance, "covariance": covariance}.items():
            if not weight > 0:
                raise ValueError(f"{name} must be > 0, got {weight}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.image_expander = _expander(self.space.dim, expander_dim)
        self.text_expander = _expander(self.space.dim, expander_dim)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def embed_image(self, image: Encoded) -> Encoded:
        """Expanded vector of each image, fp32, of any length."""
        return pooled_only(self.image_expander(self.space.embed_image(image.pooled)).float())

    def embed_text(self, text: Encoded) -> Encoded:
        """Expanded vector of each text, fp32, of any length."""
        return pooled_only(self.text_expander(self.space.embed_text(text.pooled)).float())

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """`invariance` of each text; `variance` and `covariance` of the global batch, (1,)."""
        with torch.autocast(pairs.image.pooled.device.type, enabled=False):
            sides = [_covariances(side.pooled) for side in (pairs.all_image, pairs.all_text)]
            spread, shared = (torch.stack([of(side) for side in sides]) for of in (_narrow, _shared))
            return {
                "invariance": self.invariance * _distance(pairs),
                "variance": self.variance * spread.sum()[None],
                "covariance": self.covariance * shared.sum()[None],
            }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two expanded vectors."""
        return cosine(*(F.normalize(side.pooled.float(), dim=-1) for side in (image, text)))


def _expander(dim_in: int, dim: int) -> nn.Module:
    """The unit vectors of a head have entries near 0, hence the first norm."""
    return nn.Sequential(nn.LayerNorm(dim_in), nn.Linear(dim_in, dim), nn.GELU(), nn.Linear(dim, dim))


def _distance(pairs: Pairs) -> Tensor:
    """Eq. 5 of each of this device's texts: mean squared distance to its images, (M,)."""
    image, text = wide(pairs.all_image.pooled), wide(pairs.text.pooled)
    everyone = slice(None)
    true = Truth.of(pairs, everyone, pairs.text_rows).within(everyone, everyone, like=text)
    apart = true.weight * (image[true.row] - text[true.column]).square().mean(1)
    total, weight = (text.new_zeros(len(text)).index_add(0, true.column, part) for part in (apart, true.weight))
    return total / weight


def _covariances(vectors: Tensor) -> Tensor:
    """Eq. 3, unbiased: (B,E) → (E,E)."""
    centred = wide(vectors) - wide(vectors).mean(0)
    return centred.T @ centred / max(1, len(centred) - 1)


def _narrow(covariances: Tensor) -> Tensor:
    """Eq. 1 and 2: by how much standard deviations fall short, in the mean."""
    return (DEVIATION - (covariances.diagonal() + EPSILON).sqrt()).clamp_min(0).mean()


def _shared(covariances: Tensor) -> Tensor:
    """Eq. 4: the squares of all covariances of two dimensions, over the number of dimensions."""
    return (covariances - covariances.diagonal().diag()).square().sum() / len(covariances)
