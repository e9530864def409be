"""Batch norms whose statistics stand still while their tower trains."""

from copy import deepcopy

import pytest
import torch
from image_encoders.torchvision_members import torchvision_tower
from torch import nn
from training.test_parameter_groups import model
from training.test_thawing import at, thawing

from mmlit.contracts import ImageEncoder
from mmlit.image_encoders.timm import TimmEncoder
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.training.batch_norm import check_batch_norm, check_folded
from mmlit.training.frozen_batch_norm import FrozenBatchNorm

PIXELS = torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


def _still(encoder: ImageEncoder) -> ImageEncoder:
    FrozenBatchNorm().apply(encoder, None)
    return encoder


def _norms(encoder: nn.Module) -> list[nn.Module]:
    return [part for part in encoder.modules() if hasattr(part, "running_mean")]


def _stirred(encoder: ImageEncoder) -> ImageEncoder:
    """Statistics, scales and shifts as a trained one has them: each of its own."""
    generator = torch.Generator().manual_seed(1)
    for norm in _norms(encoder):
        for part in (norm.running_var, norm.weight.data):
            part.uniform_(0.5, 1.5, generator=generator)
        for part in (norm.running_mean, norm.bias.data):
            part.uniform_(-0.5, 0.5, generator=generator)
    return encoder


def _outcome(encoder: ImageEncoder) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    encoder.zero_grad()
    pooled = encoder(PIXELS).pooled
    pooled.square().mean().backward()
    return pooled.detach(), {name: part.grad.clone() for name, part in encoder.named_parameters()}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "timm"])
def test_values_and_gradients_are_those_of_norms_in_evaluation_mode(name):
    """Behind a convolution, where the convolution does their work, and before one (DenseNet), and timm's own kind."""
    encoder = (
        TimmEncoder(name="test_efficientnet", weights=None, freeze=False)
        if name == "timm"
        else torchvision_tower(name, size=32, freeze=False)
    )
    encoder = _stirred(encoder).double()
    plain = deepcopy(encoder)
    keys, before = list(encoder.state_dict()), deepcopy(encoder.state_dict())
    for norm in _norms(plain.train()):
        norm.eval()
    _still(encoder).train()
    assert list(encoder.state_dict()) == keys, "checkpoints are those of any run"
    folded = sum(type(part).__name__ == "_FoldedConvolution" for part in encoder.modules())
    assert folded == {"resnet18": 20, "mobilenet_v2": 52, "densenet121": 59, "timm": 0}[name]
    pooled, gradients = _outcome(encoder)
    expected, others = _outcome(plain)
    torch.testing.assert_close(pooled, expected, rtol=1e-9, atol=1e-12)
    for key, gradient in gradients.items():
        assert (gradient - others[key]).norm() <= 1e-9 * others[key].norm(), key
    own = {id(norm.weight) for norm in _norms(encoder)}
    assert all(gradients[key].any() for key, part in encoder.named_parameters() if id(part) in own), "they learn"
    torch.testing.assert_close(encoder.eval()(PIXELS).pooled, pooled)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), "no statistic moves"
    check_batch_norm(encoder.train(), chunked=True, devices=2, synchronized=False)


def test_a_norm_behind_something_in_place_is_not_the_convolutions():
    """The activation gives the convolution's own tensor on, with other values."""
    encoder = torchvision_tower("resnet18", size=32, freeze=False)
    encoder.backbone["conv1"] = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(inplace=True))
    expected = encoder.eval()(PIXELS).pooled
    torch.testing.assert_close(_still(encoder)(PIXELS).pooled, expected, rtol=1e-3, atol=1e-4)
    assert type(encoder.backbone["bn1"]) is nn.BatchNorm2d


def test_a_copy_has_norms_of_its_own():
    """A momentum teacher is one."""
    encoder = _still(torchvision_tower("resnet18", size=32, freeze=False))
    copied = deepcopy(encoder)
    expected = copied(PIXELS).pooled
    with torch.no_grad():
        encoder.backbone["bn1"].weight.mul_(3)
        assert not torch.allclose(encoder(PIXELS).pooled, expected)
        assert torch.equal(copied(PIXELS).pooled, expected)
        copied.backbone["bn1"].weight.mul_(3)
        torch.testing.assert_close(copied(PIXELS).pooled, encoder(PIXELS).pooled)


def test_weights_with_folded_batch_norms_survive_training():
    """Mean 0 and variance 1 beside convolutions that bear the rest: a batch's own statistics would undo it."""
    encoder = torchvision_tower("resnet18", size=32, freeze=False)
    with torch.no_grad():
        expected = encoder.eval()(PIXELS).pooled
        torch.testing.assert_close(_still(encoder).train()(PIXELS).pooled, expected)
        bare = torchvision_tower("resnet18", size=32, freeze=False)
        bare.load_state_dict(encoder.state_dict())
        with pytest.raises(
            ValueError, match=r"folded into the convolutions \(backbone\.bn1 has mean 0 .*frozen_batch_norm"
        ):
            check_folded(bare.train())
        check_folded(bare.eval())
        assert (bare.train()(PIXELS).pooled - expected).abs().mean() > expected.abs().mean(), "what it is there for"
        check_folded(bare)  # has statistics of its own now
    check_folded(encoder)


def test_they_stand_still_behind_a_thawing_stage_too():
    module = model("contrastive", torchvision_tower("resnet18", size=32, freeze=False))
    _still(module.image_encoder)
    callback = thawing(image_encoder=[{"epoch": 1, "layers": "layer4"}])
    callback.prepare(module, epochs=1)
    callback.on_train_start(at(1), module)
    assert not any(norm.training for norm in _norms(module.image_encoder))
    assert module.image_encoder.backbone["layer4"][0].conv1.training
    assert module.image_encoder.backbone["layer4"][0].bn1.weight.requires_grad


def test_where_there_is_nothing_to_freeze_it_is_refused():
    with pytest.raises(ValueError, match=r"image_encoder\.freeze=true keeps batch norms still, and all else"):
        _still(torchvision_tower("resnet18", size=32, freeze=True))
    with pytest.raises(ValueError, match=r"frozen_batch_norm: image_encoder has no batch norm"):
        _still(TinyImageEncoder(size=32, dim=32, num_layers=1, freeze=False))
