"""Two views of each picture: the normalized-temperature cross-entropy in loops."""

import math
from pathlib import Path

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, pairs_of, usual_batch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmlit.auxiliaries.self_supervised import SelfSupervised
from mmlit.contracts import Pairs
from mmlit.layers.similarity import pooled_only

CONTRASTIVE = Path(__file__).resolve().parents[2] / "conf" / "alignment" / "contrastive.yaml"
TEMPERATURE = 0.2


def self_supervised(**changes: float) -> SelfSupervised:
    torch.manual_seed(0)
    options = {"weight": 0.5, "dim": 6, "hidden_dim": 7, "temperature": TEMPERATURE} | changes
    return SelfSupervised(image=IMAGE, width=8, views=lambda *_: (), **options).double()


def pairs(ids: list[int]) -> Pairs:
    """Two views of each image, as a tower says: random vectors."""
    torch.manual_seed(1)
    alignment = instantiate(OmegaConf.load(CONTRASTIVE), image=IMAGE, text=TEXT)
    views = tuple(pooled_only(torch.randn(len(ids), IMAGE.dim).double()) for _ in range(2))
    found = pairs_of(alignment, usual_batch())
    return found._replace(all_views=views, all_image_id=torch.tensor(ids))


def slow(vectors: list[list[float]], ids: list[int], weight: float) -> list[float]:
    """SimCLR's Eq. 1 of rows a and a + N, averaged: −log( exp(s_ab / τ) / Σ_{c ≠ a} exp(s_ac / τ) ), each own b."""
    lengths = [math.sqrt(sum(x * x for x in z)) for z in vectors]
    count, owner = len(ids), ids + ids

    def score(a: int, b: int) -> float:
        cosine = sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)) / lengths[a] / lengths[b]
        return math.exp(cosine / TEMPERATURE)

    def loss(a: int) -> float:
        denominator = sum(score(a, c) for c in range(2 * count) if c != a)
        own = [b for b in range(2 * count) if b != a and owner[b] == owner[a]]
        return -sum(math.log(score(a, b) / denominator) for b in own) / len(own)

    return [weight * (loss(a) + loss(a + count)) / 2 for a in range(count)]


@pytest.mark.parametrize("ids", [[3, 1, 4, 5, 9], [3, 1, 4, 1, 9]], ids=["all different", "one twice"])
def test_losses_equal_the_loops(ids) -> None:
    """Trap 17: what comes twice is no negative of itself."""
    module, given = self_supervised(), pairs(ids)
    vectors = module.perceptron(torch.cat([view.pooled for view in given.all_views]))
    (name, found), *others = module.losses(given).items()
    assert not others
    assert name == "info_nce"
    assert found.tolist() == pytest.approx(slow(vectors.tolist(), ids, 0.5), rel=1e-6)  # normalized in fp32


def test_a_device_has_the_terms_of_its_own_pictures() -> None:
    module, given = self_supervised(), pairs([3, 1, 4, 1, 9])
    share = given._replace(image=given.image.take(slice(1, 4)), image_offset=1)
    whole = module.losses(given)["info_nce"]
    assert module.losses(share)["info_nce"].tolist() == pytest.approx(whole[1:4].tolist(), rel=1e-6)


def test_the_perceptron_is_slips() -> None:
    """Linear, batch norm, ReLU twice, then linear; over both views of all pictures."""
    kinds = [type(layer).__name__ for layer in self_supervised().perceptron]
    assert kinds == ["Linear", "BatchNorm", "ReLU"] * 2 + ["Linear"]
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self_supervised())  # as trainer=ddp does: not these
    assert [type(layer).__name__ for layer in converted.perceptron] == kinds
    given = pairs([3])  # a picture alone has two rows, enough for a batch norm
    assert self_supervised().losses(given)["info_nce"].isfinite().all()


@pytest.mark.parametrize(("option", "value"), [("weight", 0.0), ("temperature", 0.0), ("dim", 0), ("hidden_dim", 0)])
def test_wrong_options_are_told(option, value) -> None:
    with pytest.raises(ValueError, match=rf"auxiliary\.self_supervised\.{option} must be .*, got 0"):
        self_supervised(**{option: value})


def test_a_batch_without_views_is_told() -> None:
    with pytest.raises(ValueError, match="two views of each picture, got 0"):
        self_supervised().losses(pairs([3, 1])._replace(all_views=()))
