"""Directories of published vision towers, and small models among torchvision's own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_encoders.huggingface_towers import FAMILIES
from image_encoders.torchvision_members import LARGE, SMALL
from layers.published import publish
from torch import Tensor, nn
from torchvision import models


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of each of the four families."""
    return {family: publish(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def copy(published: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A directory that a test may damage."""
    return lambda family: Path(shutil.copytree(published[family], tmp_path / family))


@pytest.fixture(scope="module")
def small_members() -> Iterator[None]:
    """Registered as torchvision's own are; the large layers, which nothing of ours keeps, are not filled with draws."""
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in SMALL.items():
            patch.setattr(builder, "__module__", "torchvision.models.small")
            patch.setitem(models._api.BUILTIN_MODELS, name, builder)
        for name in ("kaiming_uniform_", "normal_"):
            patch.setattr(nn.init, name, _only_small(getattr(nn.init, name)))
        yield


def _only_small(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda tensor, *rest, **options: tensor if tensor.numel() > LARGE else draw(tensor, *rest, **options)
