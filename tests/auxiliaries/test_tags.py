"""Tags beside an alignment: the binary cross-entropy in loops, and what it needs."""

import math
from pathlib import Path

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, pairs_of, usual_batch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmlit.auxiliaries.tags import Tags
from mmlit.contracts import Pairs

CONTRASTIVE = Path(__file__).resolve().parents[2] / "conf" / "alignment" / "contrastive.yaml"
NAMES = ("blue", "circle", "red")
LABELS = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]]).bool()


def tags(weight: float = 0.5) -> Tags:
    torch.manual_seed(0)
    made = Tags(image=IMAGE, width=8, weight=weight)
    made.begin(NAMES)
    return made


def pairs() -> Pairs:
    options = OmegaConf.load(CONTRASTIVE)
    options.dim = 8
    torch.manual_seed(1)
    found = pairs_of(instantiate(options, image=IMAGE, text=TEXT), usual_batch())
    return found._replace(batch=found.batch._replace(labels=LABELS))


def slow(logits: list[list[float]], labels: list[list[bool]], weight: float) -> list[float]:
    """−w/K Σ_k [ y_k log σ(x_k) + (1 − y_k) log(1 − σ(x_k)) ] of each row."""
    losses = []
    for row, has in zip(logits, labels, strict=True):
        terms = []
        for x, y in zip(row, has, strict=True):
            p = 1 / (1 + math.exp(-x))
            terms.append(math.log(p) if y else math.log(1 - p))
        losses.append(-weight * sum(terms) / len(terms))
    return losses


def test_losses_equal_the_loops() -> None:
    module, given = tags(), pairs()
    logits = module.head(torch.nn.functional.layer_norm(given.image.pooled, (8,)))
    (name, found), *others = module.losses(given).items()
    assert not others
    assert name == "cross_entropy"
    assert found.tolist() == pytest.approx(slow(logits.tolist(), LABELS.tolist(), 0.5), rel=1e-5)


def test_the_embedding_of_the_image_learns_from_it() -> None:
    module, given = tags(), pairs()
    given.image.pooled.retain_grad()
    module.losses(given)["cross_entropy"].mean().backward()
    assert given.image.pooled.grad.abs().sum(1).min() > 0


def test_it_learns_tags() -> None:
    module, given = tags(), pairs()
    vectors = given.image.pooled.detach()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        module.losses(given._replace(image=given.image._replace(pooled=vectors)))["cross_entropy"].mean().backward()
        optimizer.step()
    assert torch.equal(module.head(module.norm(vectors)) > 0, LABELS)


def test_what_it_lacks_is_told() -> None:
    with pytest.raises(ValueError, match=r"auxiliary\.tags\.weight must be > 0, got 0"):
        tags(weight=0)
    with pytest.raises(ValueError, match="needs to know the tags before training"):
        Tags(image=IMAGE, width=8, weight=1.0).losses(pairs())
    bare = pairs()
    with pytest.raises(ValueError, match="labels in each batch"):
        tags().losses(bare._replace(batch=bare.batch._replace(labels=None)))
