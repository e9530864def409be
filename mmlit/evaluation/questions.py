"""Which of two captions fits a picture better? For any alignment: each picture is scored with its own captions only."""

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mmlit.evaluation.probe import Scorer

log = logging.getLogger(__name__)
#: left, upper, right, lower in px
Box = tuple[int, int, int, int]


class Question(NamedTuple):
    """A picture and two captions; of the picture only `box`, if there is one. `where` names file and item."""

    where: str
    picture: Path
    captions: tuple[str, str]
    box: Box | None = None


def caption_scores(model: Scorer, questions: Sequence[Question], *, batch_size: int) -> np.ndarray:
    """The fp32 scores (Q,2) of each question's picture with its two captions.

    Every picture is encoded once, `batch_size` at a time, together with the captions that are asked of it. Nothing is
    kept but the scores, so that memory does not grow with tokens.

    Raises:
        ValueError: if a score is not finite or a picture cannot be read, naming the item.
    """
    asked: dict[tuple[Path, Box | None], list[int]] = {}
    for number, question in enumerate(questions):
        asked.setdefault((question.picture, question.box), []).append(number)
    pictures = list(asked)
    log.info("asking %s questions about %s pictures", f"{len(questions):,}", f"{len(pictures):,}")
    found = np.empty((len(questions), 2), np.float32)
    for start in range(0, len(pictures), batch_size):
        part = [asked[picture] for picture in pictures[start : start + batch_size]]
        images = model.encode_images([_opened(questions[numbers[0]]) for numbers in part], batch_size=batch_size)
        texts = dict.fromkeys(text for numbers in part for number in numbers for text in questions[number].captions)
        place = {text: column for column, text in enumerate(texts)}
        captions = model.encode_texts(list(texts))
        for row, numbers in enumerate(part):
            columns = [place[text] for number in numbers for text in questions[number].captions]
            own = captions.take(torch.tensor(columns, device=captions.pooled.device)).trimmed()
            scores = model.score(images.take(slice(row, row + 1)), own).float().cpu().numpy()
            found[numbers] = scores.reshape(len(numbers), 2)
    _require_finite(found, questions)
    return found


def fingerprint(questions: Sequence[Question]) -> str:
    """Hex digest of what is asked: captions, pictures by name and size of file, boxes; not where they lie."""
    digest = sha256()
    sizes: dict[Path, int] = {}
    for _, picture, captions, box in questions:
        size = sizes.setdefault(picture, -1)
        if size < 0:
            size = sizes[picture] = picture.stat().st_size
        digest.update(repr((picture.name, size, captions, box)).encode())
    return digest.hexdigest()[:16]


def _opened(question: Question) -> Path | Image.Image:
    """The file, or the part of the picture as it is stored; where a box reaches beyond it, black."""
    if question.box is None:
        return question.picture
    try:
        with Image.open(question.picture) as picture:
            return picture.crop(question.box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{question.where}: {question.picture} is not a readable picture: {error}") from error


def _require_finite(scores: np.ndarray, questions: Sequence[Question]) -> None:
    """Of two scores a NaN is never the higher one: a comparison would count it as an answer."""
    wrong = np.argwhere(~np.isfinite(scores))
    if len(wrong):
        number, which = wrong[0].tolist()
        raise ValueError(
            f"{questions[number].where}: the score of {questions[number].picture.name} with "
            f"{questions[number].captions[which]!r} is {scores[number, which]}; only finite scores can be compared"
        )
