"""Every auxiliary with every alignment, as the module trains them: finite, nothing left out, chunks change nothing."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from mmlit.contracts import Batch
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.run.parts import embedded_width
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.gradient_cache import GradientCache
from mmlit.training.module import RetrievalModule

CONF = Path(__file__).resolve().parents[2] / "conf"
ALIGNMENTS, AUXILIARIES = (
    sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in ("alignment", "auxiliary")
)


def module(alignment: str, *auxiliaries: str, step: GradientCache | None = None) -> RetrievalModule:
    torch.manual_seed(0)
    image_encoder = TinyImageEncoder(size=16, dim=32, num_layers=1, freeze=False)
    text_encoder = TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=1, freeze=False)
    options = OmegaConf.load(CONF / "alignment" / f"{alignment}.yaml")
    made = instantiate(options, image=image_encoder.spec, text=text_encoder.spec, _convert_="all")
    width = embedded_width(made, image_encoder.spec)
    further = {
        name: instantiate(OmegaConf.load(CONF / "auxiliary" / f"{name}.yaml"), image=image_encoder.spec, width=width)
        for name in auxiliaries
    }
    for each in further.values():
        each.begin(["a", "b", "c"])
    whole = RetrievalModule(
        image_encoder=image_encoder, text_encoder=text_encoder, alignment=made, auxiliaries=further, evaluator=None,
        optimizer=torch.optim.SGD, groups=None, schedule=None, step=step, seed=0, origin={},
    )  # fmt: skip
    whole.on_fit_start()
    for part in whole.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
    return whole.train()


def batch(*, count: int = 6) -> Batch:
    """Pictures with a caption each, two views, three tags."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.arange(count)
    pixels = torch.randint(256, (3, count, 3, 16, 16), generator=generator).byte()
    tokens = torch.randint(3, 40, (count, 5), generator=generator)
    labels = torch.rand(count, 3, generator=generator) < 0.5
    mask = torch.ones_like(tokens).bool()
    return Batch(pixels[0], ids, tokens, mask, None, 100 + ids, ids, labels, (pixels[1], pixels[2]))


def gradients(trained: RetrievalModule, given: Batch) -> dict[str, Tensor]:
    loss = trained.training_step(given, 0)
    assert loss.isfinite()
    loss.backward()
    return {name: part.grad for name, part in trained.named_parameters()}


@pytest.fixture(autouse=True)
def without_warnings(recwarn):
    """Lightning's about a module that logs without a trainer."""


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_every_parameter_learns_and_the_alignment_keeps_its_own_terms(alignment):
    found = gradients(module(alignment, *AUXILIARIES), batch())
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    alone = gradients(module(alignment), batch())
    assert alone.keys() < found.keys()
    for name, gradient in alone.items():  # what the terms do not share has the same gradient, from the same weights
        if name.startswith("text_encoder."):
            assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-7), name
    assert any(
        not torch.allclose(found[name], gradient) for name, gradient in alone.items() if name.startswith("image_")
    )


@pytest.mark.parametrize("name", AUXILIARIES)
def test_a_batch_of_one(name):
    """The last batch of an epoch may be."""
    assert all(gradient is not None for gradient in gradients(module("contrastive", name), batch(count=1)).values())


def test_chunks_have_the_gradient_of_the_whole_batch():
    """Trap 15: the views go through the towers in chunks, too."""
    expected = gradients(module("contrastive", *AUXILIARIES), batch())
    found = gradients(module("contrastive", *AUXILIARIES, step=GradientCache(chunk_size=2)), batch())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
