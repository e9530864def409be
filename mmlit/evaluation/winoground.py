"""Winoground: two pictures and two captions of the same words; which belongs to which?"""

import json
from pathlib import Path

from mmlit.evaluation.pictures import PictureFolder, text_in
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer
from mmlit.evaluation.questions import Question, caption_scores, fingerprint


class Winoground(Probe):
    """Percent of examples where the caption is found for both pictures, the picture for both captions, and both.

    `text_score`: each picture scores higher with its own caption than with the other. `image_score`: each caption
    scores higher with its own picture. `group_score`: both. By chance 25, 25 and 16.7.

    Args:
        annotations: file of JSON lines: `{"image_0", "image_1", "caption_0", "caption_1", …}`.
        images: folder of the pictures; a name without an ending means .png.
        batch_size: pictures encoded at a time, ≥ 1.

    Raises:
        ValueError: if `batch_size` is out of range.

    Source: Thrush et al. 2022, Sec. 3.2, arXiv 2204.03162.
    """

    def __init__(self, *, annotations: str, images: str, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"evaluator.batch_size must be >= 1, got {batch_size}")
        self.annotations, self.images, self.batch_size = annotations, images, batch_size

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Asks every example.

        Raises:
            FileNotFoundError: if the file or a picture is missing.
            ValueError: if a line is broken or a score not finite.
        """
        questions = self._questions()
        # (examples, image, caption)
        scores = caption_scores(model, questions, batch_size=self.batch_size).reshape(-1, 2, 2)
        text = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
        image = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
        items = {"text_score": text, "image_score": image, "group_score": text & image}
        return ProbeResult(
            metrics={name: 100 * float(right.mean()) for name, right in items.items()},
            items=items,
            counts={"examples": len(scores), "pictures": len({question.picture for question in questions})},
            protocol={"probe": "winoground", "questions": fingerprint(questions), "ties": "against the model"},
        )

    def _questions(self) -> list[Question]:
        """Two for each example: either picture with both captions, in the order of the captions."""
        file = Path(self.annotations).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"evaluator.annotations={file} not found")
        folder = PictureFolder(option="evaluator.images", folder=self.images)
        found = []
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            where = f"{file}: line {number}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: broken JSON: {error}") from None
            captions = (text_in(where, entry, "caption_0"), text_in(where, entry, "caption_1"))
            for key in ("image_0", "image_1"):
                name = text_in(where, entry, key)
                path = folder.path(where, name if Path(name).suffix else f"{name}.png")
                found.append(Question(where, path, captions))
        if not found:
            raise ValueError(f"{file}: no lines in it")
        return found
