"""What determines an encoded item: where one of these facts differs, it is another store."""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmlit.contracts import ImageEncoder, TextEncoder
from mmlit.features.layout import VERSION

#: whose code is known by a version; all other code of an encoder is read
_LIBRARIES = ("torch", "torchvision", "transformers", "timm", "pillow", "simplejpeg")


class Manner(NamedTuple):
    """How a run would encode: `precision` is the trainer's, `context()` what its forward passes run within.

    `num_workers` processes read pictures.
    """

    device: torch.device
    precision: str
    context: Callable[[], AbstractContextManager[Any]]
    num_workers: int


def encoder_facts(encoder: ImageEncoder | TextEncoder) -> dict[str, Any]:
    """Weights, settings and code of an encoder."""
    kind = type(encoder)
    return {
        "encoder": f"{kind.__module__}.{kind.__qualname__}",
        "fingerprint": encoder.fingerprint(),
        "spec": str(encoder.spec),
        "code": _code(encoder),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def image_facts(reader: Any) -> dict[str, Any]:
    """What a reader (`mmlit.data.reader.BatchReader`) brings to encoded images: files, and how they become pixels.

    Raises:
        ValueError: if it does not know when its files were written.
    """
    captions = reader.captions
    if not captions.pictures:
        raise ValueError(f"{captions.source}: its pictures were not looked for, so nothing tells when they change")
    return {"side": "images", "data": captions.pictures, "items": captions.num_images, "decode": reader.decoding}


def text_facts(reader: Any) -> dict[str, Any]:
    """What it brings to encoded captions: their token ids."""
    tokens = reader.tokens
    digest = sha256()
    for array in (tokens.ids, tokens.first):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(memoryview(array).cast("B"))
    return {"side": "captions", "data": digest.hexdigest()[:16], "items": len(tokens.first) - 1}


def manner_facts(manner: Manner, *, half: bool) -> dict[str, Any]:
    """Device, precision, and what is kept of it."""
    return {
        "version": VERSION,
        "device": manner.device.type,
        "precision": manner.precision,
        "products": torch.get_float32_matmul_precision(),
        "half": half,
    }


def name_of(facts: Mapping[str, Any], *, tokens: bool) -> str:
    """A folder name that no other facts have."""
    digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{facts['side']}-{digest}-{'tokens' if tokens else 'pooled'}"


def _code(encoder: ImageEncoder | TextEncoder) -> str:
    """Digest of the files that define the encoder's classes, those of libraries left out."""
    kinds = {kind for module in encoder.modules() for kind in type(module).__mro__}
    names = {kind.__module__ for kind in kinds} - {"builtins"}
    digest = sha256()
    for name in sorted(names):
        if name.partition(".")[0] in (*_LIBRARIES, *sys.stdlib_module_names) or name not in sys.modules:
            continue
        try:
            digest.update(name.encode() + Path(inspect.getfile(sys.modules[name])).read_bytes())
        except TypeError:  # written at a prompt
            digest.update(name.encode())
    return digest.hexdigest()[:16]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
