"""Retrieval both ways as a torchmetrics metric: the one evaluator of all alignments."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import Gallery, Ranking, Score, rank_all
from mmlit.evaluation.reranking import rerank

KS = (1, 5, 10)


class RetrievalResult(NamedTuple):
    """Numbers in percent (median ranks as ranks), the ranking, the gallery's ids, and how it was scored."""

    metrics: dict[str, float]
    ranking: Ranking
    image_id: Tensor
    text_id: Tensor
    text_image_id: Tensor
    scored: str


class Retrieval(Metric):
    """Collects embedded images and texts of all devices, then ranks the whole gallery once, the same on every device.

    i2t counts a hit on any of an image's captions, t2i on the caption's image, both by id. Ids that a sampler repeats
    count once. Embeddings are kept and scored in fp32 whatever the training precision. An alignment that offers
    `coarse` is scored by reranking its candidates, any other over all pairs.

    Args:
        score: the alignment's `score`.
        coarse: its `coarse`, or None.
        max_text_tokens: the text encoder's `max_length`, to which tokens are padded while they are gathered.
        image_block: images scored at a time, ≥ 1.
        text_block: texts scored at a time, ≥ 1.
        num_candidates: candidates per query that reranking looks at, ≥ 1.

    Raises:
        ValueError: if a number is out of range.

    Source: recall at K as in Karpathy and Fei-Fei 2015, Sec. 4.2, arXiv 1412.2306.
    Differs: ties count against the model.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        *,
        score: Score,
        coarse: Score | None,
        max_text_tokens: int,
        image_block: int,
        text_block: int,
        num_candidates: int,
    ) -> None:
        super().__init__()
        for name, value in (
            ("image_block", image_block),
            ("text_block", text_block),
            ("num_candidates", num_candidates),
        ):
            if value < 1:
                raise ValueError(f"evaluator.{name} must be >= 1, got {value}")
        self.max_text_tokens, self.num_candidates = max_text_tokens, num_candidates
        self.image_block, self.text_block = image_block, text_block
        for name in ("image_id", "text_id", "text_image_id"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        for side in ("image", "text"):
            for part in Encoded._fields:
                self.add_state(f"{side}_{part}", default=[], dist_reduce_fx="cat")
        # bound methods, not the module: a metric that owned it would put its weights into every checkpoint twice
        self.score, self.coarse = score, coarse

    def update(self, image: Encoded, text: Encoded, image_id: Tensor, text_id: Tensor, text_image_id: Tensor) -> None:
        """Adds N embedded images and M embedded texts with their ids.

        Raises:
            ValueError: if a text has more tokens than `max_text_tokens`.
        """
        if text.tokens.shape[1]:
            gap = self.max_text_tokens - text.tokens.shape[1]
            if gap < 0:
                raise ValueError(f"texts have {text.tokens.shape[1]} tokens, more than {self.max_text_tokens}")
            pad = torch.nn.functional.pad
            text = Encoded(pad(text.tokens, (0, 0, 0, gap)), text.pooled, pad(text.mask, (0, gap)))
        new = {"image_id": image_id, "text_id": text_id, "text_image_id": text_image_id}
        for side, encoded in (("image", image), ("text", text)):
            for part, value in encoded._asdict().items():
                new[f"{side}_{part}"] = value.detach() if part == "mask" else value.detach().float()
        for name, value in new.items():
            getattr(self, name).append(value)

    def compute(self) -> RetrievalResult:
        """Ranks the gallery.

        Raises:
            ValueError: as `rank_all`.
        """
        gallery = self._gallery()
        blocks = {"image_block": self.image_block, "text_block": self.text_block}
        if self.coarse is None:
            ranking, scored = rank_all(self.score, gallery, **blocks), "full"
        else:
            ranking = rerank(self.coarse, self.score, gallery, num_candidates=self.num_candidates, **blocks)
            scored = f"rerank@{self.num_candidates}"
        return RetrievalResult(
            summarize(ranking), ranking, gallery.image_id, gallery.text_id, gallery.text_image_id, scored
        )

    def _gallery(self) -> Gallery:
        """All devices' items, each id once, in the order of their ids: captions of one image side by side."""
        cat = {name: _cat(getattr(self, name)) for name in self._defaults}
        images = _first_of_each(cat["image_id"])
        texts = _first_of_each(cat["text_id"])
        texts = texts[cat["text_image_id"][texts].argsort(stable=True)]
        return Gallery(
            Encoded(*(cat[f"image_{part}"][images] for part in Encoded._fields)),
            Encoded(*(cat[f"text_{part}"][texts] for part in Encoded._fields)),
            cat["image_id"][images],
            cat["text_id"][texts],
            cat["text_image_id"][texts],
        )


def summarize(ranking: Ranking) -> dict[str, float]:
    """R@1, 5, 10 in percent and median rank of both directions, and rsum, the sum of the six recalls."""
    metrics: dict[str, float] = {}
    for direction, rank in (("i2t", ranking.i2t_rank), ("t2i", ranking.t2i_rank)):
        for k in KS:
            metrics[f"{direction}_r{k}"] = 100 * (rank <= k).double().mean().item()
        # the mean of the middle two, where their number is even; torch.median takes the lower one
        metrics[f"{direction}_median_rank"] = rank.double().quantile(0.5).item()
    metrics["rsum"] = sum(value for name, value in metrics.items() if "_r" in name and "rank" not in name)
    return metrics


def _cat(parts: list[Tensor] | Tensor) -> Tensor:
    return parts if isinstance(parts, Tensor) else torch.cat(parts)


def _first_of_each(ids: Tensor) -> Tensor:
    """Positions of the first occurrence of each id, by increasing id."""
    order = ids.argsort(stable=True)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = ids[order][1:] != ids[order][:-1]
    return order[new]
