"""Captions lose words."""

from torch import Tensor

from mmlit.data.augmentation import WordAugmentation


class WordDropout(WordAugmentation):
    """Leaves each token of a caption out with a probability; marks of its beginning and end stay, and one word.

    Args:
        probability: in [0, 1).

    Raises:
        ValueError: if it is out of range.

    Source: Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text classification", Sec. 3.1
    (word dropout); of word pieces here.
    """

    def __init__(self, *, probability: float) -> None:
        if not 0 <= probability < 1:
            raise ValueError(f"augmentation.word_dropout.probability must lie in [0, 1), got {probability}")
        self.probability = probability

    def kept(self, draws: Tensor) -> Tensor:
        """See `WordAugmentation.kept`."""
        return draws >= self.probability
