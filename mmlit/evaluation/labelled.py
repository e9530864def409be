"""Pictures with a class each: from class folders, or a data set of torchvision by name."""

import inspect
import logging
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.pictures import picture_size
from mmlit.evaluation.probe import Scorer

log = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """N pictures: `at(n)` is the file, or the picture, and its class's number; `name(n)` what errors call it."""

    num: int
    at: Callable[[int], tuple[Any, int]]
    name: Callable[[int], str]
    classes: list[str]
    digest: str


class Part(NamedTuple):
    """Embedded pictures `start` … `start` + B − 1 with the numbers (B,) of their classes."""

    start: int
    image: Encoded
    labels: Tensor


def class_folders(option: str, root: str | Path) -> Labelled:
    """torchvision's layout ROOT/CLASS/….jpg, classes in the order of their names.

    Raises:
        FileNotFoundError: if there is no folder, no class in it, or a class without pictures.
        ValueError: if a file is no picture.
    """
    from torchvision.datasets import ImageFolder

    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{option}={root} is no folder")
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{option}={root}: {error}") from None
    digest = sha256(repr(found.classes).encode())
    files = [(Path(file), label) for file, label in found.samples]
    for file, _ in files:
        picture_size(f"{option}={root}", file)
        digest.update(repr((file.relative_to(folder).as_posix(), file.stat().st_size)).encode())
    return Labelled(len(files), files.__getitem__, lambda n: str(files[n][0]), found.classes, digest.hexdigest()[:16])


def torchvision_data(name: str, root: str | Path, split: str) -> Labelled:
    """A data set that torchvision knows, which lies below `root` as torchvision keeps it; nothing is downloaded.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if torchvision has no such data set for classification, or it no such split.
    """
    from torchvision import datasets

    made = getattr(datasets, name, None)
    options = set(inspect.signature(made).parameters) if inspect.isclass(made) else set()
    if made is None or name not in datasets.__all__ or not options & {"train", "split"}:
        raise ValueError(f"evaluator.dataset: torchvision has no {name!r} with a train and a test part")
    if "split" not in options and split not in ("train", "test"):
        raise ValueError(f"evaluator.split must be train or test for {name}, got {split!r}")
    part = {"split": split} if "split" in options else {"train": split == "train"}
    try:
        found = made(str(Path(root).expanduser()), **part)
    except RuntimeError as error:
        raise FileNotFoundError(f"evaluator.dataset={name}: not below {root}: {error}") from error
    classes = [str(each) if isinstance(each, str) else ", ".join(each) for each in getattr(found, "classes", [])]
    if not classes:
        raise ValueError(f"evaluator.dataset={name}: it does not say what its classes are called")
    digest = sha256(repr((name, split, len(found), classes)).encode()).hexdigest()[:16]
    return Labelled(len(found), found.__getitem__, lambda n: f"{name} {split} item {n}", classes, digest)


def embedded(model: Scorer, pictures: Labelled, *, batch_size: int) -> Iterator[Part]:
    """The pictures one batch after the other.

    Raises:
        ValueError: if one cannot be read, or its embedding is not finite, naming it.
    """
    log.info("encoding %s pictures of %s classes", f"{pictures.num:,}", f"{len(pictures.classes):,}")
    for start in range(0, pictures.num, batch_size):
        numbers = range(start, min(start + batch_size, pictures.num))
        images, labels = zip(*(pictures.at(number) for number in numbers), strict=True)
        image = model.encode_images(list(images), batch_size=batch_size)
        wrong = (~image.pooled.isfinite().all(1)).nonzero()
        if len(wrong):
            raise ValueError(f"{pictures.name(start + int(wrong[0]))}: its embedding is not finite")
        yield Part(start, image, torch.tensor(labels))


def features(model: Scorer, pictures: Labelled, *, batch_size: int) -> tuple[Tensor, Tensor]:
    """The pooled vectors (N,E), fp32 on the CPU, and the classes (N,) of all pictures.

    Raises:
        ValueError: as `embedded`.
    """
    parts = [
        (part.image.pooled.float().cpu(), part.labels) for part in embedded(model, pictures, batch_size=batch_size)
    ]
    vectors, labels = zip(*parts, strict=True)
    return torch.cat(vectors), torch.cat(labels)


def train_and_test(train: str, test: str) -> tuple[Labelled, Labelled]:
    """Two folders of class folders with the same classes.

    Raises:
        FileNotFoundError: as `class_folders`.
        ValueError: as `class_folders`; if the classes differ or one folder lies in the other.
    """
    outer, inner = Path(train).expanduser().resolve(), Path(test).expanduser().resolve()
    if outer.is_relative_to(inner) or inner.is_relative_to(outer):
        raise ValueError(f"evaluator.train={train} and evaluator.test={test} share pictures")
    known, asked = class_folders("evaluator.train", train), class_folders("evaluator.test", test)
    if different := sorted(set(known.classes) ^ set(asked.classes)):
        raise ValueError(f"class {different[0]!r} is in only one of evaluator.train={train} and evaluator.test={test}")
    return known, asked
