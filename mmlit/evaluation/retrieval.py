"""Retrieval both ways as a torchmetrics metric: the one evaluator of all alignments."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from mmlit.contracts import Encoded
from mmlit.evaluation.many_positives import many_positives
from mmlit.evaluation.protocol import Split, first_captions, folds, in_file_order, place_back, take
from mmlit.evaluation.ranking import Gallery, Ranking, Score, rank_all
from mmlit.evaluation.recall import KS, summarize
from mmlit.evaluation.rerank_curve import rerank_curve
from mmlit.evaluation.reranking import rerank
from mmlit.evaluation.truth import ImageLabels, OpenTruth, Truth

log = logging.getLogger(__name__)


class RetrievalResult(NamedTuple):
    """Numbers in percent (median ranks as ranks), the ranking, what was ranked, how it was scored, and by which rules.

    `protocol` is plain; two results of one gallery compare only if theirs are equal.
    """

    metrics: dict[str, float]
    ranking: Ranking
    gallery: Gallery
    scored: str
    protocol: dict[str, Any]


class Retrieval(Metric):
    """Collects embedded images and texts of all devices, then ranks the whole gallery once, the same on every device.

    i2t counts a hit on any of an image's captions, t2i on the caption's image, both by id. Ids that a sampler repeats
    count once. Embeddings are kept and scored in fp32 whatever the training precision. An alignment that offers
    `coarse` is scored by reranking its candidates, any other over all pairs.

    The rules of a published protocol (`images`, `captions_per_image`, `folds`, `truths`) hold for the split that is
    reported. What is seen in training, for selection, is ranked without them.

    Args:
        score: the alignment's `score`.
        coarse: its `coarse`, or None.
        max_text_tokens: the text encoder's `max_length`, to which tokens are padded while they are gathered.
        image_block: images scored at a time, ≥ 1.
        text_block: texts scored at a time, ≥ 1.
        num_candidates: candidates per query that reranking looks at, ≥ 1.
        images: number of images that the protocol ranks, any other is refused; None: whatever the split has.
        captions_per_image: how many captions of each image count, the first ones of the file; None: all.
        folds: equal runs of images in the file's order, each ranked by itself, metrics averaged; ≥ 1.
        rerank_ks: numbers of candidates for a curve of reranking, which needs `coarse`; empty: none.
        truths: open what else is true of the gallery beside its own pairs; each adds the metrics of `many_positives`.

    Raises:
        ValueError: if a number is out of range, or a curve is asked of what does not rerank.

    Source: recall at K as in Karpathy and Fei-Fei 2015, Sec. 4.2, arXiv 1412.2306, with the rules of its evaluation
    code for COCO: five captions, and "1K" as the mean of five folds of 1,000 images.
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
        images: int | None,
        captions_per_image: int | None,
        folds: int,
        truths: Sequence[OpenTruth],
        rerank_ks: Sequence[int],
    ) -> None:
        super().__init__()
        for name, value in (
            ("image_block", image_block),
            ("text_block", text_block),
            ("num_candidates", num_candidates),
            ("images", images),
            ("captions_per_image", captions_per_image),
            ("folds", folds),
        ):
            if value is not None and value < 1:
                raise ValueError(f"evaluator.{name} must be >= 1, got {value}")
        if rerank_ks and coarse is None:
            name = type(getattr(score, "__self__", score)).__name__
            raise ValueError(
                f"evaluator.rerank_ks: {name} has no cheap score to find candidates with, so nothing reranks"
            )
        self.max_text_tokens, self.num_candidates = max_text_tokens, num_candidates
        self.blocks = {"image_block": image_block, "text_block": text_block}
        self.images, self.captions_per_image, self.folds, self.truths = images, captions_per_image, folds, truths
        self.rerank_ks = rerank_ks
        self.split: Split | None = None
        self.true: list[Truth | ImageLabels] = []
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

    def begin(self, split: Split | None) -> None:
        """Forgets all items; what follows is the reported `split`, or (None) something that only guides training.

        Raises:
            FileNotFoundError: if a truth's files are missing; before anything is encoded.
            ValueError: if they are not what they should be, or the split has not as many images as the protocol ranks.
        """
        self.reset()
        self.split = split
        if split is not None:
            self._require_images(len(split.image_id), split)
        self.true = [source(root=split.root, split=split.name).read() for source in self.truths] if split else []

    def compute(self) -> RetrievalResult:
        """Ranks the gallery.

        Raises:
            ValueError: as `rank_all`; if the gallery is not what the protocol asks for.
        """
        gallery = self._gallery()
        scored = "full" if self.coarse is None else f"rerank@{self.num_candidates}"
        protocol: dict[str, Any] = {"name": "retrieval", "ks": list(KS), "ties": "against the model"}
        if self.split is None:
            ranking = self._rank(gallery)
            return RetrievalResult(summarize(ranking), ranking, gallery, scored, protocol)
        gallery = self._chosen(gallery, self.split)
        if self.captions_per_image is not None:
            protocol["captions_per_image"] = self.captions_per_image
        if self.folds > 1:
            protocol["folds"] = self.folds
        log.info("ranking %s images x %s texts", f"{len(gallery.image_id):,}", f"{len(gallery.text_id):,}")
        parts = [
            (images, texts, self._rank(take(gallery, images, texts))) for images, texts in folds(gallery, self.folds)
        ]
        each = [summarize(ranking) for _, _, ranking in parts]
        metrics = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        for truth in self.true:
            log.info("many positives: places of %s in both directions", truth.name)
            protocol.setdefault("truths", []).append(f"{truth.name} {truth.fingerprint()}")
            metrics |= many_positives(
                self.score, self.coarse, gallery, truth, num_candidates=self.num_candidates, **self.blocks
            ).metrics
        if self.rerank_ks:
            log.info("reranking with %s candidates", ", ".join(map(str, self.rerank_ks)))
            curve = rerank_curve(self.score, self.coarse, gallery, ks=self.rerank_ks, **self.blocks)
            metrics |= {name: value for point in curve for name, value in point.named().items()}
        return RetrievalResult(metrics, place_back(parts, gallery), gallery, scored, protocol)

    def _rank(self, gallery: Gallery) -> Ranking:
        if self.coarse is None:
            return rank_all(self.score, gallery, **self.blocks)
        return rerank(self.coarse, self.score, gallery, num_candidates=self.num_candidates, **self.blocks)

    def _chosen(self, gallery: Gallery, split: Split) -> Gallery:
        """What the protocol ranks; in the file's order where that says what counts."""
        self._require_images(len(gallery.image_id), split)  # fewer than the split has if batches are limited
        if self.captions_per_image is None and self.folds == 1:
            return gallery
        gallery = in_file_order(gallery, split)
        return gallery if self.captions_per_image is None else first_captions(gallery, self.captions_per_image)

    def _require_images(self, found: int, split: Split) -> None:
        if self.images not in (None, found):
            raise ValueError(
                f"evaluator.images={self.images:,}: this protocol ranks that many, split {split.name} of {split.root} "
                f"gave {found:,}"
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


def _cat(parts: list[Tensor] | Tensor) -> Tensor:
    return parts if isinstance(parts, Tensor) else torch.cat(parts)


def _first_of_each(ids: Tensor) -> Tensor:
    """Positions of the first occurrence of each id, by increasing id."""
    order = ids.argsort(stable=True)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = ids[order][1:] != ids[order][:-1]
    return order[new]
