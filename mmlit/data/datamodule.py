"""Splits of image–caption pairs as Lightning asks for them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from mmlit.contracts import ImageSpec, TextEncoder
from mmlit.data.augmentation import Augmenter, refuse_contradictions
from mmlit.data.batching import Batching, Epoch
from mmlit.data.captions import Captions, in_common
from mmlit.data.folder import require_pictures, split_names, with_pictures
from mmlit.data.further import Further
from mmlit.data.kept import kept
from mmlit.data.reader import BatchReader
from mmlit.data.reading import Reading
from mmlit.data.sampling import (
    EpochLoader,
    EpochSampler,
    EvaluationRows,
    Row,
    ShareSampler,
    TrainingRows,
    held_out,
)
from mmlit.data.survey import unnamed_splits
from mmlit.data.token_table import token_table


class OpenSource(Protocol):
    """What a yaml's `source` gives: called with the root, it reads splits."""

    def __call__(self, *, root: str | Path) -> "Source":
        """Opens the folder."""


class Source(Protocol):
    """A folder of splits."""

    def inputs(self, split: str) -> Sequence[Path]:
        """The files whose content decides what `read` gives; none if that cannot be told."""

    def read(self, split: str) -> Captions:
        """One split, checked but for its pictures: the data module looks for those."""


class PairsDataModule(LightningDataModule):
    """Train, selection and reported split of one data set; checks that no image is in two of them.

    Args:
        root: the data set's folder.
        source: opens it, given `root`.
        train: name of the split to train on.
        val: name of the split that selection uses, or what to set aside of `train` for it: a number of images, or a
            share in (0, 1).
        test: name of the split that the final numbers are reported on, or what to set aside for them likewise; `split`
            replaces it.
        batch_size: images per device and step; training draws one caption of each per epoch.
        num_workers: reading processes per device, ≥ 0.
        drop_last: whether training leaves out the last, smaller batch (it has fewer negatives).
        seed: of order and captions.
        split: reported split, or None for `test`.
        image: the image encoder's spec.
        text: the text encoder, which tokenizes.
        batching: what a training batch is made of.
        reading: how pictures are read, and what happens when one cannot be.
        cache: folder that keeps what annotations and tokenizer gave, for later runs; None keeps nothing.
        further: what training batches have besides.
        captions_tell: of `sides`, `colours`, `objects`: what an augmentation must not make false.

    Raises:
        ValueError: if a number is out of range, an augmentation contradicts captions, a split is selected and reported
            on, or two splits share an image.
    """

    def __init__(
        self,
        *,
        root: str,
        source: OpenSource,
        train: str,
        val: str | int | float,
        test: str | int | float,
        batch_size: int,
        num_workers: int,
        drop_last: bool,
        seed: int,
        split: str | None,
        image: ImageSpec,
        text: TextEncoder,
        batching: Batching,
        reading: Reading,
        cache: str | Path | None,
        further: Further | None = None,
        captions_tell: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be >= 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"data.num_workers must be >= 0, got {num_workers}")
        self.root, self.source = root, source
        self.aside = {
            part: value for part, value in (("test", split or test), ("val", val)) if not isinstance(value, str)
        }
        for part, value in self.aside.items():
            if value <= 0 or (isinstance(value, float) and value >= 1):
                raise ValueError(f"data.{part}={value} to set aside must be a number of images or a share in (0, 1)")
        told = f"{test} of {train}" if "test" in self.aside else str(split or test)
        self.names: dict[str, str | int | float] = {"train": train, "val": val, "test": told}
        parts = [part for part in (train, val, test, split) if isinstance(part, str)]
        self._named = {name for part in parts for name in split_names(part)}
        self.batch_size, self.num_workers, self.drop_last, self.seed = (
            batch_size,
            num_workers,
            drop_last,
            seed,
        )
        self.image, self.text, self.batching, self.reading = image, text, batching, reading
        self.cache = None if cache is None else Path(cache)
        self.further, self.augmenter = further or Further(), None
        refuse_contradictions(self.further.augmentations, captions_tell)
        if some := self.further.augmentations:
            self.augmenter = Augmenter(some, seed=seed, special_ids=text.spec.special_ids)
        self.readers: dict[str, BatchReader] = {}
        self._opened: Source | None = None
        self._parts: dict[str, Captions] = {}  # the training split and what is set aside of it

    def setup(self, stage: str) -> None:
        """Reads the splits of `stage` (`fit`: train and selection; `test`: the reported one), each once."""
        for part in ("train", "val") if stage == "fit" else ("test",):
            if part not in self.readers:
                self._opened = self._opened or self.source(root=self.root)  # one file may hold all splits
                self.readers[part] = self._reader(part, self._read(self._opened, part))
        self._check()

    def captions(self, split: str | None = None) -> dict[str, Captions]:
        """Splits without tokens: the one called `split`, or what training, selection and report use, by those names."""
        self._opened = self._opened or self.source(root=self.root)
        if split is not None:
            return {split: self._captions(self._opened, split)}
        return {part: self._read(self._opened, part) for part in ("train", "val", "test")}

    def look_at_galleries(self) -> None:
        """Finds what cannot be read of the selection and reported splits, which would else stop a run that has trained.

        Raises:
            UnreadablePictureError: naming the picture.
        """
        for part in ("val", "test"):
            self.readers[part].look()

    def training_facts(self) -> dict[str, Any]:
        """What a record says of the training data: images, captions, digests of the training and selection splits."""
        train, val = self.readers["train"].captions, self.readers["val"].captions
        return {"images": train.num_images, "pairs": train.num_texts, "digests": [train.digest, val.digest]}

    def unnamed_splits(self) -> str:
        """Splits that no option names, though the table that was read has rows of them: how many, and the first."""
        found = unnamed_splits([reader.captions for reader in self.readers.values()], self._named)
        return ", ".join(f"{name} {count:,} (first: {place})" for name, (count, place) in found.items())

    def train_dataloader(self) -> DataLoader[Row]:
        """Global batches that only seed and epoch decide."""
        reader = self.readers["train"]
        captions, lengths, (rank, world_size) = reader.captions, reader.tokens.lengths, self._place()
        plan = partial(self._plan, captions=captions, lengths=lengths, batch=self.batch_size * world_size)
        sampler = EpochSampler(
            plan=plan,
            size=self.batching.size(captions),
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            rank=rank,
            world_size=world_size,
        )
        rows = TrainingRows(captions=captions, plan=plan, size=sampler.size)
        return self._loader(rows, sampler, reader, self.drop_last, kind=EpochLoader)

    def val_dataloader(self) -> DataLoader[Row]:
        """The selection split, this device's share."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Row]:
        """The reported split, this device's share."""
        return self._evaluation("test")

    def training_sample(self) -> DataLoader[Row]:
        """As many training images as the selection split has, always the same, read as that is; this device's share."""
        reader, count = self.readers["train"], self.readers["val"].captions.num_images
        sound = np.flatnonzero(~reader.broken.flags.numpy())
        return self._evaluation("train", sound[held_out(reader.captions.image_id[sound], min(count, len(sound) - 1))])

    def _plan(self, number: int, **known: Any) -> Epoch:
        return self.batching.epoch(seed=self.seed, number=number, **known)

    def _reader(self, name: str, captions: Captions) -> BatchReader:
        """Training may decode fast and skip; a gallery is whole, and the reported one is read exactly."""
        reading = self.reading
        if name != "train":
            decode: Literal["fast", "exact"] = "exact" if name == "test" else reading.decode
            reading = Reading(decode=decode, on_error="raise", max_bad_share=0.0)
        if reading.on_error == "raise":
            require_pictures(captions)
        tokens = token_table(captions, self.text, folder=self.cache)
        _, world_size = self._place()
        reader = BatchReader(
            captions=captions, tokens=tokens, spec=self.image, reading=reading, world_size=world_size,
            gallery=name != "train",
        )  # fmt: skip
        if name == "train":
            self.further.give(reader, seed=self.seed, folder=self.cache)
            reader.augmenter = self.augmenter
        return reader

    def _read(self, source: Source, part: str) -> Captions:
        if part != "train" and part not in self.aside:
            return self._captions(source, str(self.names[part]))
        self._parts = self._parts or self._divided(self._captions(source, str(self.names["train"])))
        return self._parts[part]

    def _divided(self, captions: Captions) -> dict[str, Captions]:
        """The training split without what is set aside of it, of pictures that are there; and that, each part."""
        stays, there = np.ones((2, captions.num_images), bool)
        if captions.missing is not None:
            there[captions.missing] = False
        parts = {}
        for part, value in self.aside.items():
            count = max(1, round(value * captions.num_images)) if isinstance(value, float) else value
            chosen = np.flatnonzero(there)[held_out(captions.image_id[there], count, option=f"data.{part}")]
            parts[part] = captions.subset(chosen)
            stays[chosen] = there[chosen] = False
        return {"train": captions.subset(np.flatnonzero(stays)) if parts else captions, **parts}

    def _captions(self, source: Source, split: str) -> Captions:
        """A split, its pictures looked for; from the cache what is known of its annotations."""
        inputs = [] if self.cache is None else source.inputs(split)
        if self.cache is None or not inputs:
            captions = source.read(split)
        else:
            options = {key: value for key, value in vars(source).items() if not key.startswith("_")}
            settings = f"{type(source).__module__}.{type(source).__qualname__}|{sorted(options.items())}|{split}"
            captions = kept(lambda: source.read(split), folder=self.cache, inputs=inputs, settings=settings)
        return with_pictures(captions)

    def _check(self) -> None:
        """Images are disjoint between splits, by id and by file; the training split fills a batch."""
        if {"train", "test"} <= self.readers.keys() and self.names["test"] in (
            self.names["train"],
            self.names["val"],
        ):
            raise ValueError(
                f"split={self.names['test']} is what training or selection uses; report on another, or set images of "
                "the training split aside for selection (data.val=500)"
            )
        parts = [(name, reader.captions) for name, reader in self.readers.items()]
        for i, (name, captions) in enumerate(parts):
            for other, others in parts[i + 1 :]:
                for what, shared in in_common(captions, others).items():
                    if len(shared):
                        raise ValueError(
                            f"{captions.source} ({name}) and {others.source} ({other}) share {len(shared)} images, "
                            f"e.g. {what} {shared[0]}"
                        )
        train = self.readers.get("train")
        if train and self.drop_last and (rows := self.batching.size(train.captions)) < self.batch_size:
            raise ValueError(
                f"data.batch_size={self.batch_size} is more than the {rows} training images of "
                f"{train.captions.source}; lower it or set data.drop_last=false"
            )

    def _evaluation(self, part: str, images: np.ndarray | None = None) -> DataLoader[Row]:
        reader = self.readers[part].plain()
        rows = EvaluationRows(captions=reader.captions, images=images)
        rank, world_size = self._place()
        return self._loader(rows, ShareSampler(size=len(rows), rank=rank, world_size=world_size), reader, False)

    def _loader(self, rows, sampler, reader: BatchReader, drop_last: bool, kind=DataLoader) -> DataLoader[Row]:  # type: ignore[no-untyped-def]
        return kind(
            rows,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=reader,
            num_workers=self.num_workers,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _place(self) -> tuple[int, int]:
        """Rank and number of devices; one device where no trainer is attached."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
