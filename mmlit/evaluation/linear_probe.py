"""Linear probe: how well does a logistic regression tell classes apart on frozen image embeddings?"""

import logging
import math
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlit.evaluation.class_accuracy import class_accuracy
from mmlit.evaluation.labelled import Labelled, features, train_and_test
from mmlit.evaluation.probe import Probe, ProbeResult, Scorer

log = logging.getLogger(__name__)


class LinearProbe(Probe):
    """Multinomial logistic regression on the pooled image embeddings; top-1, top-5 and mean per class in percent.

    Its penalty is the one that does best on a held-out part of the training pictures, of equals the largest; then it
    is fitted on all of them. The test pictures are looked at once. `penalty` and `held_out_top1` tell the choice.

    Args:
        train: folder of class folders to fit on.
        test: folder of class folders that are classified, with the same classes.
        penalties: candidates λ, > 0: the loss is the mean cross-entropy + λ/2 · |weights|².
        held_out: share of every class, in (0, 1), that chooses λ; which pictures is decided by their names.
        max_steps: L-BFGS iterations at most, ≥ 1.
        batch_size: pictures embedded at a time, ≥ 1.

    Raises:
        ValueError: if a number is out of range.

    Source: Radford et al. 2021, App. A.3, arXiv 2103.00020: L-BFGS, the penalty by a sweep on held-out pictures.
    Differs: a list of penalties instead of a search; every dimension is centred and scaled by the fitted pictures'
    standard deviation, since the lengths of embeddings differ between alignments; ties count against the model.
    """

    def __init__(
        self, *, train: str, test: str, penalties: list[float], held_out: float, max_steps: int, batch_size: int
    ) -> None:
        if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
            raise ValueError(f"evaluator.penalties must be numbers > 0, at least one, got {penalties}")
        if not 0 < held_out < 1:
            raise ValueError(f"evaluator.held_out must lie in (0, 1), got {held_out}")
        for name, value in (("max_steps", max_steps), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"evaluator.{name} must be >= 1, got {value}")
        self.train, self.test, self.penalties = train, test, sorted(penalties, reverse=True)
        self.held_out, self.max_steps, self.batch_size = held_out, max_steps, batch_size

    def evaluate(self, model: Scorer) -> ProbeResult:
        """Chooses, fits, classifies.

        Raises:
            FileNotFoundError: if a folder or a class's pictures are missing.
            ValueError: if a picture is broken, the classes differ, or a class has fewer than two training pictures.
        """
        train, test = train_and_test(self.train, self.test)
        aside = _set_aside(train, self.held_out)
        known, known_labels = features(model, train, batch_size=self.batch_size)
        asked, labels = features(model, test, batch_size=self.batch_size)
        known, asked = known.double(), asked.double()
        log.info("fitting with each of %d penalties, and once more with the best", len(self.penalties))
        chosen = [
            _top1(self._logits(known[~aside], known_labels[~aside], known[aside], penalty), known_labels[aside])
            for penalty in self.penalties
        ]
        place = chosen.index(max(chosen))
        metrics, items = class_accuracy(self._logits(known, known_labels, asked, self.penalties[place]), labels)
        return ProbeResult(
            metrics=metrics | {"penalty": self.penalties[place], "held_out_top1": chosen[place]},
            items=items,
            counts={
                "train": train.num,
                "held_out": int(aside.sum()),
                "test": test.num,
                "classes": len(test.classes),
            },
            protocol={
                "probe": "linear_probe",
                "train": train.digest,
                "test": test.digest,
                "penalties": list(self.penalties),
                "held_out": self.held_out,
                "max_steps": self.max_steps,
                "ties": "against the model",
            },
        )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _logits(self, known: Tensor, labels: Tensor, asked: Tensor, penalty: float) -> Tensor:
        """Fits on (V,E) with classes (V,); → logits (N,C) of `asked` (N,E), all float64."""
        mean, spread = known.mean(0), known.std(0, unbiased=False)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        known, asked, labels = (known - mean) / spread, (asked - mean) / spread, labels.clone()
        weight = torch.zeros(int(labels.max()) + 1, known.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.max_steps,
            max_eval=2 * self.max_steps,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(known, weight, bias), labels) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss.item()

        optimizer.step(closure)
        return F.linear(asked, weight, bias).detach()


def _set_aside(pictures: Labelled, share: float) -> Tensor:
    """Which pictures (V,) choose the penalty: this share of each class, at least one, by a hash of their names."""
    drawn: dict[int, list[tuple[str, int]]] = {}
    for number in range(pictures.num):
        path, label = pictures.at(number)
        drawn.setdefault(label, []).append((sha256(path.name.encode()).hexdigest(), number))
    aside = torch.zeros(pictures.num, dtype=torch.bool)
    for label, own in drawn.items():
        if len(own) < 2:
            raise ValueError(f"class {pictures.classes[label]!r} has one training picture; the choice needs two")
        size = min(max(1, round(share * len(own))), len(own) - 1)
        aside[[number for _, number in sorted(own)[:size]]] = True
    return aside


def _top1(logits: Tensor, labels: Tensor) -> float:
    return class_accuracy(logits, labels)[0]["top1"]
