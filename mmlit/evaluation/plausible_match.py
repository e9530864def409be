"""Plausible-match R-precision: two images that show nearly the same kinds of objects are taken for matches."""

from pathlib import Path

import torch
from torch import Tensor

from mmlit.evaluation.places import Judge, Side, judge, locate, sides
from mmlit.evaluation.ranking import Gallery, Score
from mmlit.evaluation.truth import ImageLabels, read_json

#: numbers of labels that only one of two images may show, for each of which an R-precision is computed
DISTANCES = (0, 1, 2)


class PlausibleMatch:
    """Object categories of COCO's `instances_*.json`.

    Args:
        root: the data set's folder.
        split: the reported split, put in for `{split}`.
        annotations: file below `root`; for Karpathy's splits of COCO `annotations/instances_val2014.json`.

    Source: Chun et al. 2021, "Probabilistic Embeddings for Cross-Modal Retrieval", arXiv 2101.05068, with
    `evaluate_pmrp_coco.py` of https://github.com/naver-ai/pcme.
    """

    def __init__(self, *, root: str | Path, split: str, annotations: str) -> None:
        self.file = Path(root) / annotations.format(split=split)

    def read(self) -> ImageLabels:
        """The categories of every image that the file lists, also of those without an object.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not what it should be.
        """
        hint = "COCO offers it among its annotations, as instances"
        content = read_json(self.file, hint, without="segmentation")  # the outlines are nearly all of the file
        try:
            image_id = torch.tensor(sorted({image["id"] for image in content["images"]}), dtype=torch.int64)
            category = torch.tensor(sorted({one["id"] for one in content["categories"]}), dtype=torch.int64)
            seen = [(one["image_id"], one["category_id"]) for one in content["annotations"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.file}: not in the layout of COCO's instances_*.json: {error!r}") from None
        row, column = torch.tensor(seen, dtype=torch.int64).reshape(-1, 2).T
        row, column = locate(row, image_id), locate(column, category)
        if (row < 0).any() or (column < 0).any():
            raise ValueError(f"{self.file}: an annotation names an image or a category that the file does not list")
        labels = torch.zeros(len(image_id), len(category), dtype=torch.bool)
        labels[row, column] = True
        return ImageLabels("plausible", f"images that {self.file} lists", image_id, labels)


def plausible_match(
    score: Score,
    coarse: Score | None,
    gallery: Gallery,
    truth: ImageLabels,
    *,
    images_ask: bool,
    num_candidates: int,
    image_block: int,
    text_block: int,
) -> tuple[Tensor, Tensor]:
    """Ids (Q,) of all queries whose image has a label, and PMRP (Q,) in percent.

    A match is a pair whose images (the query's or found image, the text's own) differ in at most ζ labels; PMRP is the
    mean over ζ = 0, 1, 2 of the share of matches among the first R places, R being their number. Images without labels
    and their texts neither ask nor count as places. Of equal scores the more different item goes first.

    Raises:
        ValueError: if a score is not finite, an image is not in the file, or no image has a label.

    Source: `PlausibleMatch`. Differs: ties count against the model.
    """
    labels = _labels(gallery, truth)
    asking, found = sides(gallery, images_ask=images_ask, image_block=image_block, text_block=text_block)
    shown = {True: labels, False: labels[locate(gallery.text_image_id, gallery.image_id)]}
    ours, theirs = shown[images_ask], shown[not images_ask]
    queries, counted = ours.any(1).nonzero().flatten(), theirs.any(1)
    cheap = judge(coarse or score, images_ask=images_ask)
    costly = judge(score, images_ask=images_ask) if coarse else None
    parts = []
    for rows in queries.split(asking.block):
        block = asking.take(rows)
        apart = _apart(ours[rows], theirs)
        order = _order(cheap(block, found), apart)
        if costly is not None:
            near = order[:, :num_candidates]
            order[:, :num_candidates] = _reranked(costly, block, found, near, apart)
        parts.append(_r_precision(apart.gather(1, order), counted[order]))
    order = asking.ids[queries].argsort()
    return asking.ids[queries][order].cpu(), 100 * torch.cat(parts)[order].cpu()


def _labels(gallery: Gallery, truth: ImageLabels) -> Tensor:
    at = locate(gallery.image_id.cpu(), truth.image_id)
    if (at < 0).any():
        strange = gallery.image_id.cpu()[at < 0]
        raise ValueError(
            f"{truth.name}: {len(strange):,} of the gallery's {len(at):,} images are unknown to it (the first: "
            f"image id {int(strange[0])}); it needs {truth.needs}"
        )
    if not truth.labels[at].any():
        raise ValueError(f"{truth.name}: none of the gallery's {len(at):,} images has a label")
    return truth.labels[at].to(gallery.image_id.device)


def _apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """How many labels only one of two images shows, capped above the largest distance that matters: (Q,C) int64."""
    one, other = ours.float(), theirs.float()
    distance = one.sum(1)[:, None] + other.sum(1) - 2 * one @ other.T
    return distance.long().clamp_max(DISTANCES[-1] + 1)


def _order(scores: Tensor, apart: Tensor) -> Tensor:
    """Items by falling score, of equal ones the more different first: (Q,C)."""
    order = apart.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))


def _reranked(costly: Judge, asking: Side, found: Side, near: Tensor, apart: Tensor) -> Tensor:
    """The candidates (Q,K) of each query in the costly score's order."""
    rows = []
    for row in range(len(near)):
        scores = costly(asking.take(torch.tensor([row], device=near.device)), found.take(near[row]))
        rows.append(near[row][_order(scores, apart[row, near[row]][None])[0]])
    return torch.stack(rows)


def _r_precision(apart: Tensor, counted: Tensor) -> Tensor:
    """Of items in their order (Q,C): mean R-precision over the distances (Q,)."""
    place = counted.cumsum(1)
    values = []
    for distance in DISTANCES:
        match = (apart <= distance) & counted
        number = match.sum(1, keepdim=True)
        values.append((match & (place <= number)).sum(1).double() / number[:, 0])
    return torch.stack(values).mean(0)
