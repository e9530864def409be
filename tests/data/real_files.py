"""Real files and the real data module, for the tests of the readers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from mmlit.contracts import ImageSpec
from mmlit.data.batching import OneCaption
from mmlit.data.captions import Captions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.folder import require_pictures, with_pictures
from mmlit.data.reading import Reading
from mmlit.text_encoders.tiny import TinyTextEncoder

TEXT = TinyTextEncoder(vocabulary_size=100, max_length=8, dim=32, num_layers=1, freeze=False)


def picture(path: Path, number: int = 0) -> None:
    """A small JPEG of noise that `number` decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def content(captions: Captions) -> dict[str, list[str]]:
    """Captions by picture, in order."""
    return {
        captions.files[image].as_py(): [captions.texts[text].as_py() for text in captions.texts_of(image)]
        for image in range(captions.num_images)
    }


def looked_for(captions: Captions) -> Captions:
    """As the data module does: all pictures are there."""
    return require_pictures(with_pictures(captions))


def is_compact(captions: Captions) -> bool:
    """Whether annotations are Arrow and NumPy."""
    arrow = isinstance(captions.files, pa.Array) and isinstance(captions.texts, pa.Array)
    return arrow and all(x.dtype == np.int64 for x in (captions.image_id, captions.text_id, captions.first))


def module(root: Path, source, **changes) -> PairsDataModule:
    """The data module over a reader, set up for training and for the final test."""
    options = {
        "root": str(root),
        "source": source,
        "train": "train",
        "val": "val",
        "test": "test",
        "batch_size": 2,
        "num_workers": 0,
        "drop_last": True,
        "seed": 0,
        "split": None,
        "image": ImageSpec(dim=1, size=8, resize="crop", interpolation="bilinear"),
        "text": TEXT,
        "batching": OneCaption(group_by_length=False),
        "reading": Reading(decode="fast", on_error="raise", max_bad_share=0.0),
        "cache": None,
    }
    data = PairsDataModule(**options | changes)
    data.setup("fit")
    data.setup("test")
    return data
