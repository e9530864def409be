"""Patches that an image tower does not see while it trains."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmlit.contracts import ImageEncoder, TextEncoder
from mmlit.image_encoders.dry_run import shapes
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.image_encoders.timm import TimmEncoder
from mmlit.image_encoders.torchvision import TorchvisionEncoder

#: Hugging Face's types whose layers take any number of tokens, embedded with their positions
_TYPES = frozenset(
    {"vit", "vit_msn", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model"}
)


class PatchDropout:
    """In training each picture of a transformer over patches loses a random share of them, behind the embedding.

    Class, distillation and register tokens stay; in evaluation, and for a momentum teacher, everything does. What an
    alignment reads as tokens are the patches that are kept, in their order. It draws from torch's own generator of the
    device, as any dropout: resume points keep its state, and the gradient cache goes back to it for its second pass.

    Args:
        share: of the patches, left out, in (0, 1); one is always kept.

    Raises:
        ValueError: if `share` is out of range.

    Source: Li et al. 2022, "Scaling language-image pre-training via masking" (FLIP), Sec. 3, arXiv 2212.00794.
    Differs: nothing tunes the tower on whole pictures afterwards; a further run with `checkpoint=`, without this, does.
    """

    def __init__(self, *, share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"towers.patch_dropout.share must lie strictly between 0 and 1, got {share}")
        self.share = share

    def apply(self, image_encoder: ImageEncoder, text_encoder: TextEncoder) -> None:
        """From now on the image tower loses patches while it trains.

        Raises:
            ValueError: if it is frozen, or none whose patches can be left out.
        """
        if image_encoder.frozen:
            raise ValueError(
                "towers.patch_dropout changes what the image encoder learns from, but image_encoder.freeze=true: take "
                "image_encoder.freeze=false, or leave it out"
            )
        place = _embedding(image_encoder)
        num_patches = shapes(image_encoder, image_encoder.spec.size).tokens[1]
        drop = KeptPatches(num_patches=num_patches, num_kept=max(1, round(num_patches * (1 - self.share))))
        image_encoder.add_module("patch_dropout", drop)
        image_encoder.additions += (drop,)
        image_encoder.train()
        place.register_forward_hook(drop.behind)


class KeptPatches(nn.Module):
    """Keeps some of the patches in training mode, other ones of each picture.

    Args:
        num_patches: P; tokens that stand before the last P are always kept.
        num_kept: of them.
    """

    def __init__(self, *, num_patches: int, num_kept: int) -> None:
        super().__init__()
        self.num_patches, self.num_kept = num_patches, num_kept

    def forward(self, states: Tensor) -> Tensor:
        """(N,T,D), the last P tokens being patches → as many less as are left out."""
        if not self.training:
            return states
        num_before = states.shape[1] - self.num_patches
        draws = torch.rand(len(states), self.num_patches, device=states.device)
        kept = draws.topk(self.num_kept).indices.sort().values + num_before
        places = torch.cat([torch.arange(num_before, device=states.device).expand(len(states), -1), kept], 1)
        return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))

    def behind(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """A forward hook."""
        return self(output)


def _embedding(encoder: ImageEncoder) -> nn.Module:
    """The module that gives all tokens with their positions, for what comes behind to take any number of them."""
    for kind, find in _PLACES.items():
        if isinstance(encoder, kind) and (place := find(encoder)) is not None:
            return place
    grid = getattr(encoder, "grid", None)
    told = f"is none: {_name(encoder)}" if grid is None else f"averages a whole grid: grid={grid}"
    raise ValueError(f"towers.patch_dropout goes with a transformer over patches (ViT), and image_encoder {told}")


def _of_huggingface(encoder: Any) -> nn.Module | None:
    return encoder.tower.embeddings if encoder.tower.config.model_type in _TYPES else None


def _of_timm(encoder: Any) -> nn.Module | None:
    from timm.models import VisionTransformer

    return encoder.backbone.patch_drop if isinstance(encoder.backbone, VisionTransformer) else None


def _of_torchvision(encoder: Any) -> nn.Module | None:
    from torchvision.models import VisionTransformer

    is_whole = isinstance(encoder.backbone, VisionTransformer) and encoder.grid is None
    return encoder.backbone.encoder.dropout if is_whole else None


_PLACES: dict[type[ImageEncoder], Callable[[Any], nn.Module | None]] = {
    HuggingFaceImageEncoder: _of_huggingface,
    TimmEncoder: _of_timm,
    TorchvisionEncoder: _of_torchvision,
}


def _name(encoder: ImageEncoder) -> str:
    """Of the model, or of its class where it has no name."""
    return str(getattr(encoder, "name", type(getattr(encoder, "tower", encoder)).__name__))
