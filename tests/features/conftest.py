"""A small data set, and chunks so small that it has many."""

import pytest

from mmlit.features import stores


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    from mmlit.data.scenes.write import write_scenes

    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root=folder, train=60, val=4, test=4, size=32, seed=0, workers=1)
    return folder


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(stores, "_IMAGES", 8)
    monkeypatch.setattr(stores, "_TEXTS", 64)
