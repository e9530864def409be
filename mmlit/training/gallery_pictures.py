"""What a model finds: the five best for a few queries, both ways, as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from mmlit.contracts import uniform
from mmlit.data.captions import Captions
from mmlit.evaluation.retrieval import RetrievalResult
from mmlit.training.canvas import FAINT, INK, LINE, RIGHT, RIGHT_PAPER, Page, font, thumbnail, wrapped
from mmlit.training.pictures import show

#: queries of each direction, and answers shown of each
_QUERIES, _ANSWERS = 4, 5
_WIDTH, _SIDE = 1080, 168


class GalleryPictures(Callback):
    """After the test: `gallery_image_to_text.png` and `gallery_text_to_image.png`; right answers are framed in green.

    The queries are drawn by a hash of their ids, so every run on the same data shows the same ones.

    Args:
        folder: where the files go.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        result: RetrievalResult | None = pl_module.result  # type: ignore[assignment]
        if trainer.is_global_zero and result is not None:
            captions: Captions = trainer.datamodule.readers["test"].captions  # type: ignore[attr-defined]
            name = self.folder.parent.name
            show(
                trainer,
                {
                    "gallery_image_to_text": lambda: image_to_text(result, captions, name=name),
                    "gallery_text_to_image": lambda: text_to_image(result, captions, name=name),
                },
                folder=self.folder,
            )


def drawn(ids: Tensor, count: int, *, key: int) -> list[int]:
    """Places of at most `count` ids, the same for every gallery that holds them."""
    return uniform(key, ids).argsort()[:count].tolist()


class _Found(NamedTuple):
    """A query's place in its side of the gallery, the rank of its first right answer, and its best answers' ids."""

    place: int
    rank: int
    answers: list[int]


def _found(queries: Sequence[int], rank: Tensor, top: Tensor, ids: Tensor) -> list[_Found]:
    rank, top = torch.atleast_1d(rank), torch.atleast_2d(top)
    return [
        _Found(query, int(rank[query]), [int(ids[answer]) for answer in top[query, :_ANSWERS] if answer >= 0])
        for query in queries
    ]


def image_to_text(result: RetrievalResult, captions: Captions, *, name: str) -> Image.Image:
    """A row for each picture: itself, and the captions that the model holds for most likely."""
    gallery, ranking = result.gallery, result.ranking
    image_id, text_id = (torch.atleast_1d(ids).cpu() for ids in (gallery.image_id, gallery.text_id))
    page = Page(width=_WIDTH, title="Picture → captions", about=_about(name, len(text_id), "captions"))
    queries = drawn(image_id, _QUERIES, key=1)
    for found in _found(queries, ranking.i2t_rank, ranking.i2t_top, text_id):
        own = _number(captions.image_id, image_id[found.place])
        page.rule()
        page.below += 20
        top = page.below
        page.picture((page.MARGIN, top), thumbnail(captions.picture(own), _SIDE))
        page.text((page.MARGIN, top + _SIDE + 8), f"first right one: rank {found.rank}", size=13, colour=FAINT)
        for place, answer in enumerate(found.answers, start=1):
            text = _number(captions.text_id, answer)
            _caption(page, place, captions.texts[text].as_py(), right=text in captions.texts_of(own))
        page.below = max(page.below, top + _SIDE + 34) + 6
    return page.finished()


def text_to_image(result: RetrievalResult, captions: Captions, *, name: str) -> Image.Image:
    """A row for each caption: itself, the pictures that the model holds for most likely, the right one if missed."""
    gallery, ranking = result.gallery, result.ranking
    image_id, text_id = (torch.atleast_1d(ids).cpu() for ids in (gallery.image_id, gallery.text_id))
    page = Page(width=_WIDTH, title="Caption → pictures", about=_about(name, len(image_id), "pictures"))
    queries = drawn(text_id, _QUERIES, key=2)
    for found in _found(queries, ranking.t2i_rank, ranking.t2i_top, image_id):
        text = _number(captions.text_id, text_id[found.place])
        own = int(np.searchsorted(captions.first, text, side="right")) - 1
        page.rule()
        page.below += 16
        for line in wrapped(captions.texts[text].as_py(), font(16, "bold"), _WIDTH - 2 * page.MARGIN, most=2):
            page.text((page.MARGIN, page.below), line, size=16, weight="bold")
            page.below += 24
        page.below += 12
        answers = [_number(captions.image_id, answer) for answer in found.answers]
        for place, answer in enumerate(answers):
            at = (page.MARGIN + 6 + place * (_SIDE + 18), page.below)
            page.picture(at, thumbnail(captions.picture(answer), _SIDE - 14), right=answer == own)
            page.text((at[0], at[1] + _SIDE - 6), str(place + 1), size=13, colour=FAINT)
        if own not in answers:
            _missed(page, captions.picture(own), found.rank)
        page.below += _SIDE + 22
    return page.finished()


def _missed(page: Page, file: bytes, rank: int) -> None:
    side = _SIDE - 62
    at = (page.image.width - page.MARGIN - side - 6, page.below)
    page.draw.line((at[0] - 15, at[1], at[0] - 15, at[1] + _SIDE - 14), fill=LINE)
    page.picture(at, thumbnail(file, side), right=True)
    page.text((at[0] - 4, at[1] + side + 12), "the right one:", size=13, colour=FAINT)
    page.text((at[0] - 4, at[1] + side + 29), f"rank {rank}", size=13, colour=FAINT)


def _caption(page: Page, place: int, text: str, *, right: bool) -> None:
    """One answer in a box, one or two lines high, right of the picture."""
    left, width = page.MARGIN + _SIDE + 24, page.image.width - 2 * page.MARGIN - _SIDE - 24
    lines = wrapped(text, font(14), width - 56, most=2)
    height = 12 + 19 * len(lines)
    box = (left, page.below, left + width, page.below + height)
    page.draw.rounded_rectangle(
        box, 5, fill=RIGHT_PAPER if right else None, outline=RIGHT if right else LINE, width=3 if right else 1
    )
    page.text((left + 14, page.below + 6), str(place), size=14, weight="bold", colour=RIGHT if right else FAINT)
    for number, line in enumerate(lines):
        page.text((left + 42, page.below + 6 + 19 * number), line, size=14, colour=INK)
    page.below += height + 7


def _about(name: str, count: int, what: str) -> str:
    return f"the {_ANSWERS} best of {count:,} {what}, right ones in green · {name}"


def _number(ids: np.ndarray, wanted: Tensor | int) -> int:
    """Where an id stands in a split's file."""
    return int(np.flatnonzero(ids == int(wanted))[0])
