"""The annotation files, in COCO 2017's layout and beside it.

- `captions_*.json`, `instances_*.json`: COCO's own layouts.
- `scene_graphs_*.json`: per picture its objects, its background, and whether it shows a held-out combination.
- `true_pairs_*.json`: per caption id the ids of *all* pictures of the split of which the caption is true.
- `sugarcrepe/*/*.json`: SugarCrepe's layout, one file per kind of hard negative.

The tags in `instances_*.json` are words, six shapes and eight colours, and every object has two of them.
Tags for pairs ("red star") would leave the held-out combinations without a single example in training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmlit.data.scenes.captions import CAPTIONS_PER_IMAGE
from mmlit.data.scenes.meaning import holds, tabulate
from mmlit.data.scenes.negatives import CHANGES
from mmlit.data.scenes.outlines import area, outline
from mmlit.data.scenes.samples import Sample, file_name
from mmlit.data.scenes.world import COLOURS, HELD_OUT, MAX_OBJECTS, SHAPES, SceneObject, has_held_out

TAGS = {("shape", word): number for number, word in enumerate(SHAPES, start=1)} | {
    ("colour", word): number for number, word in enumerate(COLOURS, start=len(SHAPES) + 1)
}


def captions_layout(*, samples: Sequence[Sample], size: int) -> dict[str, Any]:
    """Return the content of `captions_*.json`; `size` is the pictures' side in pixels."""
    annotations = [
        {"id": caption_id(sample.image_id, number), "image_id": sample.image_id, "caption": caption.text}
        for sample in samples
        for number, caption in enumerate(sample.captions)
    ]
    return _head(samples=samples, size=size) | {"annotations": annotations}


def instances_layout(*, samples: Sequence[Sample], size: int) -> dict[str, Any]:
    """Return the content of `instances_*.json`: two annotations per object, its shape's and its colour's."""
    categories = [
        {"id": number, "name": word, "supercategory": attribute} for (attribute, word), number in TAGS.items()
    ]
    annotations = [
        # Two tags for each of at most four objects: this never meets the next picture's ids.
        {"id": 2 * MAX_OBJECTS * sample.image_id + 2 * number + which, "image_id": sample.image_id}
        | {"category_id": TAGS[attribute, getattr(item, attribute)]}
        | _extent(item, size)
        for sample in samples
        for number, item in enumerate(sample.scene.objects)
        for which, attribute in enumerate(("shape", "colour"))
    ]
    return _head(samples=samples, size=size) | {"annotations": annotations, "categories": categories}


def graphs_layout(*, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the content of `scene_graphs_*.json`; lengths are fractions of the picture's side."""
    images = [
        {
            "image_id": sample.image_id,
            "file_name": file_name(sample.image_id),
            "background": sample.scene.background,
            "held_out": has_held_out(sample.scene),
            "objects": [item._asdict() for item in sample.scene.objects],
        }
        for sample in samples
    ]
    held_out = [{"colour": colour, "shape": shape} for colour, shape in sorted(HELD_OUT)]
    return {"held_out_combinations": held_out, "images": images}


def true_pairs(*, samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Return the content of `true_pairs_*.json`.

    Raises:
        RuntimeError: A caption is false of its own picture: the grammar and the semantics disagree.
    """
    table = tabulate([sample.scene for sample in samples])
    ids = np.array([sample.image_id for sample in samples])
    pairs = {}
    for place, sample in enumerate(samples):
        for number, caption in enumerate(sample.captions):
            true = holds(caption.form, table)
            if not true[place]:
                raise RuntimeError(f"caption {caption.text!r} is false of its own picture {sample.image_id}")
            pairs[str(caption_id(sample.image_id, number))] = ids[true].tolist()
    return pairs


def negatives_layout(*, samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, str]]]:
    """Return the contents of the files in `sugarcrepe/*/`, by kind."""
    layout: dict[str, dict[str, dict[str, str]]] = {kind: {} for kind in CHANGES}
    for sample in samples:
        for kind, negative in sample.negatives.items():
            item = {"filename": file_name(sample.image_id), **negative._asdict()}
            layout[kind][str(len(layout[kind]))] = item
    return layout


def caption_id(identity: int, number: int) -> int:
    """Return the id of a picture's caption, `number` from 0."""
    return CAPTIONS_PER_IMAGE * identity + number


def _head(*, samples: Sequence[Sample], size: int) -> dict[str, Any]:
    """Return what COCO's files have in common. No date: the bytes depend on the arguments alone."""
    images = [
        {"id": sample.image_id, "file_name": file_name(sample.image_id), "height": size, "width": size}
        for sample in samples
    ]
    return {"info": {"description": "mmlit scenes"}, "licenses": [], "images": images}


def _extent(item: SceneObject, size: int) -> dict[str, Any]:
    """Return an object's box (x, y, width, height) and area in pixels."""
    corners = [(size * x, size * y) for x, y in outline(shape=item.shape, centre=item.centre, radius=item.radius)]
    (left, top), (right, bottom) = (tuple(f(axis) for axis in zip(*corners, strict=True)) for f in (min, max))
    box = [round(value, 2) for value in (left, top, right - left, bottom - top)]
    return {"bbox": box, "area": round(area(corners), 2), "iscrowd": 0}
