"""What training batches have besides pictures and captions as they are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mmlit.contracts import ImageSpec
from mmlit.data.augmentation import Augmentation
from mmlit.data.reader import BatchReader, Views
from mmlit.data.tags import tag_table


class Further(NamedTuple):
    """`tags`: whether there are `Batch.labels`; `views` makes `Batch.views`; `augmentations` change what is there."""

    tags: bool = False
    views: Callable[[bytes, ImageSpec, int], tuple[Tensor, ...]] | None = None
    augmentations: Sequence[Augmentation] = ()

    def give(self, reader: BatchReader, *, seed: int, folder: Path | None) -> None:
        """Lets the reader of the training split bring tags and views; `folder` keeps what reading tags took.

        Raises:
            FileNotFoundError, ValueError: if the data have no tags.
        """
        reader.tags = tag_table(reader.captions, folder=folder) if self.tags else None
        reader.views = Views(self.views, seed) if self.views else None
