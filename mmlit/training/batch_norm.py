"""Batch norms that learn: right only where one sees the whole batch."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_batch_norm(module: nn.Module, *, chunked: bool, devices: int, synchronized: bool) -> None:
    """Refuses batch norms in training mode whose statistics would be those of a part of the batch.

    Args:
        module: encoders and alignment; auxiliaries, if there are any, have the whole batch in every device.
        chunked: whether a batch goes through the towers in chunks.
        devices: how many have a share of the batch.
        synchronized: whether the devices exchange statistics.

    Raises:
        ValueError: naming the first such batch norm and the options.
    """
    found = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.training and not name.startswith("auxiliaries.")
    ]
    if not found:
        return
    norms = f"{found[0]} is one of {len(found)} batch norms that are trained"
    frozen = f"freeze it ({found[0].partition('.')[0]}.freeze=true) or take an encoder without"
    if chunked:
        raise ValueError(f"step=gradient_cache: {norms}, and a chunk's statistics are not the batch's: {frozen}")
    if devices > 1 and not synchronized:
        raise ValueError(
            f"trainer.devices: {norms}, and each of {devices} devices would have statistics of its own; they are "
            f"exchanged on GPUs with trainer.sync_batchnorm=true only: {frozen}"
        )
