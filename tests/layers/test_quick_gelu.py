"""CLIP's activation is what the library computes, and so is its gradient."""

import torch
from torch import nn
from transformers.activations import QuickGELUActivation

from mmlit.layers.quick_gelu import QuickGelu, quicken


def test_value_and_gradient_are_the_librarys():
    given = torch.linspace(-12, 12, 401)
    found = []
    for activation in (QuickGelu(), QuickGELUActivation()):
        x = given.clone().requires_grad_()
        y = activation(x)
        y.backward(torch.cos(given))
        found.append((y.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_what_goes_in_is_not_changed():
    x = torch.randn(5)
    before = x.clone()
    QuickGelu()(x)
    assert torch.equal(x, before)


def test_the_librarys_is_exchanged_wherever_it_stands():
    tower = nn.Sequential(nn.Linear(2, 2), nn.Sequential(QuickGELUActivation(), nn.GELU()))
    quicken(tower)
    assert [type(part) for part in tower[1]] == [QuickGelu, nn.GELU]
