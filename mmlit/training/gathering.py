"""One batch of every device, with gradient: the only place that talks to other devices about a loss."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mmlit.contracts import Batch, Encoded


def world_size() -> int:
    """W, 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(tensor: Tensor, counts: Sequence[int] | None = None) -> tuple[Tensor, int]:
    """Every device's rows in the order of ranks, with gradient, and where this device's begin.

    Shares may be uneven: they are padded for the exchange and cut afterwards.

    Args:
        tensor: this device's rows.
        counts: how many rows each device has, or None: they are asked.
    """
    if world_size() == 1:
        return tensor, 0
    if counts is None:
        (counts,) = share_sizes(len(tensor), device=tensor.device)
    padded = torch.cat([tensor, tensor.new_zeros(max(counts) - len(tensor), *tensor.shape[1:])])
    shares = _Gather.apply(padded)
    rows = torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
    return rows, sum(counts[: dist.get_rank()])


class _Gather(torch.autograd.Function):
    """Shares of one size of every device; backward, each gets the sum of the gradients that all devices have for it."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> tuple[Tensor, ...]:
        shares = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(shares, share.contiguous())
        return tuple(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        if dist.get_backend() == "nccl":
            own = torch.empty_like(gradients[0], memory_format=torch.contiguous_format)
            dist.reduce_scatter(own, [gradient.contiguous() for gradient in gradients])
            return own
        everyone = torch.stack(gradients)  # gloo cannot scatter what it sums
        dist.all_reduce(everyone)
        return everyone[dist.get_rank()]


def share_sizes(*counts: int, device: torch.device) -> list[list[int]]:
    """For each of `counts`, what every device has in its place; one exchange for all of them."""
    if world_size() == 1:
        return [[count] for count in counts]
    sizes = [torch.zeros(len(counts), dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor(counts, device=device))
    return torch.stack(sizes, dim=1).tolist()


def gather_encoded(encoded: Encoded) -> tuple[Encoded, Encoded, int]:
    """(this device's rows, every device's rows, offset); tokens of both padded to the longest on any device."""
    if world_size() == 1:
        return encoded, encoded, 0
    counts, widths = share_sizes(*encoded.tokens.shape[:2], device=encoded.tokens.device)
    gap = max(widths) - encoded.tokens.shape[1]
    own = Encoded(F.pad(encoded.tokens, (0, 0, 0, gap)), encoded.pooled, F.pad(encoded.mask, (0, gap)))
    pooled, offset = gather(own.pooled, counts)
    if max(widths) == 0:  # dual encoders: nothing to exchange, not even through the backward pass
        return (
            own,
            Encoded(
                own.tokens.new_zeros(len(pooled), 0, pooled.shape[1]),
                pooled,
                own.mask.new_zeros(len(pooled), 0),
            ),
            offset,
        )
    tokens, mask = gather(own.tokens, counts)[0], gather(own.mask.byte(), counts)[0].bool()
    return own, Encoded(tokens, pooled, mask), offset


def gather_ids(batch: Batch) -> dict[str, Tensor | None]:
    """The global ids (and mixing) of a batch, named as the fields of `Pairs`."""
    names = ("image_id", "mix_image_id", "mix_weight", "text_id", "text_image_id")
    images, texts = share_sizes(len(batch.image_id), len(batch.text_id), device=batch.image_id.device)
    counts = dict(zip(names, (images, images, images, texts, texts), strict=True))
    parts = {name: getattr(batch, name) for name in names}
    return {f"all_{name}": None if part is None else gather(part, counts[name])[0] for name, part in parts.items()}


def global_mean(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each term's mean over all devices' rows, scaled so that DDP's average over devices of it is exact.

    Local sum · W / global count: summed over devices and divided by W, as DDP does with gradients, this is the mean.
    """
    counts = share_sizes(*map(len, terms.values()), device=next(iter(terms.values())).device)
    return {
        name: term.sum() * world_size() / sum(count) for (name, term), count in zip(terms.items(), counts, strict=True)
    }


def same_image(text_image_id: Tensor) -> Tensor:
    """How many texts (M,) share their image with another one of the batch; stays on the device."""
    ordered = text_image_id.sort().values
    equal = ordered[1:] == ordered[:-1]
    return (F.pad(equal, (1, 0)) | F.pad(equal, (0, 1))).sum()
