"""Which layers are frozen when, and that what is frozen stands still."""

from types import SimpleNamespace

import pytest
import torch
from image_encoders.torchvision_members import torchvision_tower
from torch import nn
from training.test_parameter_groups import Model, model

from mmlit.training.thawing import Thawing


def thawing(**stages) -> Thawing:
    return Thawing(**({"image_encoder": None, "text_encoder": None} | stages))


def at(epoch: int) -> SimpleNamespace:
    """A trainer in that epoch, counted from 1, on one device."""
    return SimpleNamespace(current_epoch=epoch - 1, strategy=None, max_steps=-1)


def trains(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


STAGES = [{"epoch": 4, "layers": "*"}, {"epoch": 2, "last": 2}, {"epoch": 3, "layers": "layer3.5"}]


def test_stages_thaw_layers_of_a_resnet():
    """In any order; batch norms as their layers: `last` counts residual blocks."""
    module = model("contrastive", torchvision_tower("resnet50", size=32, freeze=False))
    callback, tower = thawing(image_encoder=STAGES), module.image_encoder
    everything = trains(tower)
    callback.prepare(module, epochs=4)
    assert trains(tower) == everything, "nothing is frozen for good, and the optimizer is to hold it"
    last = {name for name in everything if name.startswith(("backbone.layer4.1.", "backbone.layer4.2."))}
    third = last | {name for name in everything if name.startswith("backbone.layer3.5.")}
    for epoch, expected in ((1, set()), (2, last), (3, third), (4, everything), (2, last)):
        callback.on_train_epoch_start(at(epoch), module)
        assert trains(tower) == expected
        assert tower.frozen is (not expected)
        norms = {name for name, part in tower.named_modules() if isinstance(part, nn.BatchNorm2d) and part.training}
        assert norms == {name for name, part in tower.named_modules()
                         if isinstance(part, nn.BatchNorm2d) and f"{name}.weight" in expected}  # fmt: skip
    callback.on_train_end(at(2), module)
    assert trains(tower) == last, "training that ends before a stage has not trained what it is for"


def test_what_no_stage_names_never_trains():
    module = model()
    callback = thawing(text_encoder=[{"epoch": 2, "layers": "layers"}])
    callback.prepare(module, epochs=2)
    expected = {name for name, _ in module.text_encoder.named_parameters() if name.startswith("layers.")}
    assert trains(module.text_encoder) == expected
    assert module.text_encoder.training is False
    callback.on_train_epoch_start(at(2), module)
    assert trains(module.text_encoder) == expected
    assert len(trains(module.image_encoder)) == len(list(module.image_encoder.parameters()))


def test_what_is_frozen_stands_still_and_what_is_not_moves():
    """Trap 22: weights with decay, batch-norm statistics, dropout, and the gradient that is not computed."""
    module = model("contrastive", torchvision_tower("resnet18", size=32, freeze=False))
    tower = module.image_encoder
    tower.backbone["layer1"].append(nn.Dropout(0.9))
    tower.backbone["layer4"].append(nn.Dropout(0.9))
    callback = thawing(image_encoder=[{"epoch": 1, "layers": "layer4"}, {"epoch": 2, "layers": "layer3"}])
    callback.prepare(module, epochs=3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    pixels = torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    for epoch, moving in ((1, {"layer4"}), (2, {"layer3", "layer4"})):
        callback.on_train_start(at(epoch), module)
        before = {name: part.clone() for name, part in tower.state_dict().items()}
        for _ in range(2):
            optimizer.zero_grad()
            tower(pixels).pooled.square().mean().backward()
            assert {name.split(".")[1] for name, part in tower.named_parameters() if part.grad is not None} == moving
            optimizer.step()
        moved = {name.split(".")[1] for name, part in tower.state_dict().items() if not torch.equal(part, before[name])}
        assert moved == moving
        assert any("running_mean" in name and not torch.equal(part, before[name])
                   for name, part in tower.state_dict().items())  # fmt: skip
        assert not tower.backbone["layer1"][-1].training
        assert tower.backbone["layer4"][-1].training


def test_an_epoch_may_begin_twice():
    """Trap 22: where a run goes on, training starts within an epoch, and no epoch does."""
    module = model()
    callback = thawing(image_encoder=[{"epoch": 2, "last": 1}, {"epoch": 3, "layers": "*"}])
    callback.prepare(module, epochs=3)
    callback.on_train_start(at(2), module)
    expected = trains(module.image_encoder)
    assert expected
    callback.on_train_epoch_start(at(2), module)
    assert trains(module.image_encoder) == expected


def test_a_weight_that_the_tower_itself_does_not_train_stays_so():
    module = model()
    module.image_encoder.position.requires_grad_(False)
    callback = thawing(image_encoder=[{"epoch": 1, "layers": "*"}])
    callback.prepare(module, epochs=1)
    callback.on_train_start(at(1), module)
    assert "position" not in trains(module.image_encoder)
    assert module.image_encoder.training


def prepared(stages: list[dict], *, module: Model | None = None) -> None:
    thawing(image_encoder=stages).prepare(module or model(), epochs=5)


def test_wrong_stages_are_refused_by_name():
    option = r"callbacks\.thawing\.image_encoder: "
    for stage in (
        {"epoch": 0, "last": 1},
        {"epoch": 1},
        {"epoch": 1, "last": 1, "layers": "*"},
        {"epoch": 1, "name": "x"},
    ):
        with pytest.raises(ValueError, match=option + r"a stage is \{epoch: E, layers: PATTERN\}"):
            thawing(image_encoder=[stage])
    for stages in ({}, {"image_encoder": []}):
        with pytest.raises(ValueError, match="needs a stage for image_encoder or text_encoder"):
            thawing(**stages)
    with pytest.raises(ValueError, match=option + "a stage begins in epoch 9, after trainer.max_epochs=5"):
        prepared([{"epoch": 9, "last": 1}])
    with pytest.raises(ValueError, match=option + "last 99 from epoch 1 on: the tower has 6 layers"):
        prepared([{"epoch": 1, "last": 99}])
    with pytest.raises(
        ValueError, match=option + r"layer4 .* is no trained part of it; its parts: stem \(0, 1, .*layers"
    ):
        prepared([{"epoch": 1, "layers": "layer4"}])
    with pytest.raises(ValueError, match=option + "norm from epoch 3 on: what it names has thawed before"):
        prepared([{"epoch": 3, "layers": "norm"}, {"epoch": 2, "last": 1}])


def test_what_excludes_a_schedule_is_refused():
    module = model()
    module.image_encoder.freeze()
    with pytest.raises(ValueError, match=r"image_encoder\.freeze=true means that nothing of it ever moves.*store"):
        prepared([{"epoch": 1, "last": 1}], module=module)
    module = model()
    module.image_encoder.adapted = True
    with pytest.raises(ValueError, match=r"towers=\[image_lora\] freezes all of it but adapters"):
        prepared([{"epoch": 1, "last": 1}], module=module)
    module = model()
    module.image_encoder.additions = (nn.Identity(),)
    prepared([{"epoch": 1, "last": 1}, {"epoch": 2, "layers": "*"}], module=module)
    module = model()
    module.image_encoder.additions = (nn.Identity(),)
    with pytest.raises(
        ValueError, match=r"patch_dropout\] leaves patches out while all of the tower trains, and these"
    ):
        prepared([{"epoch": 1, "last": 1}], module=module)
    module = model("projection", image_head="identity", text_head="linear", dim=None)
    module.text_encoder.freeze()
    module.alignment.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing trains in epoch 1"):
        prepared([{"epoch": 2, "last": 1}], module=module)


@pytest.mark.parametrize(("max_steps", "told"), [(8, True), (9, False)])
def test_a_stage_that_the_last_step_comes_before_is_told(max_steps, told, caplog):
    module, callback = model(), thawing(image_encoder=[{"epoch": 1, "last": 1}, {"epoch": 5, "layers": "*"}])
    callback.prepare(module, epochs=9)
    trainer = at(1)
    trainer.max_steps, trainer.is_global_zero = max_steps, True
    trainer.num_training_batches, trainer.accumulate_grad_batches = 4, 2
    callback.on_train_start(trainer, module)
    assert (f"trainer.max_steps={max_steps} ends before epoch 5, in which a stage begins" in caplog.text) == told
