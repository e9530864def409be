"""ECCV Caption's and CxC's positives for the test images of Karpathy's COCO split, from the package `eccv_caption`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from mmlit.evaluation.truth import Truth, read_json, relevance


class EccvCaption:
    """Positives that machines proposed and people confirmed, in the files of the package `eccv_caption`.

    They are for the gallery of 5,000 images with five captions each. Two positive captions are not among those 25,000;
    as in the package, they count as positives, and are found only where the gallery has them.

    Args:
        root: the data set's folder; the positives lie in the package instead.
        split: the reported split, which must be `test`.
        positives: `eccv` for ECCV Caption (1,261 images and 1,332 captions ask), `cxc` for the pairs that people
            rated 3 or higher in Crisscrossed Captions (5,000 images and 24,972 captions ask).

    Raises:
        ValueError: if `split` is another, `positives` is neither, or the package is not installed.

    Source: Chun et al. 2022, "ECCV Caption", arXiv 2204.03359; https://github.com/naver-ai/eccv-caption. For CxC,
    Parekh et al. 2021, "Crisscrossed Captions", Sec. 3, arXiv 2004.15020, in the package's reading.
    """

    def __init__(self, *, root: str | Path, split: str, positives: Literal["eccv", "cxc"]) -> None:
        if split != "test":
            raise ValueError(
                f"split={split}: ECCV Caption has positives for the test split of data=coco_karpathy alone"
            )
        if positives not in ("eccv", "cxc"):
            raise ValueError(f"positives must be eccv or cxc, got {positives}")
        package = find_spec("eccv_caption")
        if package is None or not package.submodule_search_locations:
            raise ValueError("ECCV Caption's positives need the package eccv_caption: pip install -e '.[eccv]'")
        self.folder, self.positives = Path(package.submodule_search_locations[0]) / "data", positives

    def read(self) -> Truth:
        """All positives.

        Raises:
            FileNotFoundError: if the package lacks a file.
        """
        i2t = relevance(self._pairs(f"{self.positives}_image_to_caption.json"))
        t2i = relevance(self._pairs(f"{self.positives}_caption_to_image.json"))
        usual = torch.tensor([text for text, _ in self._pairs("original_caption_to_image.json")])
        named = torch.cat([i2t.item_id, t2i.query_id]).unique()
        return Truth(
            name=self.positives,
            needs="all 5,000 test images of Karpathy's COCO split with their five captions",
            i2t=i2t,
            t2i=t2i,
            graded=False,
            threshold=1.0,
            optional_text_id=named[~torch.isin(named, usual)],
        )

    def _pairs(self, name: str) -> list[tuple[int, int]]:
        content = read_json(self.folder / name, "install eccv_caption anew")
        return [(int(query), int(item)) for query, items in content.items() for item in items]
