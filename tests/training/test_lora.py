"""LoRA: adapters train, a tower's own weights, statistics and dropout stand still, whatever the tower is made of."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from layers.published import publish
from torch import nn

from mmlit.contracts import Encoded, Encoder, ImageEncoder, ImageSpec
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.image_encoders.timm import TimmEncoder
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.text_encoders.pair import PairTextEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.lora import Lora
from mmlit.training.parameter_groups import parameter_groups

TEXTS = ["a dog", "the small red circle left of the blue square"]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str) -> Callable[..., Any]:
    """An encoder by the name of its library and family."""

    def published(family: str) -> str:
        return str(publish(tmp_path_factory.mktemp(family), family))

    def made(name: str, *, freeze: bool = False) -> Encoder:
        torch.manual_seed(0)
        pretrained: dict[str, Any] = {"weights": "pretrained", "freeze": freeze}
        match name:
            case "timm":
                return TimmEncoder(name="test_vit", weights=None, freeze=freeze)
            case "tiny_image":
                return TinyImageEncoder(size=32, dim=32, num_layers=1, freeze=freeze)
            case "tiny_text":
                return TinyTextEncoder(vocabulary_size=99, max_length=16, dim=32, num_layers=1, freeze=freeze)
            case "bert":
                return HuggingFaceTextEncoder(name=tiny_bert, pooling="cls", max_length=32, **pretrained)
            case "clip_text":
                return PairTextEncoder(name=published("clip"), projection=True, max_length=32, **pretrained)
        return HuggingFaceImageEncoder(name=published(name), projection=name == "clip", **pretrained)

    return made


def _lora(encoder: Encoder, **options: Any) -> None:
    tower = "image_encoder" if isinstance(encoder, ImageEncoder) else "text_encoder"
    settings: dict[str, Any] = {"tower": tower, "rank": 2, "alpha": 4.0, "dropout": 0.0, "layers": "all-linear"}
    Lora(**settings | options).apply(encoder, encoder)  # type: ignore[arg-type]


def _inputs(encoder: Any) -> tuple[torch.Tensor, ...]:
    if not isinstance(encoder, ImageEncoder):
        return encoder.tokenize(TEXTS)
    shape = (2, 3, encoder.spec.size, encoder.spec.size)
    return (torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte(),)


def _kept(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


TOWERS = ["vit", "clip", "siglip", "timm", "tiny_image", "bert", "clip_text", "tiny_text"]


@pytest.mark.parametrize("name", TOWERS)
def test_adapters_alone_move(make: Callable[..., Any], name: str) -> None:
    """Trap 22: training begins with the tower as it was, every adapter learns, and nothing else moves."""
    encoder = make(name)
    inputs, total = _inputs(encoder), sum(part.numel() for part in encoder.parameters())
    with torch.no_grad():
        before = encoder.eval()(*inputs)
    _lora(encoder)
    kept, trained = _kept(encoder), [part for part in encoder.parameters() if part.requires_grad]
    assert sum(part.numel() for part in trained) < 0.35 * total
    direction = torch.randn(before.pooled.shape)
    optimizer = torch.optim.AdamW(parameter_groups(encoder), lr=0.1, weight_decay=0.1)
    for step in range(3):
        found = encoder.train()(*inputs)
        if not step:
            torch.testing.assert_close(found.pooled, before.pooled, rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        (found.pooled * direction).sum().backward()
        assert all(part.grad is not None for part in trained)
        optimizer.step()
    moved = {key for key, value in encoder.state_dict().items() if not torch.equal(value, kept[key])}
    assert moved == {key for key in kept if ".lora_" in key}
    after = encoder.eval()(*inputs)
    assert (after.pooled - before.pooled).norm() > 0.01 * before.pooled.norm()
    with torch.no_grad():  # where torch's own layers would take the path that no adapter is on
        torch.testing.assert_close(encoder(*inputs).pooled, after.pooled)


def test_adapters_decay_as_matrices(make: Callable[..., Any]) -> None:
    encoder = make("tiny_text")
    _lora(encoder)
    (group,) = parameter_groups(encoder)
    assert "weight_decay" not in group


def test_dropout_is_the_adapters_own(make: Callable[..., Any]) -> None:
    """Trap 22: BERT's own dropout of 0.1 stands still, in training mode too; the adapters' does not."""
    still, moving = make("bert"), make("bert")
    _lora(still)
    _lora(moving, dropout=0.5)
    inputs = _inputs(still)
    for encoder in (still, moving):
        for key, value in encoder.named_parameters():
            if ".lora_B" in key:
                nn.init.normal_(value)
    assert torch.equal(still.train()(*inputs).pooled, still(*inputs).pooled)
    assert not torch.equal(moving.train()(*inputs).pooled, moving(*inputs).pooled)
    assert torch.equal(moving.eval()(*inputs).pooled, moving(*inputs).pooled)


class _Batchy(ImageEncoder):
    """A batch norm, a linear layer that is called, and one whose weights are read."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(dim=4, size=8, resize="squash", interpolation="bilinear")
        self.norm, self.first, self.second = nn.BatchNorm2d(3), nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, pixels: torch.Tensor) -> Encoded:
        tokens = self.first(self.norm(pixels.float()).flatten(2).transpose(1, 2))
        tokens = tokens @ self.second.weight
        return Encoded(tokens, tokens.mean(1), torch.ones(tokens.shape[:2], dtype=torch.bool))


def test_statistics_of_batch_norms_stand_still() -> None:
    """Trap 22."""
    encoder = _Batchy()
    _lora(encoder, layers=["first"])
    kept = _kept(encoder)
    encoder.train()(*_inputs(encoder)).pooled.sum().backward()
    assert all(torch.equal(value, kept[key]) for key, value in encoder.state_dict().items())


def test_layers_that_are_not_called_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_lora\.layers: .* adapters there do nothing: second; name others"):
        _lora(_Batchy())


def test_patterns_choose_layers(make: Callable[..., Any]) -> None:
    encoder = make("clip")
    _lora(encoder, layers=["q_proj", "*.layers.1.*.fc?"])
    with_adapter = {name.partition(".lora_")[0] for name, part in encoder.named_parameters() if part.requires_grad}
    layers = [f"tower.encoder.layers.{i}" for i in (0, 1)]
    attention = {f"{layer}.self_attn.q_proj" for layer in layers}
    assert with_adapter == attention | {f"{layers[1]}.mlp.fc{i}" for i in (1, 2)}


def test_a_copy_has_dropouts_of_its_own(make: Callable[..., Any]) -> None:
    """A momentum teacher is a copy, and stays in evaluation mode while its student trains."""
    encoder = make("tiny_image")
    _lora(encoder, dropout=0.5)
    copy = deepcopy(encoder).eval()
    encoder.train()
    assert copy.additions
    assert all(part in set(copy.modules()) and not part.training for part in copy.additions)
    assert all(part.training for part in encoder.additions)
    assert not any(part.training for part in encoder.freeze().train().modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"image_lora\.rank must be >= 1, got 0"),
        ({"alpha": 0.0}, r"image_lora\.alpha must be > 0, got 0\.0"),
        ({"dropout": 1.0}, r"image_lora\.dropout must lie in \[0, 1\), got 1\.0"),
        ({"layers": []}, r"image_lora\.layers must be all-linear or patterns of names, got \[\]"),
        (
            {"layers": ["q_proj", "qkv"]},
            r"image_lora\.layers: no linear layer of image_encoder is called qkv; there are 0\.linear1, 0\.linear2, "
            r"self_attn\.k_proj, self_attn\.out_proj, self_attn\.q_proj, self_attn\.v_proj$",
        ),
    ],
)
def test_what_is_wrong_is_told(make: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _lora(make("tiny_image"), **options)


def test_refuses_towers_without_anything_to_adapt(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"but image_encoder\.freeze=true means that nothing of it moves"):
        _lora(make("tiny_image", freeze=True))
    encoder = _Batchy()
    encoder.first, encoder.second = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="image_encoder has no linear layer"):
        _lora(encoder)
