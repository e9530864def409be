"""One batch of every device, with gradient: the only place that talks to other devices about a loss."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from mmlit.contracts import Batch, Encoded


def world_size() -> int:
    """W, 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(tensor: Tensor) -> tuple[Tensor, int]:
    """Every device's rows in the order of ranks, with gradient, and where this device's begin.

    Shares may be uneven: they are padded for the exchange and cut afterwards.
    """
    if world_size() == 1:
        return tensor, 0
    counts = share_sizes(len(tensor), tensor.device)
    padded = torch.cat([tensor, tensor.new_zeros(max(counts) - len(tensor), *tensor.shape[1:])])
    if tensor.is_floating_point() and tensor.requires_grad:
        shares = all_gather(padded.contiguous())
    else:
        shares = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(list(shares), padded.contiguous())
    rows = torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
    return rows, sum(counts[: dist.get_rank()])


def share_sizes(count: int, device: torch.device) -> list[int]:
    """How many rows each device has."""
    if world_size() == 1:
        return [count]
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([count], device=device))
    return [int(size) for size in sizes]


def gather_encoded(encoded: Encoded) -> tuple[Encoded, Encoded, int]:
    """(this device's rows, every device's rows, offset); tokens of both padded to the longest on any device."""
    if world_size() == 1:
        return encoded, encoded, 0
    width = max(share_sizes(encoded.tokens.shape[1], encoded.tokens.device))
    gap = width - encoded.tokens.shape[1]
    own = Encoded(F.pad(encoded.tokens, (0, 0, 0, gap)), encoded.pooled, F.pad(encoded.mask, (0, gap)))
    pooled, offset = gather(own.pooled)
    if width == 0:  # dual encoders: nothing to exchange, not even through the backward pass
        return (
            own,
            Encoded(
                own.tokens.new_zeros(len(pooled), 0, pooled.shape[1]),
                pooled,
                own.mask.new_zeros(len(pooled), 0),
            ),
            offset,
        )
    return own, Encoded(gather(own.tokens)[0], pooled, gather(own.mask.byte())[0].bool()), offset


def gather_ids(batch: Batch) -> dict[str, Tensor | None]:
    """The global ids (and mixing) of a batch, named as the fields of `Pairs`."""
    names = ("image_id", "text_id", "text_image_id", "mix_image_id", "mix_weight")
    parts = {name: getattr(batch, name) for name in names}
    return {f"all_{name}": None if part is None else gather(part)[0] for name, part in parts.items()}


def global_mean(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each term's mean over all devices' rows, scaled so that DDP's average over devices of it is exact.

    Local sum · W / global count: summed over devices and divided by W, as DDP does with gradients, this is the mean.
    """
    counts = {name: sum(share_sizes(len(term), term.device)) for name, term in terms.items()}
    return {name: term.sum() * world_size() / counts[name] for name, term in terms.items()}
