"""Compiled towers: the same names, the same gradients, checkpoints that go both ways."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from training.test_gradient_cache import Step, assert_equal, batch_of, gradients

from mmlit.training.compiled import CompiledTowers


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(step: Step, backend: str) -> Step:
    """The step with its towers compiled."""
    CompiledTowers(backend=backend).setup(SimpleNamespace(), step, "fit")
    return step


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_gradients_and_names_are_those_of_an_uncompiled_run(chunk_size):
    """Trap 31: no `_orig_mod.` in any key; whole batches and in chunks, of which the last is smaller."""
    plain, step = Step("contrastive", dropout=0.0), compiled(Step("contrastive", dropout=0.0), "aot_eager")
    assert list(step.state_dict()) == list(plain.state_dict())
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_equal(gradients(step, chunk_size), gradients(plain, None), within=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before, "something is compiled"
    assert list(step.state_dict()) == list(plain.state_dict())


def test_weights_go_both_ways():
    """Trap 31."""
    plain, step = Step("contrastive", dropout=0.0), compiled(Step("contrastive", dropout=0.0), "eager")
    for module in (plain, step):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn_like(parameter))
        other = step if module is plain else plain
        other.load_state_dict(module.state_dict(), strict=True)
        assert _loss(other) == pytest.approx(_loss(module).item(), rel=1e-5)


@torch.no_grad()
def _loss(step: Step) -> Tensor:
    return step(batch_of(), None)


def test_evaluation_alone_compiles_nothing():
    step = Step("contrastive", dropout=0.0)
    CompiledTowers(backend="eager").setup(SimpleNamespace(), step, "test")
    assert step.image_encoder._compiled_call_impl is None


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"callbacks\.compile\.backend must be one of .*inductor.*, got inducter"):
        CompiledTowers(backend="inducter")
