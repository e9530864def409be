"""Random order: of a whole split, or window by window where pictures lie in archives. (seed, epoch) decide it."""

import itertools

import numpy as np

from mmlit.data.captions import Captions


def shuffled_images(captions: Captions, seed: int, number: int) -> np.ndarray:
    """Numbers of all images in the order of epoch `number`."""
    rng = np.random.default_rng([seed, number])
    return np.concatenate([rng.permutation(window) for window in _windows(captions, rng)])


def shuffled_texts(captions: Captions, seed: int, number: int) -> np.ndarray:
    """Numbers of all captions in the order of epoch `number`."""
    rng = np.random.default_rng([seed, number])
    return np.concatenate([rng.permutation(captions.texts_of_all(window)) for window in _windows(captions, rng)])


def _windows(captions: Captions, rng: np.random.Generator) -> list[np.ndarray]:
    """Images that are shuffled together: all, or those of some archives where they are best read in a local order.

    Archives come in random order, and windows, of about `Captions.window` images, are as equal as whole archives let
    them be.
    """
    size = captions.num_images
    if captions.window is None or (count := round(size / captions.window)) <= 1:
        return [np.arange(size)]
    begins = np.flatnonzero(np.diff(captions.files.dictionary_encode().indices.to_numpy(), prepend=-1))
    sizes = np.diff(begins, append=size)
    chosen = rng.permutation(len(begins))
    window = (np.cumsum(sizes[chosen]) - sizes[chosen]) * count // size
    images = [np.arange(begin, begin + many) for begin, many in zip(begins[chosen], sizes[chosen], strict=True)]
    ends = np.flatnonzero(np.diff(window)) + 1
    return [np.concatenate(images[start:end]) for start, end in itertools.pairwise([0, *ends, len(images)])]
