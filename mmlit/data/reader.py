"""Rows of a split → `Batch`."""

import itertools
from collections.abc import Callable, Sequence
from copy import copy
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmlit.contracts import Batch, Encoded, ImageSpec, uniform
from mmlit.data.augmentation import Augmenter
from mmlit.data.captions import Captions
from mmlit.data.decode import VERSION, decode, ends_well
from mmlit.data.reading import Broken, Reading, UnreadablePictureError
from mmlit.data.sampling import Row
from mmlit.data.tags import TagTable
from mmlit.data.token_table import TokenTable

#: draws of a substitute that is not in the batch yet; then any will do
_ATTEMPTS = 100


class Store(Protocol):
    """Where encoded items lie, by their number in the split."""

    def take(self, index: Sequence[int]) -> Encoded:
        """The items number `index`."""


class Views(NamedTuple):
    """What makes further views of a picture: (file, spec, key) → each uint8 (3,H,W); and the seed of the keys."""

    make: Callable[[bytes, ImageSpec, int], tuple[Tensor, ...]]
    seed: int


class BatchReader:
    """The collate function of a split: decodes pictures and looks up token ids, unless a store holds the encoded item.

    Args:
        captions: the split.
        tokens: its captions as token ids.
        spec: what the image encoder asks of a picture.
        reading: how pictures are read; where it skips broken ones, another image takes the place of each.
        world_size: W, of which this device reads the W-th part.
        gallery: whether the split is ranked.

    Attributes:
        image_store: encoded images by number, or None.
        text_store: encoded texts by number, or None.
        tags: which tags each image has, or None: batches then have no `labels`.
        views: what makes `Batch.views`, or None.
        augmenter: what changes pictures and words of training, or None.
        decoding: how files become pixels; where it differs, so do they.
    """

    def __init__(
        self,
        *,
        captions: Captions,
        tokens: TokenTable,
        spec: ImageSpec,
        reading: Reading,
        world_size: int = 1,
        gallery: bool = False,
    ) -> None:
        self.captions, self.tokens, self.spec = captions, tokens, spec
        self.exact = reading.decode == "exact"
        self.decoding = f"{reading.decode} {VERSION}"
        self.broken = Broken(captions=captions, reading=reading, world_size=world_size, gallery=gallery)
        self.image_store: Store | None = None
        self.text_store: Store | None = None
        self.tags: TagTable | None = None
        self.views: Views | None = None
        self.augmenter: Augmenter | None = None

    def plain(self) -> "BatchReader":
        """The same without what is added to training and changed in it."""
        plain = copy(self)
        plain.tags = plain.views = plain.augmenter = None
        return plain

    def __call__(self, rows: Sequence[Row]) -> Batch:
        batch, rows = self._read(rows)
        if self.augmenter is None:
            return batch
        epochs = [row.epoch for row in rows]
        of_texts = torch.tensor([row.epoch for row in rows for _ in row.texts])
        ids, mask = self.augmenter.tokens(batch.token_ids, batch.token_mask, text_id=batch.text_id, epochs=of_texts)
        return self.augmenter.mix(batch._replace(token_ids=ids, token_mask=mask), epochs=epochs)

    def _read(self, rows: Sequence[Row]) -> tuple[Batch, list[Row]]:
        """A batch, and the rows that it is of: others stand in for those that cannot be read."""
        rows, pixels = self._readable(rows)
        images = [row.image for row in rows]
        texts = [text for row in rows for text in row.texts]
        owners = [row.image for row in rows for _ in row.texts]
        token_ids, token_mask = self.tokens.take(texts)
        batch = Batch(
            image=self.image_store.take(images) if self.image_store else torch.stack(pixels),
            image_id=torch.from_numpy(self.captions.image_id[images]),
            token_ids=token_ids,
            token_mask=token_mask,
            text=self.text_store.take(texts) if self.text_store else None,
            text_id=torch.from_numpy(self.captions.text_id[texts]),
            text_image_id=torch.from_numpy(self.captions.image_id[owners]),
            labels=self.tags.take(images) if self.tags else None,
            views=self._views(rows) if self.views else None,
        )
        return batch, rows

    def look(self) -> None:
        """Finds pictures that are gone, cut off or nothing of the kind, as decoding all would, but in far less time.

        Raises:
            UnreadablePictureError: if one cannot be read, or too many cannot.
        """
        for image in range(self.captions.num_images):
            try:
                if not ends_well(file := self.captions.picture(image)):
                    decode(file, self.spec, exact=self.exact)
            except (OSError, ValueError) as error:
                self.broken.found(image, error)

    def pixels(self, images: Sequence[int]) -> Tensor:
        """uint8 (N,3,H,W) of the images number `images`; black where `broken` skips what cannot be read.

        Raises:
            UnreadablePictureError: if a picture cannot be read, or too many cannot.
        """
        black = torch.zeros(3, self.spec.size, self.spec.size, dtype=torch.uint8)
        return torch.stack([black if (found := self._decoded(image)) is None else found for image in images])

    def _readable(self, rows: Sequence[Row]) -> tuple[list[Row], list[Tensor]]:
        """`rows`, others in the place of those whose picture cannot be read, and pixels unless a store has them."""
        there, pixels = {row.image for row in rows}, []
        chosen = list(rows)
        for place, row in enumerate(rows):
            for attempt in itertools.count(1):
                sound = chosen[place].image not in self.broken
                if sound and self.image_store is None:
                    found = self._decoded(chosen[place].image, epoch=row.epoch)
                    sound = found is not None
                    pixels += [] if found is None else [found]
                if sound:
                    there.add(chosen[place].image)
                    break
                chosen[place] = self._substitute(row, attempt, there)
        return chosen, pixels

    def _substitute(self, row: Row, attempt: int, there: set[int]) -> Row:
        """A row that `row` and `attempt` alone decide, of an image that is not in the batch if one can be found."""
        key = int(self.captions.text_id[row.texts[0]])
        for again in range(_ATTEMPTS):
            draws = uniform(key, attempt, again, torch.arange(2)).tolist()
            image = int(draws[0] * self.captions.num_images)
            if image not in there:
                break
        own = self.captions.texts_of(image)
        whole = len(row.texts) == len(self.captions.texts_of(row.image)) > 1
        return Row(image, tuple(own) if whole else (own[int(draws[1] * len(own))],), row.epoch)

    def _views(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Of pictures that were read a moment ago: what cannot be read has been replaced.

        Raises:
            UnreadablePictureError: if one that was readable shrunk is not so whole.
        """
        make, seed = self.views  # type: ignore[misc]
        found = []
        for row in rows:
            draw = uniform(seed, row.epoch, int(self.captions.image_id[row.image]))
            try:
                found.append(make(self.captions.picture(row.image), self.spec, int(draw * 2**52)))
            except (OSError, ValueError) as error:
                name = self.captions.name(row.image)
                raise UnreadablePictureError(f"{name}: not a readable picture: {error}") from error
        return tuple(torch.stack(each) for each in zip(*found, strict=True))

    def _decoded(self, image: int, *, epoch: int | None = None) -> Tensor | None:
        """Pixels, augmented if it is for an epoch; or None where a picture that cannot be read is skipped."""
        if image in self.broken:
            return None
        try:
            file = self.captions.picture(image)
            if epoch is None or self.augmenter is None or not self.augmenter.pictures:
                return decode(file, self.spec, exact=self.exact)
            image_id = int(self.captions.image_id[image])
            return self.augmenter.picture(file, self.spec, exact=self.exact, epoch=epoch, image_id=image_id)
        except (OSError, ValueError) as error:
            self.broken.found(image, error)
            return None
