"""Nearest neighbours: do frozen image embeddings lie near those of their class?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.evaluation.class_accuracy import class_accuracy
from mmlit.evaluation.labelled import features, train_and_test
from mmlit.evaluation.nearest import best
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer

#: test pictures compared at a time
_BLOCK = 256


class NearestNeighbours(Probe):
    """Each test picture takes the class for which its k nearest training pictures vote with exp(cosine / temperature).

    Top-1, top-5 and mean per class in percent, on the pooled image embeddings; no text is asked.

    Args:
        train: folder of class folders whose pictures vote.
        test: folder of class folders whose pictures are classified, with the same classes.
        k: neighbours that vote, ≥ 1.
        temperature: of the votes, > 0.
        batch_size: pictures embedded at a time, ≥ 1.

    Raises:
        ValueError: if a number is out of range.

    Source: Wu et al. 2018, Sec. 3.4, arXiv 1805.01978; k = 20 and temperature 0.07 as in Caron et al. 2021 (DINO),
    Sec. 4.1 and App. F, arXiv 2104.14294.
    Differs: ties count against the model, of neighbours as of votes.
    """

    def __init__(self, *, train: str, test: str, k: int, temperature: float, batch_size: int) -> None:
        for name, value in (("k", k), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"evaluator.{name} must be >= 1, got {value}")
        if not temperature > 0:
            raise ValueError(f"evaluator.temperature must be > 0, got {temperature}")
        self.train, self.test = train, test
        self.k, self.temperature, self.batch_size = k, temperature, batch_size

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Classifies every test picture.

        Raises:
            FileNotFoundError: if a folder or a class's pictures are missing.
            ValueError: if a picture is broken, the classes differ, or there are fewer than k training pictures.
        """
        train, test = train_and_test(self.train, self.test)
        if train.num < self.k:
            raise ValueError(f"evaluator.k={self.k} neighbours, but evaluator.train={self.train} has {train.num}")
        known, known_labels = features(model, train, batch_size=self.batch_size)
        asked, labels = features(model, test, batch_size=self.batch_size)
        votes = self._votes(F.normalize(asked, dim=1), labels, F.normalize(known, dim=1), known_labels)
        metrics, items = class_accuracy(votes, labels)
        return ProbeResult(
            metrics=metrics,
            items=items,
            counts={"train": train.num, "test": test.num, "classes": len(test.classes)},
            protocol={
                "probe": "knn",
                "train": train.digest,
                "test": test.digest,
                "k": self.k,
                "temperature": self.temperature,
                "ties": "against the model",
            },
        )

    def _votes(self, asked: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor) -> Tensor:
        """Unit vectors (N,E) of classes (N,) and voters (V,E) of classes (V,) → votes (N,C); one at cosine 1 has 1."""
        votes = torch.zeros(len(asked), int(known_labels.max()) + 1, dtype=torch.float64)
        for start in range(0, len(asked), _BLOCK):
            rows = slice(start, start + _BLOCK)
            near, at = _nearest(asked[rows] @ known.T, labels[rows, None] == known_labels, self.k)
            votes[rows].scatter_add_(1, known_labels[at], ((near.double() - 1) / self.temperature).exp())
        return votes


def _nearest(cosines: Tensor, true: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of cosines (B,V) and their columns; of equals one of a wrong class first."""
    size = min(k, cosines.shape[1])
    found = [best(cosines.masked_fill(hidden, -torch.inf), size) for hidden in (true, ~true)]
    values, columns = (torch.cat(pair, 1) for pair in zip(*found, strict=True))
    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return values.gather(1, order), columns.gather(1, order)
