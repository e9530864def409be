"""What every encoder of `conf/` promises, whatever its class."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from layers.published import publish
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmlit.contracts import Encoded, ImageEncoder, TextEncoder

ROOT = Path(__file__).resolve().parents[2]
IMAGE_FILES = sorted((ROOT / "conf" / "image_encoder").glob("*.yaml"))
TEXT_FILES = sorted((ROOT / "conf" / "text_encoder").glob("*.yaml"))
FILES = [*IMAGE_FILES, *TEXT_FILES]
TEXTS = ["a small red circle left of the blue square", "dogs", "The cat runs and the horse sits on a large square"]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives a small directory laid out as the hub's of a family, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("published")
    return cache(lambda family: str(publish(folder / family, family)))


def _settings(file: Path, published: Callable[[str], str]) -> dict[str, Any]:
    """A yaml's options; what would be fetched is random, or a small checkpoint, and pictures are small."""
    settings: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    if ".huggingface." in settings["_target_"] or ".pair." in settings["_target_"]:
        return settings | {"name": published(file.stem)}
    if file.stem == "timm":
        return settings | {"name": "test_vit", "weights": None}
    return settings | ({"weights": None, "size": 64} if "weights" in settings else {})


@pytest.fixture(params=FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def settings(request: pytest.FixtureRequest, published: Callable[[str], str]) -> dict[str, Any]:
    return _settings(request.param, published)


def _make(settings: dict[str, Any], *, freeze: bool = False) -> Any:
    torch.manual_seed(0)
    return instantiate(settings | {"freeze": freeze}, _convert_="all")


def _inputs(encoder: ImageEncoder | TextEncoder, count: int = 3) -> tuple[Tensor, ...]:
    if isinstance(encoder, TextEncoder):
        return encoder.tokenize(TEXTS[:count])
    shape = (count, 3, encoder.spec.size, encoder.spec.size)
    return (torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),)


def _close(one: Encoded, other: Encoded) -> None:
    """Equal where the mask keeps."""
    assert torch.equal(one.mask, other.mask)
    _same(one.pooled, other.pooled)
    _same(one.tokens[one.mask], other.tokens[other.mask])


def _same(one: Tensor, other: Tensor) -> None:
    """Equal but for the order of summation, at the scale of the largest value."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_every_file_is_tested() -> None:
    """As many as there are files, and none of them twice."""
    folders = [ROOT / "conf" / "image_encoder", ROOT / "conf" / "text_encoder"]
    assert len(FILES) == len(set(FILES)) == sum(len([*folder.iterdir()]) for folder in folders)
    assert IMAGE_FILES
    assert TEXT_FILES


@torch.no_grad()
def test_shapes(settings: dict[str, Any]) -> None:
    encoder = _make(settings).eval()
    inputs = _inputs(encoder)
    encoded = encoder(*inputs)
    count, width = encoded.mask.shape
    assert isinstance(encoded, Encoded)
    assert encoded.tokens.shape == (3, width, encoder.spec.dim)
    assert encoded.pooled.shape == (3, encoder.spec.dim)
    assert count == 3
    assert encoded.mask.dtype == torch.bool
    assert encoded.mask.any(1).all()
    assert all(part.isfinite().all() for part in encoded[:2])
    if isinstance(encoder, TextEncoder):
        assert torch.equal(encoded.mask, inputs[1])
        assert inputs[0].dtype == torch.int64
        assert inputs[0].max() < encoder.spec.vocabulary_size
        assert all(0 <= special < encoder.spec.vocabulary_size for special in encoder.spec.special_ids)


@torch.no_grad()
def test_nobody_else_in_the_batch_changes_an_item(settings: dict[str, Any]) -> None:
    """Trap 21: each item alone (also Trap 19: batch size 1) is as in company, in any order."""
    encoder = _make(settings).eval()
    inputs = _inputs(encoder)
    together = encoder(*inputs)
    for row in range(3):
        _close(encoder(*(part[row : row + 1] for part in inputs)), together.take(slice(row, row + 1)))
    _close(encoder(*(part.flip(0) for part in inputs)), together.take(torch.tensor([2, 1, 0])))


@torch.no_grad()
def test_padding_changes_nothing(settings: dict[str, Any]) -> None:
    encoder = _make(settings).eval()
    if isinstance(encoder, ImageEncoder):
        assert encoder(*_inputs(encoder)).mask.all()
        return
    ids, mask = _inputs(encoder)
    wide = encoder(nn.functional.pad(ids, (0, 5), value=1), nn.functional.pad(mask, (0, 5)))
    _close(Encoded(wide.tokens[:, :-5], wide.pooled, wide.mask[:, :-5]), encoder(ids, mask))
    for row, text in enumerate(TEXTS):
        alone = encoder(*encoder.tokenize([text]))
        _same(alone.pooled[0], wide.pooled[row])


def test_trains_on_a_batch_of_one(settings: dict[str, Any]) -> None:
    """Trap 19."""
    encoder = _make(settings).train()
    encoded = encoder(*_inputs(encoder, 1))
    encoded.pooled.sum().backward()
    assert encoded.pooled.shape == (1, encoder.spec.dim)


def test_frozen_means_that_nothing_moves(settings: dict[str, Any]) -> None:
    """Trap 22: no parameter, no statistic of batch norm, no dropout, whatever `train()` says."""
    encoder = _make(settings, freeze=True)
    head = nn.Linear(encoder.spec.dim, 4)
    module = nn.Sequential(encoder, head).train()
    assert head.training
    assert not any(part.training for part in encoder.modules())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    inputs = _inputs(encoder)
    first = encoder(*inputs)
    assert not first.tokens.requires_grad
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    head(first.pooled).square().sum().backward()
    optimizer.step()
    module.train()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert torch.equal(encoder(*inputs).pooled, first.pooled)


def test_unfrozen_encoders_train(settings: dict[str, Any]) -> None:
    """No part is left in evaluation mode: Lightning keeps the modes it finds."""
    encoder = _make(settings)
    assert all(part.training for part in encoder.modules())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens_and_pooled", "pooled_only"])
def test_every_parameter_gets_a_gradient(settings: dict[str, Any], tokens: bool) -> None:
    """Several devices fail on one without, be the alignment one of tokens or of pooled vectors."""
    encoder = _make(settings).train()
    encoded = encoder(*_inputs(encoder))
    loss = encoded.pooled.square().sum() + (encoded.tokens.square().sum() if tokens else 0)
    loss.backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert without == []


@torch.no_grad()
def test_inputs_are_not_mutated(settings: dict[str, Any]) -> None:
    encoder = _make(settings).eval()
    inputs = _inputs(encoder)
    copies = [part.clone() for part in inputs]
    encoder(*inputs)
    assert all(torch.equal(part, copy) for part, copy in zip(inputs, copies, strict=True))


@torch.no_grad()
def test_pixels_are_in_0_to_255(settings: dict[str, Any]) -> None:
    """Bytes and floats of the same values are the same picture; a 255th of them is nearly black."""
    encoder = _make(settings).eval()
    if isinstance(encoder, TextEncoder):
        return
    (pixels,) = _inputs(encoder)
    bright, dim, black = (encoder(part).tokens for part in (pixels.float(), pixels / 255, torch.zeros_like(pixels)))
    assert torch.equal(encoder(pixels).tokens, bright)
    assert (dim - black).norm() < 0.2 * (bright - black).norm()


def test_truncation_is_counted(settings: dict[str, Any]) -> None:
    encoder = _make(settings)
    if isinstance(encoder, ImageEncoder):
        return
    assert encoder.num_truncated == 0
    ids, mask = encoder.tokenize(["dog " * encoder.spec.max_length, "dog"])
    assert ids.shape == mask.shape == (2, encoder.spec.max_length)
    assert encoder.num_truncated == 1


def test_fingerprint_changes_with_the_weights(settings: dict[str, Any]) -> None:
    encoder = _make(settings)
    before = encoder.fingerprint()
    assert _make(settings, freeze=True).fingerprint() == before
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    assert encoder.fingerprint() != before


@pytest.mark.slow
def test_fingerprints_are_the_same_in_another_process(published: Callable[[str], str]) -> None:
    """Nor do they depend on the order of sets and dictionaries."""
    every = [_settings(file, published) for file in FILES]
    program = """
import json, sys, torch
from mmlit.configuration.binding import locate
prints = []
for settings in json.loads(sys.argv[1]):
    torch.manual_seed(0)
    prints.append(locate(settings.pop("_target_"))(**settings).fingerprint())
print(json.dumps(prints))
"""
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, json.dumps(every)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert json.loads(told.stdout) == [_make(settings).fingerprint() for settings in every]
