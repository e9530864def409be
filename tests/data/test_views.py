"""Two augmentations of a picture: decided by a key, of the encoder's size, of any picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmlit.contracts import ImageSpec
from mmlit.data.views import TwoViews

SPEC = ImageSpec(dim=1, size=32, resize="squash", interpolation="bilinear")


def views(**changes) -> TwoViews:
    options = {"scale": (0.3, 1.0), "flip": 0.5, "jitter": 0.8, "grayscale": 0.2, "blur": 0.5}
    return TwoViews(**options | changes)


def photograph(width: int = 60, height: int = 45, mode: str = "RGB") -> bytes:
    """Smooth, with more blue from left to right and more red from top to bottom."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    picture = Image.fromarray(np.stack([down, np.full_like(down, 90), across], 2).astype(np.uint8)).convert(mode)
    picture.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_any_picture_becomes_two_of_the_encoders_size(interpolation, mode):
    found = views()(photograph(mode=mode), SPEC._replace(interpolation=interpolation), 5)
    assert [(view.shape, view.dtype) for view in found] == [((3, 32, 32), torch.uint8)] * 2


def test_a_key_decides_them_and_nothing_else():
    make, file = views(), photograph()
    state = torch.get_rng_state()
    first = make(file, SPEC, 7)
    assert torch.equal(torch.get_rng_state(), state)  # others' draws stay what they are
    torch.rand(3)
    assert all(map(torch.equal, make(file, SPEC, 7), first))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(make(file, SPEC, 8)[0], first[0])


def test_crops_are_of_the_whole_picture_at_random_places():
    """Nothing but the crop is on: red falls over the height that it covers."""
    make, file = views(flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, scale=(0.2, 0.3)), photograph()
    tops = [int(view[0, 0, 0]) for key in range(40) for view in make(file, SPEC, key)]
    heights = [int(view[0, -1, 0]) - int(view[0, 0, 0]) for key in range(40) for view in make(file, SPEC, key)]
    assert min(tops) < 30
    assert max(tops) > 100
    assert 60 < min(heights) <= max(heights) < 190


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("flip", lambda view: view[2, :, 0] > view[2, :, -1]),
        ("grayscale", lambda view: (view[0] == view[2]).all(0)),
        ("jitter", lambda view: (view[1].float() - 90).abs().mean(0) > 1),
    ],
)
def test_each_augmentation_happens_as_often_as_it_is_asked(option, changed):
    off = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0}
    for probability in (0.0, 0.5, 1.0):
        make = views(**off | {option: probability})
        share = np.mean([changed(view).all() for key in range(60) for view in make(photograph(), SPEC, key)])
        assert abs(share - probability) <= (0.2 if probability == 0.5 else 0.05), probability


def test_blur_is_in_proportion_to_the_side():
    sharp, soft = (views(flip=0.0, jitter=0.0, grayscale=0.0, blur=each, scale=(1.0, 1.0)) for each in (0.0, 1.0))
    noise = np.random.default_rng(0).integers(256, size=(224, 224, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file := io.BytesIO(), "PNG")
    rough = [
        [float(make(file.getvalue(), SPEC._replace(size=size), key)[0].float().diff().abs().mean()) for key in range(9)]
        for size in (32, 224)
        for make in (sharp, soft)
    ]
    assert np.mean(rough[3]) < 0.6 * np.mean(rough[2])  # 224: up to two pixels
    assert 0.8 * np.mean(rough[0]) < np.mean(rough[1]) < np.mean(rough[0])  # 32: less than a third of one


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"scale": (0.0, 1.0)},
            r"views\.scale must be two shares in \(0, 1\], the smaller one first, got \[0.0, 1.0\]",
        ),
        ({"scale": (0.9, 0.5)}, "the smaller one first"),
        ({"flip": 1.5}, r"views\.flip must lie in \[0, 1\], got 1.5"),
        ({"blur": -0.1}, r"views\.blur must lie in \[0, 1\]"),
    ],
)
def test_wrong_options_are_told(changes, told):
    with pytest.raises(ValueError, match=told):
        views(**changes)


def test_a_broken_picture_is_told():
    with pytest.raises(ValueError, match="format"):
        views()(b"no picture", SPEC, 0)
