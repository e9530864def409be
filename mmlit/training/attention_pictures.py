"""Where the words of a caption look: word → patch maps of an alignment with attention, as a picture."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.data.reader import BatchReader
from mmlit.data.token_table import Tokenize
from mmlit.evaluation.ranking import Gallery
from mmlit.training.canvas import FAINT, Page, fitted, font, shortened, wrapped
from mmlit.training.gallery_pictures import drawn
from mmlit.training.module import RetrievalModule
from mmlit.training.pictures import show

_PAIRS = 4
_WIDTH, _SIDE, _TILE, _GAP = 1080, 200, 124, 12
#: how much of a picture is left where a word does not look
_DIM = 0.28

AttentionMap = Callable[[Encoded, Encoded], Tensor]


class Word(NamedTuple):
    """A word of a caption and the tokens that it became, `start` … `stop` − 1."""

    text: str
    start: int
    stop: int


class AttentionPictures(Callback):
    """After the test of an alignment with `attention_map`: `attention.png`, a few pictures with their first captions.

    The pictures are drawn by a hash of their ids, so every run on the same data shows the same ones.

    Args:
        folder: where the file goes.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        attention_map: AttentionMap | None = getattr(pl_module.alignment, "attention_map", None)
        if not trainer.is_global_zero or pl_module.result is None or attention_map is None:
            return
        gallery = pl_module.result.gallery
        reader: BatchReader = trainer.datamodule.readers["test"]  # type: ignore[attr-defined]
        tokenize = pl_module.text_encoder.tokenize
        name = self.folder.parent.name
        show(
            trainer,
            {"attention": lambda: attention_page(attention_map, gallery, reader, tokenize, name=name)},
            folder=self.folder,
        )


@torch.inference_mode()
def attention_page(
    attention_map: AttentionMap, gallery: Gallery, reader: BatchReader, tokenize: Tokenize, *, name: str
) -> Image.Image:
    """A row of tiles for each pair: a word, and the picture lit where the word looks."""
    captions = reader.captions
    page = Page(
        width=_WIDTH,
        title="Word → patches",
        about=f"bright: where the word looks; a caption's tiles share one scale · {name}",
    )
    for image in drawn(torch.atleast_1d(gallery.image_id).cpu(), _PAIRS, key=1):
        image_id = int(torch.atleast_1d(gallery.image_id)[image])
        text = int((gallery.text_image_id == image_id).nonzero().flatten()[0])
        one_image, one_text = gallery.image.take(slice(image, image + 1)), gallery.text.take(slice(text, text + 1))
        weights = attention_map(one_image, one_text)[0].float().cpu()
        number = int(np.flatnonzero(captions.image_id == image_id)[0])
        caption = captions.texts[int(np.flatnonzero(captions.text_id == int(gallery.text_id[text]))[0])].as_py()
        pixels = Image.fromarray(reader.pixels([number])[0].permute(1, 2, 0).numpy())
        words = spans(tokenize, caption)
        maps = [grid(weights[word.start : word.stop].mean(0)) for word in words]
        _row(page, pixels, caption, [word.text for word in words], maps)
    return page.finished()


def spans(tokenize: Tokenize, text: str) -> list[Word]:
    """Which tokens each word of a text became, for any tokenizer that does not join words; words cut off are left out.

    Read off the lengths of the text's beginnings, for encoders do not tell their tokens' letters.
    """
    words = text.split()
    ids, mask = tokenize(["", *(" ".join(words[: count + 1]) for count in range(len(words)))])
    lengths = mask.sum(1).tolist()
    first = next((place for place, (one, other) in enumerate(zip(ids[0], ids[-1], strict=True)) if one != other), 0)
    first = min(first, lengths[0])  # special tokens in front: what the empty text and this one begin with
    counts = [first + length - lengths[0] for length in lengths]
    found = [Word(word, *ends) for word, ends in zip(words, pairwise(counts), strict=True)]
    return [word for word in found if word.stop > word.start]


def grid(weights: Tensor) -> np.ndarray:
    """Weights (P,) of patches row by row → a square; tokens beyond the largest square stand for no place and lead."""
    side = math.isqrt(len(weights))
    return weights[len(weights) - side * side :].reshape(side, side).numpy()


def lit(pixels: Image.Image, weights: np.ndarray, side: int) -> Image.Image:
    """The picture at `side` px, dimmed where `weights`, 0 … 1, are low."""
    light = Image.fromarray((255 * (_DIM + (1 - _DIM) * weights.clip(0, 1))).astype(np.uint8))
    light = light.resize((side, side), Image.Resampling.BICUBIC)
    return Image.composite(fitted(pixels, side), Image.new("RGB", (side, side)), light)


def _row(page: Page, pixels: Image.Image, caption: str, words: Sequence[str], maps: Sequence[np.ndarray]) -> None:
    page.rule()
    page.below += 16
    for line in wrapped(caption, font(16, "bold"), _WIDTH - 2 * page.MARGIN, most=2):
        page.text((page.MARGIN, page.below), line, size=16, weight="bold")
        page.below += 24
    page.below += 12
    page.picture((page.MARGIN, page.below), fitted(pixels, _SIDE))
    highest = max((float(weights.max()) for weights in maps), default=1.0)
    page.text((page.MARGIN, page.below + _SIDE + 6), f"highest weight: {highest:.2f}", size=13, colour=FAINT)
    left = page.MARGIN + _SIDE + 24
    columns = (_WIDTH - page.MARGIN - left + _GAP) // (_TILE + _GAP)
    for place, (word, weights) in enumerate(zip(words, maps, strict=True)):
        at = (left + place % columns * (_TILE + _GAP), page.below + place // columns * (_TILE + 30))
        page.picture(at, lit(pixels, weights / highest, _TILE))
        page.text((at[0], at[1] + _TILE + 4), shortened(word, font(14), _TILE), size=14)
    rows = -(-len(words) // columns)
    page.below += max(_SIDE + 36, rows * (_TILE + 30) + 8)
