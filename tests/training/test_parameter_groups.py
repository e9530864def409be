"""Each parameter in one group, with the rate of its part and layer; a tower's layers in the order in which they run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from image_encoders.torchvision_members import torchvision_tower
from layers.published import publish
from omegaconf import OmegaConf
from torch import nn

from mmlit.contracts import Encoder, ImageEncoder
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.image_encoders.timm import TimmEncoder
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.depth import layers_of
from mmlit.training.parameter_groups import ByPart, parameter_groups, scale
from mmlit.training.parts import PARTS, by_part, part_of

CONF = Path(__file__).resolve().parents[2] / "conf"
ALIGNMENTS = sorted(path.stem for path in (CONF / "alignment").glob("*.yaml"))
PLAIN = dict.fromkeys(PARTS, 1.0) | {"image_layer_decay": 1.0, "text_layer_decay": 1.0}


class Model(nn.Module):
    """What the LightningModule is to parameter groups."""

    def __init__(self, image_encoder: nn.Module, text_encoder: nn.Module, alignment: nn.Module) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder, self.alignment = image_encoder, text_encoder, alignment


def model(alignment: str = "contrastive", image_encoder: ImageEncoder | None = None, **options: Any) -> Model:
    image = image_encoder or TinyImageEncoder(size=16, dim=32, num_layers=2, freeze=False)
    text = TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=2, freeze=False)
    node = OmegaConf.load(CONF / "alignment" / f"{alignment}.yaml")
    return Model(image, text, instantiate(node, image=image.spec, text=text.spec, **options))


def groups_of(module: nn.Module, **options: float) -> list[dict[str, Any]]:
    return ByPart(**(PLAIN | options))(module)


def assert_each_once(module: nn.Module, groups: list[dict[str, Any]]) -> None:
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_every_trainable_parameter_is_in_exactly_one_group(alignment):
    module = model(alignment)
    module.image_encoder.position.requires_grad_(False)
    for groups in (parameter_groups(module), groups_of(module), groups_of(module, text_layer_decay=0.5)):
        assert_each_once(module, groups)
    assert {group["name"].partition(".")[0] for group in groups} >= {"image_encoder", "text_encoder", "heads"}


def test_the_groups_of_a_run_without_the_option_are_what_they_were():
    """Their order and keys: an optimizer's state, saved before there was a choice, goes to the same parameters."""
    module = model()
    found = parameter_groups(module)
    assert [set(group) for group in found] == [{"params"}, {"params", "weight_decay"}]
    parameters = list(module.parameters())
    assert [[id(part) for part in group["params"]] for group in found] == [
        [id(part) for part in parameters if part.ndim >= 2],
        [id(part) for part in parameters if part.ndim < 2],
    ]
    optimizer = torch.optim.SGD(found, lr=0.25)
    scale(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


TOWERS: dict[str, tuple[Callable[[Path], Encoder], int]] = {
    "tiny image": (lambda _: TinyImageEncoder(size=16, dim=32, num_layers=2, freeze=False), 6),
    "tiny text": (lambda _: TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=2, freeze=False), 3),
    "resnet50": (lambda _: torchvision_tower("resnet50", size=32, freeze=False), 1 + 3 + 4 + 6 + 3),
    "mobilenet_v2": (lambda _: torchvision_tower("mobilenet_v2", size=32, freeze=False), 19),
    "swin_t": (lambda _: torchvision_tower("swin_t", size=64, freeze=False), 1 + 2 + 1 + 2 + 1 + 6 + 1 + 2),
    "timm vit": (lambda _: TimmEncoder(name="test_vit.r160_in1k", weights=None, freeze=False), 7),
    "timm resnet": (lambda _: TimmEncoder(name="test_resnet.r160_in1k", weights=None, freeze=False), 3 + 4),
    **{
        family: (lambda folder, family=family: _published_images(folder, family), 3)
        for family in ("vit", "dinov2", "clip", "siglip")
    },
    **{
        family: (lambda folder, family=family: _published_texts(folder, family), 3)
        for family in ("bert", "distilbert", "roberta")
    },
}


def _published_images(folder: Path, family: str) -> ImageEncoder:
    name = str(publish(folder / family, family))
    return HuggingFaceImageEncoder(name=name, weights="pretrained", projection=False, freeze=False)


def _published_texts(folder: Path, family: str) -> HuggingFaceTextEncoder:
    name = str(publish(folder / family, family))
    return HuggingFaceTextEncoder(name=name, weights="pretrained", pooling="cls", max_length=16, freeze=False)


QUICK = ("tiny image", "tiny text", "resnet50", "bert")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TOWERS]
)
def test_layers_come_in_the_order_in_which_they_run(tmp_path, name):
    """Each parameter's layer, in the order in which modules that own parameters are called."""
    build, expected = TOWERS[name]
    tower = build(tmp_path).eval()
    layers = layers_of(tower)
    place = {key: number for number, layer in enumerate(layers) for key in layer}
    assert len(layers) == expected
    assert list(place) == [key for key, _ in tower.named_parameters()]
    called: list[int] = []
    for path, module in tower.named_modules():
        for key, _ in module.named_parameters(recurse=False):
            own = place[f"{path}.{key}".removeprefix(".")]
            if path:  # the tower's own, positions for one, are used somewhere in its forward
                module.register_forward_pre_hook(lambda *_, own=own: called.append(own))
            break
    if isinstance(tower, ImageEncoder):
        tower(torch.zeros(2, 3, tower.spec.size, tower.spec.size))
    else:
        tower(*tower.tokenize(["a dog", "the red circle"]))
    assert called == sorted(called)
    own = {name for name, _ in tower.named_parameters(recurse=False)}
    assert set(called) == {number for number, layer in enumerate(layers) if not own.issuperset(layer)}


def test_rates_of_parts_and_layers():
    """Three layers of the text tower, by the formula; the schedule multiplies each group's own rate."""
    module = model("joint", token_dim=32)
    options = {"image_encoder": 0.1, "text_encoder": 0.5, "heads": 2.0, "fusion": 3.0, "text_layer_decay": 0.5}
    optimizer = torch.optim.AdamW(groups_of(module, **options), lr=1.0, weight_decay=0.3)
    scale(optimizer)
    assert_each_once(module, optimizer.param_groups)
    rates = {group["name"].removesuffix(".no_decay"): group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({
        "image_encoder": 0.1, "text_encoder.1": 0.5 / 8, "text_encoder.2": 0.5 / 4, "text_encoder.3": 0.5 / 2,
        "heads": 2.0, "fusion": 3.0,
    })  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert {group["name"]: group["lr"] for group in optimizer.param_groups}["heads"] == 1.0
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)


def test_what_decays(tmp_path):
    """Trap 16. Neither norms, biases and log_scale nor class tokens and positions, which have two dimensions."""
    for tower in (None, _published_images(tmp_path, "vit"), torchvision_tower("vit_b_16", size=32, freeze=False)):
        module = model("sigmoid", tower)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        groups = groups_of(module, image_layer_decay=0.5)
        still = {names[id(part)] for group in groups if "weight_decay" in group for part in group["params"]}
        moving = {names[id(part)] for group in groups if "weight_decay" not in group for part in group["params"]}
        assert all(group.get("weight_decay", 0.0) == 0.0 for group in groups)
        assert {"alignment.bias", "alignment.temperature.log_scale", "text_encoder.position"} <= still
        assert "text_encoder.token.weight" in moving
        assert not [name for name in moving if "pos" in name or name.endswith(("_token", "bias"))]
        assert not [name for name in still if name.endswith("weight") and module.get_parameter(name).ndim > 1
                    and "position" not in name]  # fmt: skip


def test_the_parts_of_alignments():
    """What either side goes through alone, and where they meet."""
    found = {name: set(by_part(model(name).named_parameters())) for name in ALIGNMENTS}
    assert found["contrastive"] == found["sigmoid"] == {"image_encoder", "text_encoder", "heads"}
    assert all("fusion" in found[name] for name in ("joint", "concatenation", "attention_fusion", "single_stream"))
    scalar, matrix = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(2, 2))
    assert part_of("alignment.temperature.log_scale", scalar) == "heads"
    assert part_of("alignment.space.text.weight", matrix) == "heads"
    assert part_of("alignment.match.weight", matrix) == "fusion"
    assert part_of("alignment.match.bias", nn.Parameter(torch.zeros(1))) == "fusion", "as the matrix of its layer"
    assert part_of("auxiliaries.tags.weight", matrix) == "auxiliaries"
    with pytest.raises(ValueError, match=r"other\.weight is in none of image_encoder"):
        part_of("other.weight", matrix)


@pytest.mark.parametrize("name", ["adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lion", "lamb"))])
def test_optimizers_take_groups(name):
    """A step moves every part, and what does not decay has no decay of the optimizer's."""
    module = model()
    optimizer = instantiate(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"))(groups_of(module, heads=3.0))
    scale(optimizer)
    assert {group["lr"] for group in optimizer.param_groups} == {optimizer.defaults["lr"], 3 * optimizer.defaults["lr"]}
    before = [part.detach().clone() for part in module.parameters()]
    for part in module.parameters():
        part.grad = torch.ones_like(part)
    optimizer.step()
    assert all((new != old).all() for old, new in zip(before, module.parameters(), strict=True))
    decays = {group["name"].endswith("no_decay"): group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {True: 0.0, False: optimizer.defaults["weight_decay"]}
    assert decays[False] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"heads": 0.0}, r"groups\.heads must be > 0, got 0\.0"),
        ({"text_layer_decay": 1.5}, r"groups\.text_layer_decay must lie in \(0, 1\], got 1\.5"),
        ({"image_layer_decay": 0.0}, r"groups\.image_layer_decay must lie in \(0, 1\], got 0\.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        ByPart(**(PLAIN | options))
    with pytest.raises(ValueError, match="nothing to train"):
        groups_of(nn.Linear(2, 2).requires_grad_(False))
