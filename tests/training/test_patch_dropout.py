"""Patch dropout: a random part of the patches, never the class token, in training only, and repeated exactly."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from layers.published import publish
from torch import nn

from mmlit.alignments.contrastive import Contrastive
from mmlit.contracts import Batch, ImageEncoder
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.image_encoders.timm import TimmEncoder
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.image_encoders.torchvision import TorchvisionEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.gradient_cache import GradientCache
from mmlit.training.lora import Lora
from mmlit.training.patch_dropout import KeptPatches, PatchDropout

#: tokens that are no patches
BEFORE = {"vit": 1, "dinov2": 1, "clip": 1, "siglip": 0, "timm": 1, "torchvision": 1}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def made(name: str, *, freeze: bool = False, grid: int | None = None) -> ImageEncoder:
        torch.manual_seed(0)
        if name == "timm":
            return TimmEncoder(name="test_vit", weights=None, freeze=freeze)
        if name in ("vit_b_16", "squeezenet1_1"):
            return TorchvisionEncoder(
                name=name, weights=None, size=64, resize="squash", resize_to=None, interpolation="bilinear",
                mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="symmetric", grid=grid, freeze=freeze,
            )  # fmt: skip
        folder = str(publish(tmp_path_factory.mktemp(name), name))
        return HuggingFaceImageEncoder(name=folder, weights="pretrained", projection=False, freeze=freeze)

    return made


def _pixels(encoder: ImageEncoder, count: int = 3) -> torch.Tensor:
    shape = (count, 3, encoder.spec.size, encoder.spec.size)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte()


def _dropping(encoder: ImageEncoder, share: float = 0.4) -> ImageEncoder:
    PatchDropout(share=share).apply(encoder, None)  # type: ignore[arg-type]
    return encoder


@pytest.mark.parametrize(
    "name", ["vit", "dinov2", "clip", "siglip", "timm", pytest.param("vit_b_16", marks=pytest.mark.slow)]
)
def test_in_training_a_part_of_the_patches_is_seen(make: Callable[..., Any], name: str) -> None:
    encoder = make(name)
    pixels = _pixels(encoder)
    with torch.no_grad():
        whole = encoder.eval()(pixels)
    keys, num_patches = list(encoder.state_dict()), whole.tokens.shape[1]
    _dropping(encoder)
    assert list(encoder.state_dict()) == keys, "checkpoints are those of any run"
    with torch.no_grad():
        assert torch.equal(encoder.eval()(pixels).pooled, whole.pooled)
    encoder.train()
    found = encoder(pixels)
    assert found.tokens.shape == (3, round(0.6 * num_patches), encoder.spec.dim)
    assert found.mask.shape == found.tokens.shape[:2]
    assert found.mask.all()
    assert not torch.equal(encoder(pixels).pooled, found.pooled), "others every time"
    encoder.needs_tokens = False
    encoder(pixels).pooled.square().sum().backward()
    assert all(part.grad is not None for part in encoder.parameters())


@pytest.mark.parametrize("name", ["vit", "siglip", "timm"])
def test_what_is_kept_is_as_if_the_rest_were_not_there(make: Callable[..., Any], name: str) -> None:
    """Positions go with their patches, and class tokens stay: by hand with an attention that is masked instead."""
    encoder = _dropping(make(name)).train()
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    seen: list[torch.Tensor] = []
    layers = encoder.backbone.blocks if name == "timm" else _layers(encoder)
    layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(_pixels(encoder))
        encoder.eval()(_pixels(encoder))
    part, whole = seen
    before = BEFORE[name]
    assert torch.equal(part[:, :before], whole[:, :before])
    for kept, every in zip(part[:, before:], whole[:, before:], strict=True):
        places = [int((every == state).all(1).nonzero()) for state in kept]
        assert places == sorted(set(places))


def _layers(encoder: Any) -> Any:
    found = [part for part in encoder.modules() if isinstance(part, nn.ModuleList)]
    return found[0]


def test_every_patch_is_as_likely_as_any_other_and_pictures_differ() -> None:
    torch.manual_seed(0)
    drop = KeptPatches(num_patches=4, num_kept=1).train()
    states = torch.arange(5.0).expand(4000, 5)[..., None]
    found = drop(states)
    assert found.shape == (4000, 2, 1)
    assert (found[:, 0] == 0).all()
    shares = torch.bincount(found[:, 1, 0].long(), minlength=5) / 4000
    assert shares[0] == 0
    assert (shares[1:] - 0.25).abs().max() < 0.03


def test_the_gradient_cache_sees_the_same_patches_twice(make: Callable[..., Any]) -> None:
    """The gradients of chunks are those of the same chunks in one graph, whose patches are drawn once."""
    image_encoder = _dropping(make("vit")).train()
    text_encoder = TinyTextEncoder(vocabulary_size=99, max_length=16, dim=32, num_layers=1, freeze=False)
    alignment = Contrastive(
        image=image_encoder.spec, text=text_encoder.spec, dim=8, image_head="linear", text_head="linear", dropout=0.0,
        temperature=0.1, learn_temperature=True, label_smoothing=0.0, hardness=0.0, decoupled=False,
    )  # fmt: skip
    pixels, ids = _pixels(image_encoder, 4), torch.arange(4)
    batch = Batch(pixels, ids, *text_encoder.tokenize(["a b", "c", "d e f", "g"]), None, ids, ids)

    def gradients(embed: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(7)
        image_encoder.zero_grad()
        (embed().square() * torch.arange(8.0)).sum().backward()
        return [part.grad.clone() for part in image_encoder.parameters() if part.grad is not None]

    cached = gradients(
        lambda: GradientCache(chunk_size=2).encode(image_encoder, text_encoder, alignment, batch)[0].pooled
    )
    plain = gradients(
        lambda: torch.cat([alignment.embed_image(image_encoder(part)).pooled for part in pixels.split(2)])
    )
    assert len(cached) > 10
    for found, expected in zip(cached, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", ["lora", "patches"])
def test_goes_with_adapters_in_any_order(make: Callable[..., Any], first: str) -> None:
    """All of the tower's own stays in evaluation mode then, but patches are left out."""
    encoder = make("vit")
    lora = Lora(tower="image_encoder", rank=2, alpha=2.0, dropout=0.0, layers="all-linear")
    for change in (lora, PatchDropout(share=0.5))[:: 1 if first == "lora" else -1]:
        change.apply(encoder, None)  # type: ignore[arg-type]
    assert encoder.train()(_pixels(encoder)).tokens.shape[1] == 8
    assert encoder.eval()(_pixels(encoder)).tokens.shape[1] == 16


def test_a_teacher_sees_everything(make: Callable[..., Any]) -> None:
    encoder = _dropping(make("vit"))
    copy = deepcopy(encoder).eval()
    encoder.train()
    assert copy(_pixels(encoder)).tokens.shape[1] == 16
    assert encoder(_pixels(encoder)).tokens.shape[1] == 10


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_refuses_shares_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=rf"towers\.patch_dropout\.share must lie strictly .* got {share}"):
        PatchDropout(share=share)


def test_refuses_other_towers_by_name(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"a transformer over patches \(ViT\), and .* is none: squeezenet1_1"):
        _dropping(make("squeezenet1_1"))
    with pytest.raises(ValueError, match="image_encoder is none: test_resnet"):
        _dropping(TimmEncoder(name="test_resnet", weights=None, freeze=False))
    with pytest.raises(ValueError, match="image_encoder is none: TinyImageEncoder"):
        _dropping(TinyImageEncoder(size=32, dim=32, num_layers=1, freeze=False))
    with pytest.raises(ValueError, match=r"but image_encoder\.freeze=true"):
        _dropping(make("vit", freeze=True))


@pytest.mark.slow
def test_refuses_a_grid_that_is_averaged(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="averages a whole grid: grid=2"):
        _dropping(make("vit_b_16", grid=2))
