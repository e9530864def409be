"""One picture with all that belongs to it, a function of (seed, split, index) and of nothing else."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.captions import Caption, draw_captions
from mmlit.data.scenes.negatives import Negative, draw_negatives
from mmlit.data.scenes.render import render
from mmlit.data.scenes.world import SPLITS, Scene, draw_scene

# Every split has its own range of ids, so that an id does not depend on how large the other splits are.
MAX_IMAGES = 10_000_000
JPEG_QUALITY = 95


class Sample(NamedTuple):
    """What the annotation files say of one picture."""

    image_id: int
    scene: Scene
    captions: tuple[Caption, ...]
    negatives: dict[str, Negative]


class Chunk(NamedTuple):
    """The pictures `first` to `last - 1` of a split, `size` pixels wide and high, to be written to
    `folder`."""

    folder: Path
    split: str
    first: int
    last: int
    size: int
    seed: int


def image_id(*, split: str, index: int) -> int:
    """Return the id of the picture with this index, from 0, in its split."""
    return SPLITS.index(split) * MAX_IMAGES + index + 1


def file_name(identity: int) -> str:
    """Return the name that COCO 2017 gives to the picture with this id."""
    return f"{identity:012d}.jpg"


def make_chunk(chunk: Chunk) -> list[Sample]:
    """Draw and write the pictures of a chunk."""
    return [_make(chunk=chunk, index=index) for index in range(chunk.first, chunk.last)]


def _make(*, chunk: Chunk, index: int) -> Sample:
    # A stream for each purpose: a change of the grammar leaves the pictures as they are.
    streams = [np.random.default_rng([chunk.seed, SPLITS.index(chunk.split), index, part]) for part in range(4)]
    scene = draw_scene(rng=streams[0], split=chunk.split)
    captions = draw_captions(rng=streams[1], scene=scene)
    negatives = {}
    if chunk.split != "train":
        negatives = draw_negatives(rng=streams[2], scene=scene, captions=captions, split=chunk.split)
    identity = image_id(split=chunk.split, index=index)
    picture = render(rng=streams[3], scene=scene, size=chunk.size)
    # No chroma subsampling: at 32 pixels it would smear the colours of small objects.
    picture.save(chunk.folder / file_name(identity), format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Sample(image_id=identity, scene=scene, captions=captions, negatives=negatives)
