"""SugarCrepe: a caption against a hard negative that differs from it in one thing; also for rendered scenes."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmlit.evaluation.pictures import PictureFolder, read_json, text_in
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer
from mmlit.evaluation.questions import Question, caption_scores, fingerprint


class SugarCrepe(Probe):
    """How often, in percent, a picture's caption scores higher than its hard negative, by kind of negative.

    `KIND` for each of `kinds`, `macro` their mean, `micro` over all items. Most of the COCO pictures are also training
    pictures of Karpathy's splits: `clean_*` are the same numbers over the pictures of his test split alone.

    Args:
        annotations: folder of the files KIND.json: `{"0": {"filename", "caption", "negative_caption"}, …}`.
        images: folder of the pictures.
        kinds: which files; all of them are read.
        karpathy: his dataset_coco.json, whose test split is the clean subset; None: no clean subset is reported.
        batch_size: pictures encoded at a time, ≥ 1.

    Raises:
        ValueError: if there are no kinds, one comes twice, or `batch_size` is out of range.

    Source: Hsieh et al. 2023, "SugarCrepe", Sec. 4, arXiv 2306.14610.
    Differs: ties count against the model; macro mean, micro mean and the clean subset are ours.
    """

    def __init__(
        self, *, annotations: str, images: str, kinds: list[str], karpathy: str | None, batch_size: int
    ) -> None:
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"evaluator.kinds must be different names, at least one, got {kinds}")
        if batch_size < 1:
            raise ValueError(f"evaluator.batch_size must be >= 1, got {batch_size}")
        self.annotations, self.images, self.kinds = annotations, images, kinds
        self.karpathy, self.batch_size = karpathy, batch_size

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Asks every item of every kind.

        Raises:
            FileNotFoundError: if a file or a picture is missing.
            ValueError: if an item is broken, a score not finite, or a kind has no item in the clean subset.
        """
        questions = self._questions()
        everything = [question for kind in self.kinds for question in questions[kind]]
        clean = None if self.karpathy is None else _clean(Path(self.karpathy).expanduser(), questions)
        scores = caption_scores(model, everything, batch_size=self.batch_size)
        ends = np.cumsum([len(questions[kind]) for kind in self.kinds])[:-1]
        right = dict(zip(self.kinds, np.split(scores[:, 0] > scores[:, 1], ends), strict=True))
        items = dict(right)
        if clean is not None:
            items |= {f"clean_{kind}": right[kind][clean[kind]] for kind in self.kinds}
        return ProbeResult(
            metrics=_summary(right, "") | (_summary(items, "clean_", self.kinds) if clean is not None else {}),
            items=items,
            counts={name: len(values) for name, values in items.items()}
            | {"pictures": len({question.picture for question in everything})},
            protocol={
                "probe": "sugarcrepe",
                "kinds": list(self.kinds),
                "questions": fingerprint(everything),
                "clean": "not reported" if clean is None else f"pictures of Karpathy's test split {_digest(clean)}",
                "ties": "against the model",
            },
        )

    def _questions(self) -> dict[str, list[Question]]:
        folder = PictureFolder(option="evaluator.images", folder=self.images)
        found = {}
        for kind in self.kinds:
            file = Path(self.annotations).expanduser() / f"{kind}.json"
            content = read_json("evaluator.annotations", file)
            if not isinstance(content, dict) or not content:
                raise ValueError(f"{file}: no object with items in it; is this one of SugarCrepe's files?")
            found[kind] = [_question(f"{file}: item {key!r}", item, folder) for key, item in content.items()]
        return found


def _question(where: str, item: Any, folder: PictureFolder) -> Question:
    caption, negative = text_in(where, item, "caption"), text_in(where, item, "negative_caption")
    return Question(where, folder.path(where, text_in(where, item, "filename")), (caption, negative))


def _clean(file: Path, questions: dict[str, list[Question]]) -> dict[str, np.ndarray]:
    """For each kind which of its items show pictures of Karpathy's test split."""
    content = read_json("evaluator.karpathy", file, object_hook=_without_sentences)
    rows = content.get("images") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"cocoid", "split"} <= set(row) for row in rows):
        raise ValueError(
            f"evaluator.karpathy={file}: no list 'images' with cocoid and split; is this his dataset_coco.json? "
            "null leaves the clean subset out"
        )
    test = {row["cocoid"] for row in rows if row["split"] == "test"}
    clean = {kind: np.array([_coco_id(item) in test for item in items]) for kind, items in questions.items()}
    if empty := [kind for kind, inside in clean.items() if not inside.any()]:
        raise ValueError(
            f"evaluator.karpathy={file}: no picture of {empty[0]} is among the {len(test)} of its test split; "
            "null leaves the clean subset out"
        )
    return clean


def _without_sentences(entry: dict[str, Any]) -> dict[str, Any]:
    """The captions need almost all of the file's memory, and nobody asks for them."""
    entry.pop("sentences", None)
    entry.pop("tokens", None)
    return entry


def _coco_id(question: Question) -> int:
    """000000085329.jpg, or COCO_val2014_000000085329.jpg → 85329."""
    number = question.picture.stem.rpartition("_")[2]
    if not number.isdecimal():
        raise ValueError(f"{question.where}: {question.picture.name} has no COCO id, which evaluator.karpathy needs")
    return int(number)


def _summary(right: dict[str, np.ndarray], prefix: str, kinds: Sequence[str] = ()) -> dict[str, float]:
    """Percent by kind, their mean, and over all items."""
    chosen = {f"{prefix}{kind}": right[f"{prefix}{kind}"] for kind in kinds or right}
    shares = {name: 100 * float(values.mean()) for name, values in chosen.items()}
    micro = 100 * float(np.concatenate(list(chosen.values())).mean())
    return shares | {f"{prefix}macro": float(np.mean(list(shares.values()))), f"{prefix}micro": micro}


def _digest(clean: dict[str, np.ndarray]) -> str:
    return sha256(repr({kind: inside.tolist() for kind, inside in clean.items()}).encode()).hexdigest()[:16]
