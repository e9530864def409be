"""Two augmentations of a picture recognize each other among all others: SLIP's term for the image tower."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Auxiliary, ImageSpec, Pairs
from mmlit.losses.info_nce import info_nce


class SelfSupervised(Auxiliary):
    """Normalized-temperature cross-entropy between two views of each picture, with all other pictures as negatives.

    Both views go through the image encoder, its pooled vectors through a perceptron that only this term uses; of the
    vectors z of all views of the global batch, each is to find the other one of its picture, b, by

    ℓ_a = −log( exp(cos(z_a, z_b) / τ) / Σ_{c ≠ a} exp(cos(z_a, z_c) / τ) ),

    and a picture's term is weight · the mean of its two. The alignment's own pictures are not augmented.

    When: many pictures, few or poor captions: the tower learns from the pictures alone. Three passes through the tower
    instead of one; and it learns that colour, side and place do not matter, of which captions may speak.

    Args:
        image: the image encoder's spec.
        width: E of the alignment's embeddings; not used.
        weight: of the term, > 0.
        dim: of z, ≥ 1.
        hidden_dim: of the perceptron's two hidden layers, ≥ 1.
        temperature: τ, > 0.
        views: what makes the two views.

    Raises:
        ValueError: if a number is out of range.

    Source: Mu et al. 2021, "SLIP: self-supervision meets language-image pre-training", Sec. 3, arXiv 2112.12750; the
    loss Chen et al. 2020 (SimCLR), Eq. 1, arXiv 2002.05709.
    Differs: a picture that comes twice in a batch has several positives; the hidden layers' batch norms see both views
    of all devices.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        width: int,
        weight: float,
        dim: int,
        hidden_dim: int,
        temperature: float,
        views: Callable[[bytes, ImageSpec, int], tuple[Tensor, ...]],
    ) -> None:
        super().__init__()
        for name, number in {"weight": weight, "temperature": temperature}.items():
            if not number > 0:
                raise ValueError(f"auxiliary.self_supervised.{name} must be > 0, got {number}")
        for name, size in {"dim": dim, "hidden_dim": hidden_dim}.items():
            if size < 1:
                raise ValueError(f"auxiliary.self_supervised.{name} must be >= 1, got {size}")
        self.weight, self.temperature, self.views = weight, temperature, views
        sizes = [image.dim, hidden_dim, hidden_dim]
        hidden = [
            # nothing is ever evaluated: running statistics would only be one more thing to keep
            [nn.Linear(one, other, bias=False), nn.BatchNorm1d(other, track_running_stats=False), nn.ReLU()]
            for one, other in pairwise(sizes)
        ]
        self.perceptron = nn.Sequential(*(layer for layers in hidden for layer in layers), nn.Linear(hidden_dim, dim))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """`info_nce` (N,) of this device's images.

        Raises:
            ValueError: if the batch has no two views.
        """
        if len(pairs.all_views) != 2:
            raise ValueError(f"auxiliary=[self_supervised] needs two views of each picture, got {len(pairs.all_views)}")
        everyone = F.normalize(self.perceptron(torch.cat([view.pooled for view in pairs.all_views])).float(), dim=1)
        ids = pairs.all_image_id.repeat(2)
        count = len(pairs.all_image_id)
        own = torch.arange(count, device=ids.device)[pairs.image_rows]
        rows = torch.cat([own, own + count])
        with torch.autocast(everyone.device.type, enabled=False):
            scores = everyone[rows] @ everyone.T / self.temperature
        others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, rows[:, None], False)  # all but itself
        positives = (ids[rows, None] == ids).float()
        losses = info_nce(_those(scores, others), _those(positives, others))
        return {"info_nce": self.weight * losses.view(2, -1).mean(0)}


def _those(values: Tensor, chosen: Tensor) -> Tensor:
    """(R,C) → (R,C−1): all but one of each row."""
    return values[chosen].view(len(values), -1)
