"""Zero-shot classification: which class's prompts fit a picture best?"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.class_accuracy import class_accuracy
from mmlit.evaluation.labelled import Labelled, class_folders, embedded, torchvision_data
from mmlit.evaluation.pictures import read_json, text_in
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer
from mmlit.layers.similarity import pooled_only

#: by whether prompts are averaged as vectors
_SCORED = {True: "full, prompts averaged in the space", False: "full, scores averaged over prompts"}


class ZeroShot(Probe):
    """Top-1, top-5 and mean per class in percent; every class is a sentence or, with several templates, several.

    Where the model's score is the cosine of two pooled vectors, a class is one vector: the mean of its prompts' unit
    vectors, made a unit vector again. Where it judges pairs (fusion), a class's score is the mean of its prompts'
    scores. The model itself shows which of the two it is, and `scored` says it.

    Args:
        root: a folder with `split`/CLASS/….jpg, or the folder in which torchvision keeps `dataset`.
        dataset: a class of torchvision.datasets, e.g. CIFAR10; None: class folders.
        split: the part that is classified.
        class_names: a JSON file {class: its name in a prompt}; None: the classes' own names, _ read as a blank.
        templates: each with {} once, where the name stands.
        batch_size: pictures embedded at a time, ≥ 1.

    Raises:
        ValueError: if there is no template, one has not {} once, or `batch_size` is out of range.

    Source: Radford et al. 2021, Sec. 3.1.2 and 3.1.4, arXiv 2103.00020.
    Differs: ties count against the model.
    """

    def __init__(
        self,
        *,
        root: str,
        dataset: str | None,
        split: str,
        class_names: str | None,
        templates: list[str],
        batch_size: int,
    ) -> None:
        if wrong := [template for template in templates if template.count("{}") != 1]:
            raise ValueError(f"evaluator.templates must have {{}} once each, got {wrong[0]!r}")
        if not templates or len(set(templates)) < len(templates):
            raise ValueError(f"evaluator.templates must be different sentences, at least one, got {templates}")
        if batch_size < 1:
            raise ValueError(f"evaluator.batch_size must be >= 1, got {batch_size}")
        self.root, self.dataset, self.split = root, dataset, split
        self.class_names, self.templates, self.batch_size = class_names, templates, batch_size

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Classifies every picture.

        Raises:
            FileNotFoundError: if a folder, a file or the data set is missing.
            ValueError: if a picture is broken, two classes have the same name, or a score is not finite.
        """
        if self.dataset is None:
            pictures = class_folders("evaluator.root", Path(self.root) / self.split)
        else:
            pictures = torchvision_data(self.dataset, self.root, self.split)
        names = self._names(pictures.classes)
        prompts = [model.encode_texts([template.replace("{}", name) for name in names]) for template in self.templates]
        scores, labels, cosines = _classify(model, pictures, prompts, self.batch_size)
        metrics, items = class_accuracy(scores, labels)
        return ProbeResult(
            metrics=metrics,
            items=items,
            counts={"pictures": pictures.num, "classes": len(names)},
            protocol={
                "probe": "zero_shot",
                "data": pictures.digest,
                "class_names": sha256(repr(names).encode()).hexdigest()[:16],
                "templates": list(self.templates),
                "ties": "against the model",
            },
            scored=_SCORED[cosines] if len(prompts) > 1 else "full",
        )

    def _names(self, classes: list[str]) -> list[str]:
        """What the classes are called in prompts."""
        names = [each.replace("_", " ") for each in classes]
        if self.class_names is not None:
            file = Path(self.class_names).expanduser()
            told = read_json("evaluator.class_names", file)
            names = [text_in(f"evaluator.class_names={file}", told, each) for each in classes]
        if same := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two classes are called {same[0]!r}; evaluator.class_names can tell them apart")
        return names


def _classify(
    model: Scorer, pictures: Labelled, prompts: Sequence[Encoded], batch_size: int
) -> tuple[Tensor, Tensor, bool]:
    """Scores (N,C) on the CPU, classes (N,), and whether classes are vectors; one entry of `prompts` per template."""
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    cosines = False
    for part in embedded(model, pictures, batch_size=batch_size):
        if not scores:
            cosines = _scores_are_cosines(model, part.image, prompts[0])
            prompts = [_prototypes(prompts)] if cosines else prompts
        each = torch.stack([model.score(part.image, prompt).float() for prompt in prompts]).mean(0).cpu()
        wrong = (~each.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            name = pictures.name(part.start + row)
            raise ValueError(f"{name}: its score for {pictures.classes[column]!r} is {each[row, column].item()}")
        scores.append(each)
        labels.append(part.labels)
    return torch.cat(scores), torch.cat(labels), cosines


def _scores_are_cosines(model: Scorer, image: Encoded, text: Encoded) -> bool:
    """Whether nothing but the angle between two pooled vectors decides: then prompts may be averaged as vectors."""
    if image.tokens.shape[1] or text.tokens.shape[1] or image.pooled.shape[1] != text.pooled.shape[1]:
        return False
    cosines = F.normalize(image.pooled.float(), dim=1) @ F.normalize(text.pooled.float(), dim=1).T
    return torch.allclose(model.score(image, text).float(), cosines, rtol=0, atol=1e-3)


def _prototypes(prompts: Sequence[Encoded]) -> Encoded:
    """One unit vector per class (C,E)."""
    vectors = torch.stack([F.normalize(prompt.pooled.float(), dim=1) for prompt in prompts])
    return pooled_only(F.normalize(vectors.mean(0), dim=1))
