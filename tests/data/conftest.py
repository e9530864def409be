"""A small data set in COCO's layout, made of real files; a server with archives of one."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data.broken_server import Server, serving
from data.downloads import FILES
from PIL import Image


@pytest.fixture
def coco(tmp_path: Path):
    """A function that writes a split: image ids with their captions; returns the annotation file."""

    def write(split: str, captions: dict[int, list[str]], *, year: str = "2017", first_caption: int = 1) -> Path:
        folder = tmp_path / f"{split}{year}"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images, annotations = [], []
        for image_id, texts in captions.items():
            prefix = f"COCO_{split}{year}_" if year == "2014" else ""
            name = f"{prefix}{image_id:012d}.jpg"
            pixels = np.random.default_rng(image_id).integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name)
            images.append({"id": image_id, "file_name": name, "height": 10, "width": 12})
            for place, text in enumerate(texts):
                annotation = {"id": first_caption + len(annotations), "image_id": image_id, "caption": text}
                annotations.append((place, annotation))
        # as in the real file, captions of one image do not stand together
        annotations = [annotation for _, annotation in sorted(annotations, key=lambda pair: pair[0])]
        path = tmp_path / "annotations" / f"captions_{split}{year}.json"
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "type": "captions"}
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(dict(FILES)) as server:
        yield server
