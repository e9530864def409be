"""Directories of published text towers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from layers.published import publish
from text_encoders.towers import FAMILIES, PAIRS


@pytest.fixture
def folder(tiny_bert: str, tmp_path: Path) -> Path:
    """A copy of the directory of BERT that a test may damage."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of each family; of pairs, with both towers."""
    return {family: publish(tmp_path_factory.mktemp(family), family) for family in (*FAMILIES, *PAIRS)}


@pytest.fixture
def copy(published: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A directory that a test may damage."""
    return lambda family: Path(shutil.copytree(published[family], tmp_path / family))
