"""Text-conditioned pooling: every text pools the patches of an image for itself."""

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

#: images and texts of a block, whose pooled vectors stay in a core's cache
SIDE = 32
#: the least squared length that a pooled vector is divided by
TINY = 1e-24


class TextConditioned(Alignment):
    """The text's vector asks, the image's patches answer; the answer is compared with the text.

    Patches have keys and values per head, the text's unit vector t has a query. In each head the text attends to the
    patches and to one empty token of zeros, which it may look at where the image has nothing of what it says. Of the
    heads' pooled values side by side, v(image | text), score = cosine(v(image | text), t). A softmax over the batch
    trains it both ways, and another one the cosine of the image's own pooled vector with the text (`coarse`).

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, a multiple of `num_heads`, or None for the width of the side whose head is `identity`.
        image_head: head of the image's pooled vector.
        text_head: head of the text's pooled vector.
        num_heads: attention heads.
        dropout: on pooled vectors and patches, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.

    Raises:
        ValueError: if E is not a multiple of `num_heads`, a number is out of range, or the heads do not fit.

    Source: Xiao et al. 2024 (FLAIR), "FLAIR: VLM with fine-grained language-informed image representations", Sec. 3.2
    and 3.3, arXiv 2412.03561; pooling by a text's query: Gorti et al. 2022 (X-Pool), arXiv 2203.15086.
    Differs: softmax instead of sigmoid losses, so that a comparison with `contrastive` is one of what is compared, not
    of losses (on small batches and short schedules they are also better here); patches are normalized before the
    attention, and the query has length √E; captions as they are, no sub-captions
    cut out of longer ones; several positives by ids; no projection behind the attention, which would cost each of
    N × M pairs E² products.
    When: captions each describe another part of the picture; it shows where a text looks.
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
        num_heads: int,
        dropout: float,
        temperature: float,
        learn_temperature: bool,
    ) -> None:
        super().__init__()
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        width = self.space.dim
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got dim={width}, num_heads={num_heads}")
        self.num_heads = num_heads
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(image.dim)
        self.key_value = nn.Linear(image.dim, 2 * width)
        self.query = nn.Linear(width, width)
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)

    def embed_image(self, image: Encoded) -> Encoded:
        """Keys and values (N,P,2E) of the patches, and the unit vector of the picture."""
        tokens = self.key_value(self.norm(self.dropout(image.tokens)))
        return Encoded(tokens, self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text; of its words only how many there are, which `attention_map` tells."""
        return Encoded(text.tokens[..., :0], self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image's row and half of each text's, conditioned and global."""
        i2t, t2i = both_ways(self.score, pairs)
        global_i2t, global_t2i = tiled_info_nce(pairs, self.temperature.scale())
        return {
            "i2t": 0.5 * info_nce(self.temperature(i2t), pairs.positives(pairs.image_rows, slice(None))),
            "t2i": 0.5 * info_nce(self.temperature(t2i), pairs.positives(slice(None), pairs.text_rows).T),
            "global_i2t": 0.5 * global_i2t,
            "global_t2i": 0.5 * global_t2i,
        }

    def coarse(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the image's own pooled vector with the text's: (N,M)."""
        return cosine(image.pooled, text.pooled)

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of what the text pools from the image with the text."""
        with torch.autocast(image.pooled.device.type, enabled=False):
            asking = torch.cat([self._query(text.pooled), _wide(text.pooled)], dim=1)
            return all_pairs(self._conditioned, _packed(image), asking, side=SIDE)

    def attention_map(self, image: Encoded, text: Encoded) -> Tensor:
        """Where text b looks in image b: (B,L,P), mean over heads; each word has its caption's, rows sum to 1."""
        key, _, kept = self._parts(_packed(image))
        query = self._query(text.pooled).unflatten(1, (self.num_heads, -1))
        logits = torch.einsum("bhd,bhpd->bhp", query, key) * query.shape[-1] ** -0.5
        logits = logits.masked_fill(~kept[:, None], -torch.inf)[..., 1:]  # of what is looked at, not of the empty token
        return logits.softmax(-1).mean(1, keepdim=True).expand(-1, text.mask.shape[1], -1)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature in bounds."""
        self.temperature.clamp()

    def _query(self, unit: Tensor) -> Tensor:
        """Unit vectors (M,E), at length √E so that attention starts out able to choose, → (M,E)."""
        return self.query(math.sqrt(self.space.dim) * _wide(unit))

    def _parts(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (n,heads,1+P,E/heads), and what is kept (n,1+P)."""
        width = self.space.dim
        key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in packed[..., :-1].split(width, -1)
        )
        return key, value, packed[..., -1] > 0

    def _conditioned(self, image: Tensor, text: Tensor) -> Tensor:
        """Packed patches (n,1+P,2E+1), queries and unit vectors (m,2E) → (n,m)."""
        key, value, kept = self._parts(image)
        query, unit = (part.unflatten(1, (self.num_heads, -1)).transpose(0, 1) for part in text.chunk(2, 1))
        asking = query.expand(len(image), -1, -1, -1)
        pooled = F.scaled_dot_product_attention(
            asking, key, value, attn_mask=kept[:, None, None]
        )  # (n,heads,m,E/heads)
        squared = pooled.square().sum((1, 3))
        return (pooled * unit).sum((1, 3)) * squared.clamp_min(TINY).rsqrt()


def _packed(image: Encoded) -> Tensor:
    """Keys and values, and whether they are kept, with the empty token in front: (N,1+P,2E+1)."""
    tokens = torch.cat([_wide(image.tokens), image.mask[..., None]], dim=-1)
    packed = F.pad(tokens, (0, 0, 1, 0))
    packed[:, 0, -1] = 1
    return packed


def _wide(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype.itemsize >= 4 else vectors.float()
