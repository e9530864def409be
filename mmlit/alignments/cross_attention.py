"""Word–patch cross-attention of every image with every text, both ways."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.pairwise import both_ways
from mmlit.layers.similarity import Temperature, cosine
from mmlit.losses.info_nce import info_nce

#: items attended to at a time: small enough for the weights of one chunk to stay in a core's cache
CHUNK = 8
#: e^±30 and its square are far from the ends of fp32
MAX_SHARPNESS = 30.0


class CrossAttention(Alignment):
    """Every token of one side attends to the other side's tokens; a pair scores by how well its tokens find themselves.

    Tokens are projected to width E and normalized. Per head, queries, keys and values are residual projections of
    them, made once per item. In each head a token attends to the other item's tokens by the cosine of query and key,
    and scores the cosine between its query and the attended value. The local score is the mean over heads and tokens,
    averaged over the two directions; it is a residual on the cosine of the pooled vectors:
    score = (pooled + local) / 2.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: width of the pooled vectors' space, or None for that of the side whose head is `identity`.
        image_head: head of the image's pooled vector.
        text_head: head of the text's pooled vector.
        token_dim: E, the width in which tokens attend, a multiple of `num_heads`.
        num_heads: attention heads.
        dropout: in the heads and on the projections of tokens, in [0, 1).
        sharpness: factor on the cosine of query and key inside the attention's softmax at the start (learned), in
            (0, 30].
        temperature: divides the scores in the loss; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.

    Raises:
        ValueError: if `token_dim` is not a multiple of `num_heads`, a number is out of range, or the heads do not fit.

    Source: Lee et al. 2018, "Stacked cross attention for image-text matching", Eq. 1–8, arXiv 1803.08024.
    Differs: learned multi-head queries, keys and values; the pooled cosine as residual; both directions in one score;
    softmax contrastive loss instead of the hinge. The attended vectors of the N × M pairs are never formed: their
    products with the word and with themselves follow from the word–patch products and each item's Gram matrix; and
    since a cosine does not see its argument's length, the softmax needs no denominator.
    When: words must find their regions, and a gallery is small or reranked; it needs tokens of both towers.
    """

    needs_tokens = True

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        token_dim: int,
        num_heads: int,
        dropout: float,
        sharpness: float,
        temperature: float,
        learn_temperature: bool,
    ) -> None:
        super().__init__()
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        if num_heads < 1 or token_dim < num_heads or token_dim % num_heads:
            raise ValueError(
                f"token_dim must be a multiple of num_heads, got token_dim={token_dim}, num_heads={num_heads}"
            )
        if not 0 < sharpness <= MAX_SHARPNESS:
            raise ValueError(f"sharpness must lie in (0, {MAX_SHARPNESS}], got {sharpness}")
        self.num_heads = num_heads
        self.image_tokens = _TokenProjection(image.dim, token_dim, dropout)
        self.text_tokens = _TokenProjection(text.dim, token_dim, dropout)
        self.log_sharpness = nn.Parameter(torch.full((2 * num_heads,), math.log(sharpness)))  # a vector: no decay
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)

    def embed_image(self, image: Encoded) -> Encoded:
        """Queries, keys and values (N,P,3E) of the patches, and the unit vector of the picture."""
        return Encoded(self.image_tokens(image.tokens), self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Queries, keys and values (M,L,3E) of the words, and the unit vector of the caption."""
        return Encoded(self.text_tokens(text.tokens), self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image's row and half of each text's."""
        i2t, t2i = both_ways(self.score, pairs)
        return {
            "i2t": 0.5 * info_nce(self.temperature(i2t), pairs.positives(pairs.image_rows, slice(None))),
            "t2i": 0.5 * info_nce(self.temperature(t2i), pairs.positives(slice(None), pairs.text_rows).T),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Mean of the pooled cosine and the local score; in [−1, 1]."""
        with torch.autocast(image.pooled.device.type, enabled=False):
            words = self._attended_cosine(text, image, 0)  # (N,M,L)
            patches = self._attended_cosine(image, text, 1)  # (M,N,P)
            local = 0.5 * (_masked_mean(words, text.mask) + _masked_mean(patches, image.mask).T)
            return 0.5 * (cosine(image.pooled, text.pooled) + local)

    def attention_map(self, image: Encoded, text: Encoded) -> Tensor:
        """Where each word of text b looks in image b: (B,L,P), rows sum to 1, mean over heads."""
        query, _, _ = self._heads(text)
        _, key, _ = self._heads(image)
        logits = torch.einsum("blhd,bphd->bhlp", query, key) * self._sharpness(0)
        return logits.masked_fill(~image.mask[:, None, None], -torch.inf).softmax(-1).mean(1)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature and sharpness in bounds."""
        self.temperature.clamp()
        with torch.no_grad():
            self.log_sharpness.clamp_(max=math.log(MAX_SHARPNESS))

    def _sharpness(self, direction: int) -> Tensor:
        """Per head (heads,1,1): of words asking (0), of patches asking (1)."""
        return self.log_sharpness.view(2, -1, 1, 1)[direction].exp()

    def _heads(self, item: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys as unit vectors per head, values as they are, each (B,T,heads,E/heads), fp32."""
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in item.tokens.float().chunk(3, -1))
        return F.normalize(query, dim=-1), F.normalize(key, dim=-1), value

    def _attended_cosine(self, asking: Encoded, asked: Encoded, direction: int) -> Tensor:
        """Cosine of each token of the A asking items with what it attends to in each of the B asked: (B,A,T).

        Captions differ much in length: padding neither asks nor, beyond the longest of a chunk, is asked.
        """
        query, _, _ = self._heads(asking)
        _, key, value = self._heads(asked)
        flat = query[asking.mask].transpose(0, 1)  # (heads, kept tokens, E/heads)
        sharpness = self._sharpness(direction)
        ends = asked.ends()
        order = ends.argsort(stable=True)
        chunks = []
        for part, end in zip(order.split(CHUNK), ends[order].split(CHUNK), strict=True):
            kept = slice(0, int(end[-1]))
            chunks.append(_chunk(flat, key[part, kept], value[part, kept], asked.mask[part, kept], sharpness))
        cosines = query.new_zeros(len(key), *asking.mask.shape)
        cosines[:, asking.mask] = torch.cat(chunks)[order.argsort()]
        return cosines


class _TokenProjection(nn.Module):
    """Tokens (B,T,D) to width E, normalized, then residual queries, keys and values side by side: (B,T,3E)."""

    def __init__(self, dim_in: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Linear(dim_in, dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        unit = F.normalize(self.token(tokens).float(), dim=-1)
        return unit.repeat(1, 1, 3) + self.dropout(self.query_key_value(unit))


def _chunk(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sharpness: Tensor) -> Tensor:
    """One chunk of asked items; recomputed in the backward pass, so that no weights of N × M pairs are kept."""
    if torch.is_grad_enabled():
        return checkpoint(_cosine_with_attended, query, key, value, mask, sharpness, use_reentrant=False)
    return _cosine_with_attended(query, key, value, mask, sharpness)


def _cosine_with_attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sharpness: Tensor) -> Tensor:
    """query (h,X,d), key and value (B,S,h,d), mask (B,S), sharpness (h,1,1) → mean over heads of q·a / |a|, (B,X).

    With weights w over the S tokens of an item and values V, a = Vᵀw, so q·a = w·(Vq) and |a|² = wᵀ(VVᵀ)w.
    """
    shape = (*query.shape[:2], *mask.shape)
    weights = ((sharpness * query) @ key.permute(2, 3, 0, 1).flatten(2)).exp().view(shape) * mask  # (h,X,B,S)
    product = torch.linalg.vecdot(weights, (query @ value.permute(2, 3, 0, 1).flatten(2)).view(shape))  # (h,X,B)
    per_head = value.permute(2, 0, 1, 3)
    weights = weights.transpose(1, 2)  # (h,B,X,S)
    squared = torch.linalg.vecdot(weights @ (per_head @ per_head.transpose(-1, -2)), weights)  # (h,B,X)
    return (product.transpose(1, 2) * squared.clamp_min(1e-30).rsqrt()).mean(0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,A,T) over the tokens that (A,T) keeps → (B,A)."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp_min(1)
