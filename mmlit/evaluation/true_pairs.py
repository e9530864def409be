"""All pairs of rendered scenes of which the caption is true."""

from pathlib import Path

import torch

from mmlit.evaluation.truth import Truth, read_json, relevance


class SceneTruePairs:
    """`true_pairs_*.json` of the scenes: for each caption id the ids of every picture of which the caption is true.

    Args:
        root: the data set's folder.
        split: the reported split, put in for `{split}`.
        annotations: the file below `root`.
    """

    def __init__(self, *, root: str | Path, split: str, annotations: str) -> None:
        self.file = Path(root) / annotations.format(split=split)

    def read(self) -> Truth:
        """All true pairs.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not what it should be.
        """
        content = read_json(self.file, "`mmlit data scenes` writes it, for val and test")
        try:
            pairs = [(int(text), int(image)) for text, images in content.items() for image in images]
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.file}: not caption id → picture ids: {error}") from None
        return Truth(
            name="true_pairs",
            needs=f"all pictures and captions of {self.file}",
            i2t=relevance((image, text) for text, image in pairs),
            t2i=relevance(pairs),
            graded=False,
            threshold=1.0,
            optional_text_id=torch.zeros(0, dtype=torch.int64),
        )
