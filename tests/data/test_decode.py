"""Files to pixels: squash and crop as the libraries do, upright, every mode of picture, and files that are none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import pil_to_tensor

from mmlit.contracts import ImageSpec
from mmlit.data.decode import decode, ends_well

SQUASH = ImageSpec(dim=1, size=8, resize="squash", interpolation="bilinear")
CROP = SQUASH._replace(resize="crop")


def file(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def test_squash_keeps_everything_crop_keeps_the_middle():
    """Trap 24: size and way of resizing are those of the encoder's spec."""
    wide = file(halves(32, 8))
    squashed, cropped = decode(wide, SQUASH, exact=True), decode(wide, CROP, exact=True)
    assert squashed.shape == cropped.shape == (3, 8, 8)
    assert squashed.dtype == torch.uint8
    assert squashed[0, 0, 0] == 255
    assert squashed[2, 0, 7] == 255
    assert cropped[0, 0, :4].tolist() == [255] * 4
    three = np.zeros((8, 24, 3), np.uint8)
    three[:, 8:16, 1] = 255  # only the middle third is green
    assert (decode(file(Image.fromarray(three)), CROP, exact=True)[1] == 255).all()


@pytest.mark.parametrize("spec", [SQUASH, CROP, CROP._replace(resize_to=8)], ids=["squash", "crop", "crop_to_8"])
def test_same_size_is_not_touched(spec):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert (decode(file(Image.fromarray(pixels)), spec, exact=True).permute(1, 2, 0).numpy() == pixels).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [37, 32, None])
@pytest.mark.parametrize("size", [(101, 67), (67, 101), (97, 97), (15, 21), (21, 15), (37, 40), (32, 32), (400, 33)])
def test_crop_is_torchvisions_own(size, side, interpolation):
    """Trap 24: odd sizes in both orientations, smaller and larger than asked for: every pixel as in the preset."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    spec = ImageSpec(dim=1, size=32, resize="crop", interpolation=interpolation, resize_to=side)
    preset = ImageClassification(
        crop_size=32,
        resize_size=side or 32,
        interpolation=InterpolationMode(interpolation),
        mean=(0,) * 3,
        std=(1,) * 3,
    )
    expected = (preset(picture) * 255).round().to(torch.uint8)
    assert torch.equal(decode(file(picture), spec, exact=True), expected)


def test_resize_to_sees_less_of_the_picture():
    """Trap 24: only the middle is kept once the shorter side is longer than the picture asked for."""
    three = np.zeros((24, 24, 3), np.uint8)
    three[8:16, 8:16, 1] = 255
    picture = file(Image.fromarray(three))
    assert (decode(picture, CROP._replace(resize_to=24), exact=True)[1] == 255).all()
    assert (decode(picture, CROP, exact=True)[1] == 0).any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_squash_is_pillows_own(interpolation):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 23, 3), np.uint8))
    found = decode(file(picture), SQUASH._replace(interpolation=interpolation), exact=True)
    assert torch.equal(found, pil_to_tensor(picture.resize((8, 8), Image.Resampling[interpolation.upper()])))


def test_lanczos_crop():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    found = decode(file(picture), CROP._replace(interpolation="lanczos"), exact=True)
    assert torch.equal(found, pil_to_tensor(picture.resize((8, 8), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_a_strip_needs_no_gigabytes(size):
    """Resized as a whole it would be 224 × 6,720,000 px."""
    found = decode(file(Image.new("RGB", size, "red")), CROP._replace(size=224), exact=True)
    assert found.shape == (3, 224, 224)
    assert (found[0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    picture = Image.fromarray(np.full((8, 8), 200, np.uint8)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    found = decode(file(picture, kind), SQUASH, exact=True)
    assert found.shape == (3, 8, 8)
    assert found.float().mean() > 150


@pytest.mark.parametrize(
    ("numbers", "kind"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<i4", "TIFF"), ("<i4", "PPM")]
)
@pytest.mark.parametrize("exact", [True, False])
def test_grey_values_of_16_bits_keep_their_upper_half(numbers, kind, exact):
    ramp = np.linspace(0, 65_535, 64).reshape(8, 8).astype(numbers)
    found = decode(file(Image.fromarray(ramp), kind), SQUASH, exact=exact)
    assert (found == torch.from_numpy((ramp >> 8).astype(np.uint8))).all()


def test_float_pixels_are_refused():
    with pytest.raises(ValueError, match="pixels are floats"):
        decode(file(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), SQUASH, exact=True)


def test_programs_are_no_pictures():
    """Pillow would give PostScript to an interpreter."""
    with pytest.raises(ValueError, match="of no format that is read here"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", SQUASH, exact=True)


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (decode(file(clear), SQUASH, exact=True) == 255).all()


def test_turned_by_exif():
    picture = halves(8, 8)
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down and mirrored: turned by 180 degrees
    turned = decode(file(picture, "JPEG", exif=exif, quality=100), SQUASH, exact=True)
    assert turned[2, 4, 0] > 200
    assert turned[0, 4, 7] > 200


@pytest.mark.parametrize("broken", [b"", b"no picture", file(halves(64, 64), "JPEG")[:300]])
def test_what_is_no_picture_is_told_by_name(broken):
    with pytest.raises(ValueError, match=r"."):
        decode(broken, SQUASH, exact=True)


@pytest.mark.parametrize("limit", [50, 200])
def test_a_decompression_bomb_is_refused(monkeypatch, limit):
    """Of 256 pixels: also where Pillow itself would only warn, up to twice the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match="bomb"):
        decode(file(halves(16, 16)), SQUASH, exact=True)


def photograph(width: int, height: int) -> Image.Image:
    """Smooth light, edges and grain: amplitudes fall with frequency as in photographs."""
    rng = np.random.default_rng(width * height)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / max(width, height)
    layers = []
    for _ in range(3):
        phases = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        field = np.fft.irfft2(phases / frequency**1.2, s=(height, width))
        layers.append((field - field.mean()) / field.std())
    pixels = 128 + 50 * (layers[0][..., None] + 0.3 * np.stack(layers, axis=-1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(97, 61), (61, 97), (64, 64), (32, 32), (127, 40), (20, 30)])
def test_quick_is_exact_but_for_rounding_where_nothing_is_halved(size, resize, interpolation):
    spec = ImageSpec(dim=1, size=32, resize=resize, interpolation=interpolation)
    given = file(photograph(*size), "JPEG", quality=95)
    quick, exact = (decode(given, spec, exact=exact).short() for exact in (False, True))
    assert quick.shape == exact.shape == (3, 32, 32)
    assert (quick - exact).abs().max() <= 2


@pytest.mark.parametrize(("width", "height", "most"), [(450, 300, 0.8), (1000, 700, 0.5), (1500, 1200, 0.3)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_quick_differs_by_about_a_level_where_pictures_are_halved(width, height, most, resize):
    """The tolerance that docs/data.md states; worst where little more than three times the size is left."""
    spec = ImageSpec(dim=1, size=48, resize=resize, interpolation="bicubic")
    given = file(photograph(width, height), "JPEG", quality=90)
    gap = (decode(given, spec, exact=False).short() - decode(given, spec, exact=True).short()).abs()
    assert 0 < gap.float().mean() < most
    assert gap.max() <= 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_cut_off_does_not_end_well(kind):
    whole = file(photograph(60, 40), kind)
    assert ends_well(whole)
    assert not any(ends_well(whole[:length]) for length in (0, 3, len(whole) // 2, len(whole) - 1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_quick_turns_pictures_as_exif_says(orientation, resize):
    picture = photograph(90, 60)
    exif = picture.getexif()
    exif[0x0112] = orientation
    given = file(picture, "JPEG", exif=exif, quality=95)
    spec = ImageSpec(dim=1, size=32, resize=resize, interpolation="bicubic")
    quick, exact = (decode(given, spec, exact=exact).short() for exact in (False, True))
    assert (quick - exact).abs().float().mean() < 0.5


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_quick_reads_every_mode_of_jpeg(mode):
    given = file(photograph(80, 60).convert(mode), "JPEG", quality=95)
    quick, exact = (decode(given, CROP, exact=exact).short() for exact in (False, True))
    assert (quick - exact).abs().max() <= 2


@pytest.mark.parametrize("exact", [True, False])
def test_hostile_pictures_are_refused_in_either_way(exact, monkeypatch):
    """Cut off, of one pixel, a frame too many, and a header that promises more than memory holds."""
    whole = file(photograph(300, 200), "JPEG")
    for cut in (2, 20, 300, len(whole) // 2):
        with pytest.raises(ValueError, match=r"."):
            decode(whole[:cut], CROP, exact=exact)
    one = file(Image.new("RGB", (1, 1), (10, 20, 30)), "JPEG", quality=100)
    assert decode(one, CROP, exact=exact).float().mean() == pytest.approx(20, abs=3)
    first, second = halves(16, 16), Image.new("RGB", (16, 16), "green")
    moving = file(first, "GIF", save_all=True, append_images=[second])
    assert decode(moving, CROP, exact=exact)[0, 4, 0] > 200
    at = whole.index(b"\xff\xc0") + 5
    bomb = whole[:at] + (60000).to_bytes(2, "big") * 2 + whole[at + 4 :]
    with pytest.raises(ValueError, match="bomb"):
        decode(bomb, CROP, exact=exact)
