"""Batch norms that keep their statistics while their tower trains, done by the convolutions before them."""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmlit.contracts import ImageEncoder, TextEncoder
from mmlit.image_encoders.dry_run import shapes


class FrozenBatchNorm:
    """An image tower's batch norms keep the statistics that they came with; scale and shift train with the tower.

    Fine-tuned on small batches, statistics are noise; weights whose batch norms were folded into the convolutions are
    lost as soon as a batch norm divides by the batch's deviation. It also lets batch norms go with several devices and
    with `step=gradient_cache`. A batch norm right behind a convolution costs nothing: the convolution's weights take
    its factor, made anew in each step, so that values and gradients are those of the two.

    Source: He et al. 2015 (ResNet), App. A, arXiv 1512.03385, where they stand still in the fine-tuning of detectors.
    Differs: scale and shift are not frozen with the statistics, where the tower trains.
    """

    def apply(self, image_encoder: ImageEncoder, text_encoder: TextEncoder) -> None:
        """From now on the image tower's batch norms stay in evaluation mode.

        Raises:
            ValueError: if the tower is frozen, which keeps them still anyway, or has none.
        """
        if image_encoder.frozen:
            raise ValueError(
                "towers.frozen_batch_norm: image_encoder.freeze=true keeps batch norms still, and all else, too: leave "
                "it out"
            )
        norms = tuple(part for part in image_encoder.modules() if isinstance(part, _BatchNorm))
        if not norms:
            raise ValueError("towers.frozen_batch_norm: image_encoder has no batch norm: leave it out")
        image_encoder.still += norms
        image_encoder.train()
        for convolution, norm in _pairs(image_encoder):
            # In place, so that parameters and statistics keep their names, in memory and in checkpoints.
            convolution.__class__ = _FoldedConvolution
            cast(_FoldedConvolution, convolution).behind = (norm,)  # a tuple: no second parent of the norm
            norm.__class__ = _AbsorbedNorm  # type: ignore[assignment]


class _FoldedConvolution(nn.Conv2d):
    """A convolution that does what the batch norm behind it would do."""

    behind: tuple[Any]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (as in torch)
        (norm,) = self.behind
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * factor
        if self.bias is not None:
            shift = shift + self.bias * factor
        return self._conv_forward(input, self.weight * factor[:, None, None, None], shift)


class _AbsorbedNorm(nn.Module):
    """What such a batch norm does then: nothing. No `_BatchNorm`, which devices would synchronize."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _pairs(encoder: ImageEncoder) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the batch norms that each read one's output, as one picture goes through."""
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[nn.Module, int] = {}

    def behind_convolution(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = module, output, output._version  # held, so that no other tensor gets its id

    def before_norm(module: nn.BatchNorm2d, given: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        convolution, output, version = made.get(id(given[0]), (None, None, None))
        if convolution is not None and output is not None and output._version == version:  # nothing in place between
            found.append((convolution, module))

    hooks = [part.register_forward_hook(behind_convolution) for part in encoder.modules() if type(part) is nn.Conv2d]
    hooks += [
        part.register_forward_pre_hook(before_norm)
        for part in encoder.modules()
        if type(part) is nn.BatchNorm2d and part.affine and part.track_running_stats  # timm's own has an activation
    ]
    shapes(encoder, encoder.spec.size)
    for hook in hooks:
        hook.remove()
    return [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1]
