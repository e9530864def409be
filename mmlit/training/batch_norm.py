"""Batch norms that learn: right only where one sees the whole batch."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_batch_norm(module: nn.Module, *, chunked: bool, devices: int, synchronized: bool) -> None:
    """Refuses batch norms in training mode whose statistics would be those of a part of the batch.

    Args:
        module: encoders and alignment.
        chunked: whether a batch goes through the towers in chunks.
        devices: how many have a share of the batch.
        synchronized: whether the devices exchange statistics.

    Raises:
        ValueError: naming the first such batch norm and the options.
    """
    found = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training]
    if not found:
        return
    norms = f"{found[0]} is one of {len(found)} batch norms that are trained"
    frozen = (
        f"keep its statistics (towers=[frozen_batch_norm]), freeze it ({found[0].partition('.')[0]}.freeze=true) or "
        "take an encoder without"
    )
    if chunked:
        raise ValueError(f"step=gradient_cache: {norms}, and a chunk's statistics are not the batch's: {frozen}")
    if devices > 1 and not synchronized:
        raise ValueError(
            f"trainer.devices: {norms}, and each of {devices} devices would have statistics of its own; they are "
            f"exchanged on GPUs with trainer.sync_batchnorm=true only: {frozen}"
        )


def check_folded(image_encoder: nn.Module) -> None:
    """Refuses to train batch norms whose statistics lie in the convolutions of the weights that the tower begins with.

    Raises:
        ValueError: if a batch norm in training mode has mean 0 and variance 1 throughout.
    """
    for name, part in image_encoder.named_modules():
        if not (isinstance(part, _BatchNorm) and part.training):
            continue
        mean, variance = part.running_mean, part.running_var
        if mean is not None and variance is not None and not mean.any() and bool(variance.eq(1).all()):
            raise ValueError(
                f"image_encoder.weights: batch norms are folded into the convolutions ({name} has mean 0 and variance "
                "1): trained, they would divide by a batch's own deviation, and what the weights know would be gone: "
                "take towers=[frozen_batch_norm]"
            )
