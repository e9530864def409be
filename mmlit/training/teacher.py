"""Momentum towers: both encoders and the alignment, moving slowly after what is trained."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmlit.contracts import Alignment, ImageEncoder, TextEncoder


class Teacher:
    """Exponential moving averages of all that is trained, in evaluation mode and without gradients.

    What no optimizer moves, frozen weights and buffers, is not copied but the student's own: a frozen tower costs no
    memory twice. A teacher is no `nn.Module`: no optimizer, DDP or weights of a checkpoint know of it.

    Args:
        image_encoder: the student's.
        text_encoder: the student's.
        alignment: the student's; its `momentum` m makes each average m · average + (1 − m) · student.

    Source: He et al. 2019 (MoCo), Eq. 2, arXiv 1911.05722; of both towers and their heads Li et al. 2021 (ALBEF),
    Sec. 3.2, arXiv 2107.07651.
    Differs: a batch norm has the student's running statistics, and normalizes with them.
    """

    def __init__(self, *, image_encoder: ImageEncoder, text_encoder: TextEncoder, alignment: Alignment) -> None:
        student = nn.ModuleDict({"image_encoder": image_encoder, "text_encoder": text_encoder, "alignment": alignment})
        still = [*student.buffers(), *(part for part in student.parameters() if not part.requires_grad)]
        copied = deepcopy(student, {id(part): part for part in still}).requires_grad_(False).eval()
        self.image_encoder: ImageEncoder = copied["image_encoder"]  # type: ignore[assignment]
        self.text_encoder: TextEncoder = copied["text_encoder"]  # type: ignore[assignment]
        self.alignment: Alignment = copied["alignment"]  # type: ignore[assignment]
        self._student = {name: part for name, part in student.named_parameters() if part.requires_grad}
        averages = dict(copied.named_parameters())
        self._averages: dict[str, Tensor] = {name: averages[name] for name in self._student}
        self._move = get_ema_multi_avg_fn(alignment.momentum)

    @torch.no_grad()
    def follow(self) -> None:
        """One optimizer step later."""
        self._move(list(self._averages.values()), list(self._student.values()), None)

    def state_dict(self) -> dict[str, Tensor]:
        """All averages, by the names of the student's parameters."""
        return self._averages

    @torch.no_grad()
    def load_state_dict(self, stored: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: if it is of other parameters.
        """
        if stored.keys() != self._averages.keys():
            other = sorted(stored.keys() ^ self._averages.keys())
            raise ValueError(f"the teacher's averages in the checkpoint are of other parameters: {', '.join(other)}")
        for name, average in self._averages.items():
            average.copy_(stored[name])
