"""TensorFlow's padding."""

import pytest
import torch
from torch import nn

from mmlit.image_encoders.same_padding import pad_same
from mmlit.image_encoders.torchvision import TorchvisionEncoder


@pytest.mark.parametrize(("size", "ends"), [(4, (0, 1)), (5, (1, 1))])
def test_an_odd_one_goes_to_the_end(size, ends):
    """An even side is padded at its end only, an odd one at both, for a kernel of three and a stride of two."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1, bias=False))
    pad_same(model)
    picture = torch.arange(float(size * size)).view(1, 1, size, size)
    padded = nn.functional.pad(picture, ends * 2)
    corners = [padded[0, 0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] for row in range(len(padded[0, 0]) // 2)
               for column in range(len(padded[0, 0]) // 2)]  # fmt: skip
    by_hand = torch.stack([(corner * model[0].weight[0, 0]).sum() for corner in corners])
    assert model(picture).shape[-1] == -(-size // 2)
    torch.testing.assert_close(model(picture).flatten(), by_hand)


def test_layers_without_a_stride_stay():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 1, 1))
    picture = torch.randn(1, 1, 6, 6)
    before = model(picture)
    pad_same(model)
    assert torch.equal(model(picture), before)


def test_the_encoder_says_which_and_differs():
    """Trap 24: weights and their padding belong together."""
    options = {"name": "mobilenet_v2", "weights": None, "size": 32, "resize": "squash", "resize_to": None}
    options |= {"interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3, "grid": None, "freeze": True}
    torch.manual_seed(0)
    same = TorchvisionEncoder(**options, padding="same")
    symmetric = TorchvisionEncoder(**options, padding="symmetric")
    symmetric.load_state_dict(same.state_dict())
    pixels = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    assert same(pixels).tokens.shape == symmetric(pixels).tokens.shape
    one, other = same(pixels).pooled, symmetric(pixels).pooled
    assert (one - other).abs().max() > 0.1 * other.abs().max()
    assert same.fingerprint() != symmetric.fingerprint()
