"""Fusion by attention: the two pooled vectors attend to themselves and to each other."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.pairwise import all_pairs, both_ways
from mmlit.layers.similarity import pooled_only
from mmlit.losses.info_nce import info_nce

#: images and texts of a block: on a core, large enough to be worth the start of its many small operations
SIDE = 64
#: added to variances, as in torch.nn.LayerNorm
EPSILON = 1e-5


class _Parts(NamedTuple):
    """What attention needs of B items.

    `query`, `key` (B,heads,E/heads). `stack` (B,1+heads,E): first what an item becomes that attends to itself only,
    then each head's value behind the output projection; all centred, for the norm that follows.
    """

    query: Tensor
    key: Tensor
    stack: Tensor


class AttentionFusion(Alignment):
    """Multi-head self-attention over the sequence of the two vectors, and a linear match score of its output's mean.

    The attended vectors get a residual and are normalized: score = w · mean over the two of norm(x + attention(x)).
    Queries, keys, values and, head by head, the output projection are made once per item. Of two tokens' softmax a
    sigmoid remains: a pair mixes, with two weights per head, vectors that are there already. So it needs only their
    products with w, made per item, and for the norm their products with each other; the mixed vector is never formed.
    The tokens are the heads' vectors at length √E, and the projections start such that they keep that: with less, a
    pair starts out close to the plain mean of its tokens, and learns worse.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, a multiple of `num_heads`, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        num_heads: attention heads.
        dropout: in the heads of the two sides, in [0, 1).

    Raises:
        ValueError: if E is not a multiple of `num_heads`, or the heads do not fit.

    Source: Vaswani et al. 2017, "Attention is all you need", Sec. 3.1 and 3.2.2, arXiv 1706.03762.
    Differs: no feed-forward layer; no biases in the attention, and a norm without gain and bias: w has the gain, and
    what is added to all scores a softmax over them does not see. No temperature, since w learns the scores' scale.
    When: a baseline that shows what attention over two vectors adds to a perceptron; every pair is scored.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        width = self.space.dim
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got dim={width}, num_heads={num_heads}")
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.match = nn.Linear(width, 1, bias=False)
        for layer in (self.query_key_value, self.output):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")

    def embed_image(self, image: Encoded) -> Encoded:
        """Query, key and stack of each image, side by side: (N,(3+heads)·E)."""
        return self._attend(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Query, key and stack of each text, side by side: (M,(3+heads)·E)."""
        return self._attend(self.space.embed_text(text.pooled))

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

    def _attend(self, unit: Tensor) -> Encoded:
        """Unit vectors (B,E) → all that does not depend on the other side."""
        token = math.sqrt(self.space.dim) * unit
        query, key, value = self.query_key_value(token).chunk(3, dim=-1)
        heads = self.output.weight.unflatten(1, (self.num_heads, -1))  # (E,heads,E/heads)
        output = torch.einsum("bhd,ehd->bhe", value.unflatten(1, (self.num_heads, -1)), heads)
        stack = torch.cat([token[:, None] + output.sum(1, keepdim=True), output], dim=1)
        stack = stack - stack.mean(-1, keepdim=True)
        return pooled_only(torch.cat([query, key, stack.flatten(1)], dim=1).float())

    def _parts(self, packed: Tensor) -> _Parts:
        width = self.space.dim
        query, key, stack = packed.tensor_split([width, 2 * width], dim=1)
        query, key = (part.unflatten(1, (self.num_heads, -1)) for part in (query, key))
        return _Parts(query, key, stack.unflatten(1, (-1, width)))

    def _match(self, image: Tensor, text: Tensor) -> Tensor:
        """All pairs of n images and m texts: (n,m)."""
        a, b = self._parts(image), self._parts(text)
        products = torch.einsum("aie,bje->abij", a.stack, b.stack) / self.space.dim
        i2t = self._token_score(a, b, products)
        return 0.5 * (i2t + self._token_score(b, a, products.permute(1, 0, 3, 2)).T)

    def _token_score(self, own: _Parts, other: _Parts, products: Tensor) -> Tensor:
        """w · norm of what each of A tokens becomes beside each of B others: (A,B).

        A head takes the share σ(logit of the other − logit of itself) from the other, and keeps the rest of its own.
        """
        own_logit = (own.query * own.key).sum(-1)[:, None]
        logit = torch.einsum("ahd,bhd->abh", own.query, other.key) - own_logit
        taken = (logit * own.query.shape[-1] ** -0.5).sigmoid()
        keeps, takes = F.pad(-taken, (1, 0), value=1.0), F.pad(taken, (1, 0))  # mix both stacks: (A,B,1+heads)
        own_products, other_products = (part.stack @ part.stack.mT / self.space.dim for part in (own, other))
        variance = (
            torch.einsum("abi,aij,abj->ab", keeps, own_products, keeps)
            + 2 * torch.einsum("abi,abij,abj->ab", keeps, products, takes)
            + torch.einsum("abi,bij,abj->ab", takes, other_products, takes)
        )
        own_value, other_value = (part.stack @ self.match.weight[0] for part in (own, other))
        value = torch.einsum("abi,ai->ab", keeps, own_value) + torch.einsum("abi,bi->ab", takes, other_value)
        return value * (variance.clamp_min(0) + EPSILON).rsqrt()
