"""Crisscrossed Captions: how well people found that captions describe images of COCO."""

import csv
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from mmlit.evaluation.truth import Relevance, Truth

HEADER = ["caption", "image", "agg_score", "sampling_method"]
POSITIVE = 3.0
USUAL_CAPTIONS = 5


class CrisscrossedCaptions:
    """The ratings 0…5 of caption–image pairs in `sits_{val,test}.csv`; 3 or higher is a positive.

    An image's own caption is a pair like any other: most are rated 3 or higher, a few are not. A pair that is rated
    twice counts with its higher rating. Where an image has more
    than five rated captions of its own, a gallery may lack some of them: the usual protocol keeps five.

    Args:
        root: the data set's folder.
        split: the reported split, put in for `{split}`.
        ratings: the CSV file below `root`.

    Source: Parekh et al. 2021, "Crisscrossed Captions", Sec. 3, arXiv 2004.15020; the files of
    https://github.com/google-research-datasets/Crisscrossed-Captions.
    """

    def __init__(self, *, root: str | Path, split: str, ratings: str) -> None:
        self.file = Path(root) / ratings.format(split=split)

    def read(self) -> Truth:
        """All ratings.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a row is not what it should be.
        """
        text_id, image_id, grade, own = self._columns()
        surplus = [image for image, count in Counter(image_id[own].tolist()).items() if count > USUAL_CAPTIONS]
        optional = text_id[own & torch.isin(image_id, torch.tensor(surplus, dtype=torch.int64))]
        by_image, by_text = (first.argsort(stable=True) for first in (image_id, text_id))
        return Truth(
            name="cxc",
            needs="all images of that split of data=coco_karpathy with their captions",
            i2t=Relevance(image_id[by_image], text_id[by_image], grade[by_image]),
            t2i=Relevance(text_id[by_text], image_id[by_text], grade[by_text]),
            graded=True,
            threshold=POSITIVE,
            optional_text_id=optional.unique(),
        )

    def _columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Text ids, image ids, grades, and whether the caption is the image's own."""
        if not self.file.is_file():
            raise FileNotFoundError(f"there is no {self.file}; the authors of Crisscrossed Captions offer it on GitHub")
        with self.file.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if (header := next(rows, [])) != HEADER:
                raise ValueError(f"{self.file}: the first line must be {','.join(HEADER)}, got {','.join(header)}")
            pairs: dict[tuple[int, int], tuple[float, bool]] = {}
            for number, row in enumerate(rows, start=2):
                pair, grade, own = self._row(row, number)
                before, was_own = pairs.get(pair, (grade, own))
                pairs[pair] = max(before, grade), own or was_own
        ids = torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2)
        grades = torch.tensor([grade for grade, _ in pairs.values()], dtype=torch.float64)
        return ids[:, 0], ids[:, 1], grades, torch.tensor([own for _, own in pairs.values()], dtype=torch.bool)

    def _row(self, row: list[str], number: int) -> tuple[tuple[int, int], float, bool]:
        try:
            caption, image, rating, method = row
            pair = int(caption.rpartition(":")[2]), int(Path(image).stem.rpartition("_")[2])
            grade = float(rating)
        except ValueError:
            raise ValueError(f"{self.file}: line {number} is not {','.join(HEADER)}: {','.join(row)}") from None
        if not 0 <= grade <= 5:
            raise ValueError(f"{self.file}: line {number}: agg_score must be 0…5, got {rating}")
        return pair, grade, method == "c2i_original"
