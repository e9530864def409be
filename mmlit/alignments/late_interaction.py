"""Late interaction: every token looks for the token of the other side that is most like it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.pairwise import all_pairs, both_ways
from mmlit.layers.similarity import Temperature, cosine
from mmlit.losses.info_nce import info_nce
from mmlit.losses.tiled_info_nce import tiled_info_nce

#: products of tokens in a block of pairs on a CPU: they stay in a core's cache
PRODUCTS = 2**19
#: added to the products of a padded token: lower than any cosine, so that it is never the most similar one
PADDED = -3.0
#: parts of texts of like length
PARTS = 4


class LateInteraction(Alignment):
    """Token-wise maximum similarity, both ways, under a softmax over the batch.

    Each kept token is a unit vector of width `token_dim`. Of image i and text j, every word takes the cosine with its
    best patch and every patch that with its best word; score = ½ · (mean over words + mean over patches).

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: width of the pooled vectors' space, or None for that of the side whose head is `identity`.
        image_head: head of the image's pooled vector.
        text_head: head of the text's pooled vector.
        token_dim: E of the tokens, ≥ 1.
        dropout: on pooled vectors and tokens, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned, one for tokens and one for pooled vectors.

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Yao et al. 2021 (FILIP), Sec. 3.1, arXiv 2111.07783; Khattab and Zaharia 2020 (ColBERT), Sec. 3.3 (MaxSim),
    arXiv 2004.12832.
    Differs: one score for both directions, so that what is trained is what is ranked (FILIP's softmax over texts has
    the patches' mean, its softmax over images the words'); several positives per row; no prompts, and tokens travel
    in full precision. A second InfoNCE on the pooled vectors, which no token-wise similarity reads, trains `coarse`:
    the score of a pair costs P · L products of tokens, and a mean of tokens that nothing trained as such would find
    poor candidates.
    When: details decide (a colour, a part) and attention is too costly to train: maxima need no weights.
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
        dropout: float,
        temperature: float,
        learn_temperature: bool,
    ) -> None:
        super().__init__()
        if token_dim < 1:
            raise ValueError(f"token_dim must be >= 1, got {token_dim}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.dropout = nn.Dropout(dropout)
        self.image_tokens = nn.Linear(image.dim, token_dim)
        self.text_tokens = nn.Linear(text.dim, token_dim)
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.pooled_temperature = Temperature(initial=temperature, learn=learn_temperature)

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vectors of the patches, and of the picture."""
        tokens = self.image_tokens(self.dropout(image.tokens)).float()
        return Encoded(F.normalize(tokens, dim=-1), self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vectors of the words, and of the caption."""
        tokens = self.text_tokens(self.dropout(text.tokens)).float()
        return Encoded(F.normalize(tokens, dim=-1), self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image's row and half of each text's, by tokens and by pooled vectors."""
        i2t, t2i = both_ways(self.score, pairs)
        pooled_i2t, pooled_t2i = tiled_info_nce(pairs, self.pooled_temperature.scale())
        return {
            "i2t": 0.5 * info_nce(self.temperature(i2t), pairs.positives(pairs.image_rows, slice(None))),
            "t2i": 0.5 * info_nce(self.temperature(t2i), pairs.positives(slice(None), pairs.text_rows).T),
            "pooled_i2t": 0.5 * pooled_i2t,
            "pooled_t2i": 0.5 * pooled_t2i,
        }

    def coarse(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two pooled unit vectors: (N,M)."""
        return cosine(image.pooled, text.pooled)

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Mean of a pair's best cosines, those of words and those of patches; in [−1, 1].

        Captions differ much in length: those of like length are compared together, so that little of it is padding.
        """
        with torch.autocast(image.tokens.device.type, enabled=False):
            patches, order = _packed(image), text.ends().argsort(stable=True)
            scores = []
            for part in order.chunk(PARTS):
                words = _packed(text.take(part).trimmed(), other_way=True)
                products = max(1, patches.shape[1] * words.shape[1])
                side = max(1, math.isqrt(PRODUCTS // products))
                scores.append(all_pairs(_similarity, patches, words, side=side))
            return torch.cat(scores, dim=1)[:, order.argsort()]

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperatures in bounds."""
        self.temperature.clamp()
        self.pooled_temperature.clamp()


def _packed(item: Encoded, *, other_way: bool = False) -> Tensor:
    """Tokens (B,T,E) with two more numbers, such that a product of both sides' is lowered by what is padding."""
    tokens = item.tokens.masked_fill(~item.mask[..., None], 0)
    tokens = tokens if tokens.dtype.itemsize >= 4 else tokens.float()
    lowered = (~item.mask[..., None]).to(tokens) * PADDED
    extra = [torch.ones_like(lowered), lowered]
    return torch.cat([tokens, *(extra if other_way else extra[::-1])], dim=-1)


def _similarity(image: Tensor, text: Tensor) -> Tensor:
    """Packed patches (n,P,·) and words (m,L,·) → (n,m); nothing of it is kept for the backward pass."""
    products = (image.flatten(0, 1) @ text.flatten(0, 1).T).view(*image.shape[:2], *text.shape[:2])
    patches = torch.einsum("npm,np->nm", products.amax(3), _weights(image[..., -2]))
    return 0.5 * (patches + torch.einsum("nml,ml->nm", products.amax(1), _weights(text[..., -1])))


def _weights(lowered: Tensor) -> Tensor:
    """Of the mean over kept tokens: (B,T), 1 / their number, 0 for padding."""
    kept = (lowered == 0).to(lowered)
    return kept / kept.sum(1, keepdim=True).clamp_min(1)
