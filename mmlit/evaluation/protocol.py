"""Which part of a gallery a published protocol ranks: how many captions, in which folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.evaluation.ranking import Gallery, Ranking


class Split(NamedTuple):
    """The split that numbers are reported on: its image ids (N,) and text ids (M,) in its file's order."""

    name: str
    root: Path
    image_id: Tensor
    text_id: Tensor


def in_file_order(gallery: Gallery, split: Split) -> Gallery:
    """The same items in the order of the split's file: protocols count captions and images from its top.

    Raises:
        ValueError: if the gallery holds an id that the split does not.
    """
    images = _places(gallery.image_id, split.image_id, "image").argsort()
    texts = _places(gallery.text_id, split.text_id, "text").argsort()
    return take(gallery, images, texts)


def first_captions(gallery: Gallery, count: int) -> Gallery:
    """Every image with its first `count` texts in the gallery's order.

    COCO has 25,010 captions for the 5,000 test images of Karpathy's split; the usual protocol keeps 25,000.

    Raises:
        ValueError: naming an image that has fewer.
    """
    order = gallery.text_image_id.argsort(stable=True)
    owner = gallery.text_image_id[order]
    starts = torch.searchsorted(owner, owner)  # of the run of equal owners that each lies in
    keep = order[torch.arange(len(owner), device=owner.device) - starts < count].sort().values
    ids, number = gallery.text_image_id[keep].unique(return_counts=True)
    if (few := number < count).any():
        raise ValueError(
            f"evaluator.captions_per_image={count}: image id {int(ids[few][0])} has {int(number[few][0])} captions"
        )
    return take(gallery, torch.arange(len(gallery.image_id), device=keep.device), keep)


def folds(gallery: Gallery, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of the images and of the texts of each of `count` equal runs of images, in the gallery's order.

    Raises:
        ValueError: if the images cannot be shared out evenly.
    """
    size, rest = divmod(len(gallery.image_id), count)
    if rest or not size:
        raise ValueError(f"evaluator.folds={count}: {len(gallery.image_id):,} images cannot be shared out evenly")
    for images in torch.arange(len(gallery.image_id), device=gallery.image_id.device).split(size):
        yield images, torch.isin(gallery.text_image_id, gallery.image_id[images]).nonzero().flatten()


def take(gallery: Gallery, images: Tensor, texts: Tensor) -> Gallery:
    """The images number `images` and the texts number `texts`, in that order."""
    return Gallery(
        gallery.image.take(images),
        gallery.text.take(texts),
        gallery.image_id[images],
        gallery.text_id[texts],
        gallery.text_image_id[texts],
    )


def place_back(parts: list[tuple[Tensor, Tensor, Ranking]], gallery: Gallery) -> Ranking:
    """One ranking of the whole gallery from (images, texts, ranking) of its folds; ranks are those within a fold."""
    num_images, num_texts = len(gallery.image_id), len(gallery.text_id)
    first = parts[0][2]
    whole = Ranking(
        first.i2t_rank.new_zeros(num_images),
        first.i2t_top.new_full((num_images, first.i2t_top.shape[1]), -1),
        first.t2i_rank.new_zeros(num_texts),
        first.t2i_top.new_full((num_texts, first.t2i_top.shape[1]), -1),
    )
    for images, texts, ranking in parts:
        whole.i2t_rank[images], whole.t2i_rank[texts] = ranking.i2t_rank, ranking.t2i_rank
        whole.i2t_top[images] = _numbered(ranking.i2t_top, texts)
        whole.t2i_top[texts] = _numbered(ranking.t2i_top, images)
    return whole


def _numbered(top: Tensor, items: Tensor) -> Tensor:
    """Numbers within a fold → numbers in the gallery; −1 stays."""
    return items[top.clamp_min(0)].masked_fill(top < 0, -1)


def _places(ids: Tensor, order: Tensor, side: str) -> Tensor:
    """Where each id stands in `order`, whose ids are all different."""
    order = order.to(ids.device)
    sorted_ids, places = order.sort()
    at = torch.searchsorted(sorted_ids, ids).clamp_max(len(order) - 1)
    strange = (sorted_ids[at] != ids).nonzero()
    if len(strange):
        raise ValueError(f"{side} id {int(ids[strange[0]])} is not in the reported split")
    return places[at]
