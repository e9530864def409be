"""ARO, Visual Genome: a caption against the same with its objects, or its attributes, exchanged."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmlit.evaluation.pictures import PictureFolder, read_json, text_in
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer
from mmlit.evaluation.questions import Box, Question, caption_scores, fingerprint

_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


class Aro(Probe):
    """How often, in percent, the true caption scores higher than the false one: `accuracy`, and `macro` over groups.

    Args:
        annotations: a JSON list: `{"image_path", "true_caption", "false_caption", …}`, with `bbox_x, bbox_y, bbox_w,
            bbox_h` in px where only that part of the picture is shown.
        images: folder of the pictures.
        group_by: the key that names an item's group, a text or a list of texts; None: no macro mean.
        groups: the groups that `macro` averages, as far as the file has them; None: all. A list of texts is a group by
            its texts joined by _.
        min_items: a group with fewer items is left out of `macro`, ≥ 1.
        batch_size: pictures encoded at a time, ≥ 1.

    Raises:
        ValueError: if `min_items` or `batch_size` is out of range, or `groups` are given without `group_by`.

    Source: Yuksekgonul et al. 2023, Sec. 2 and App. A, arXiv 2210.01936. As published, relations are averaged over
    those that are not symmetric, attributes over pairs with at least 25 items.
    """

    def __init__(
        self,
        *,
        annotations: str,
        images: str,
        group_by: str | None,
        groups: list[str] | None,
        min_items: int,
        batch_size: int,
    ) -> None:
        for name, value in (("min_items", min_items), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"evaluator.{name} must be >= 1, got {value}")
        if groups is not None and (group_by is None or not groups):
            raise ValueError(f"evaluator.groups={groups} needs names, and evaluator.group_by, got group_by={group_by}")
        self.annotations, self.images, self.batch_size = annotations, images, batch_size
        self.group_by, self.groups, self.min_items = group_by, groups, min_items

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Asks every item.

        Raises:
            FileNotFoundError: if the file or a picture is missing.
            ValueError: if an item is broken, a score not finite, or no group is left for `macro`.
        """
        file = Path(self.annotations).expanduser()
        entries = read_json("evaluator.annotations", file)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{file}: no list with items in it; is this one of ARO's files?")
        folder = PictureFolder(option="evaluator.images", folder=self.images)
        places = [f"{file}: item {number}" for number in range(len(entries))]
        questions = [_question(where, entry, folder) for where, entry in zip(places, entries, strict=True)]
        members = self._members(file, [self._group(*pair) for pair in zip(places, entries, strict=True)])
        scores = caption_scores(model, questions, batch_size=self.batch_size)
        right = scores[:, 0] > scores[:, 1]
        metrics = {"accuracy": 100 * float(right.mean())}
        if self.group_by is not None:
            metrics["macro"] = 100 * float(np.mean([right[numbers].mean() for numbers in members.values()]))
        return ProbeResult(
            metrics=metrics,
            items={"accuracy": right},
            counts={
                "items": len(questions),
                "pictures": len({(question.picture, question.box) for question in questions}),
                "groups": len(members),
            },
            protocol={
                "probe": "aro",
                "questions": fingerprint(questions),
                "macro": "not reported" if self.group_by is None else {self.group_by: sorted(members)},
                "ties": "against the model",
            },
        )

    def _group(self, where: str, entry: dict[str, Any]) -> str:
        """The name of an item's group, or nothing."""
        if self.group_by is None:
            return ""
        value = entry.get(self.group_by)
        parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str) and part]
        if not parts or (isinstance(value, list) and len(parts) < len(value)):
            raise ValueError(f"{where} has no {self.group_by}, got {value!r}")
        return "_".join(parts)

    def _members(self, file: Path, names: list[str]) -> dict[str, list[int]]:
        """The groups that `macro` averages, each with the numbers of its items."""
        if self.group_by is None:
            return {}
        members: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if self.groups is None or name in self.groups:
                members.setdefault(name, []).append(number)
        left = {name: numbers for name, numbers in members.items() if len(numbers) >= self.min_items}
        if not left:
            raise ValueError(
                f"{file}: no {self.group_by} with at least {self.min_items} items is left for the macro mean "
                f"(evaluator.groups={self.groups})"
            )
        return left


def _question(where: str, entry: Any, folder: PictureFolder) -> Question:
    name = text_in(where, entry, "image_path")
    captions = (text_in(where, entry, "true_caption"), text_in(where, entry, "false_caption"))
    path = folder.path(where, name)
    return Question(where, path, captions, _box(where, entry, folder.size(name)))


def _box(where: str, entry: dict[str, Any], size: tuple[int, int]) -> Box | None:
    """What of a picture of this size an item shows; None: all of it."""
    values = [entry.get(key) for key in _BOX]
    if all(value is None for value in values):
        return None
    numbers = [round(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if len(numbers) < len(_BOX):
        raise ValueError(f"{where} has an incomplete box: {dict(zip(_BOX, values, strict=True))}")
    x, y, width, height = numbers
    if width < 1 or height < 1 or x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        raise ValueError(f"{where} has a box that shows nothing of its picture of {size[0]} x {size[1]} px: {values}")
    return x, y, x + width, y + height
