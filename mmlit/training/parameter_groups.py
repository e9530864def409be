"""Which parameters decay, and which learn how fast."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mmlit.training.depth import layers_of
from mmlit.training.parts import by_part, part_of

#: lists of vectors, not matrices, though their names end as those of matrices do
_POSITIONS = re.compile(r"position|relative")


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: what has two dimensions and more decays as the optimizer says, the rest not.

    The rest are biases, norms and `log_scale`. Tables of positions, and class tokens of the shape (1,1,D), decay:
    `ByPart` leaves them alone.

    Raises:
        ValueError: if nothing is trainable.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("nothing to train: all parameters are frozen")
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    rest = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class ByPart:
    """A learning rate for each part of the model, smaller ones for a tower's early layers; decay for matrices only.

    A tower of n layers (`mmlit.training.depth`) gives layer i = 1 … n the factor · decay^(n + 1 − i). Nothing decays
    but weight matrices: neither norms, biases and `log_scale` nor class tokens and embeddings of positions.

    Args:
        image_encoder: factor of `optimizer.lr`, > 0.
        text_encoder: likewise.
        heads: likewise, of what either side goes through alone in the alignment, temperatures included.
        fusion: likewise, of that in which both sides meet.
        auxiliaries: likewise, of extra loss terms.
        image_layer_decay: in (0, 1]; 1: all layers of the image encoder learn alike.
        text_layer_decay: likewise.

    Raises:
        ValueError: if a number is out of range.

    Source: a rate for each layer: Howard and Ruder 2018 (ULMFiT), Sec. 3.2, arXiv 1801.06146; its geometric decay as in
    the fine-tuning of Clark et al. 2020 (ELECTRA), arXiv 2003.10555, and Bao et al. 2021 (BEiT), arXiv 2106.08254.
    Differs: a norm behind a tower's last layer learns as that layer; BEiT's learns as the head.
    """

    def __init__(
        self,
        *,
        image_encoder: float,
        text_encoder: float,
        heads: float,
        fusion: float,
        auxiliaries: float,
        image_layer_decay: float,
        text_layer_decay: float,
    ) -> None:
        self.factors = {
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
            "heads": heads,
            "fusion": fusion,
            "auxiliaries": auxiliaries,
        }
        self.decays = {"image_encoder": image_layer_decay, "text_encoder": text_layer_decay}
        for part, factor in self.factors.items():
            if not factor > 0:
                raise ValueError(f"groups.{part} must be > 0, got {factor}; a tower stands still with freeze=true")
        for option, decay in zip(("image_layer_decay", "text_layer_decay"), self.decays.values(), strict=True):
            if not 0 < decay <= 1:
                raise ValueError(f"groups.{option} must lie in (0, 1], got {decay}")

    def told(self, module: nn.Module) -> str:
        """For the announcement: the factors of those parts that train."""
        trains = by_part(module.named_parameters()).keys()
        told = [f"{part.replace('_', ' ')} x {self.factors[part]:g}" for part in self.factors if part in trains]
        layers = [
            f"{part.replace('_', ' ')} {decay:g}" for part, decay in self.decays.items() if decay < 1 and part in trains
        ]
        return ", ".join(told) + ("; from layer to layer: " + ", ".join(layers) if layers else "")

    def idle(self, module: nn.Module) -> set[str]:
        """Names of the options that change nothing, for nothing of their part trains."""
        trains = by_part(module.named_parameters()).keys()
        layers = {f"{part.partition('_')[0]}_layer_decay" for part in self.decays if part not in trains}
        return layers | (self.factors.keys() - trains)

    def __call__(self, module: nn.Module) -> list[dict[str, Any]]:
        """Trainable parameters in groups that have a `name` and a `factor`.

        Raises:
            ValueError: if nothing is trainable.
        """
        places = {part: _places(module, part) for part, decay in self.decays.items() if decay < 1}
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            part, decays = part_of(name, parameter), _decays(name, parameter)
            label, factor = part, self.factors[part]
            if part in places:
                place, depth = places[part][name]
                label, factor = f"{part}.{place}", factor * self.decays[part] ** (depth + 1 - place)
            label += "" if decays else ".no_decay"
            group = groups.setdefault(label, {"params": [], "name": label, "factor": factor})
            group["params"].append(parameter)
            if not decays:
                group["weight_decay"] = 0.0
        if not groups:
            raise ValueError("nothing to train: all parameters are frozen")
        return list(groups.values())


def scale(optimizer: Optimizer) -> None:
    """Each group's learning rate by its `factor`, before a schedule takes it for the group's own."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("factor", 1.0)


def _places(module: nn.Module, part: str) -> Mapping[str, tuple[int, int]]:
    """For each parameter of a tower, by its name within the LightningModule: layer, from 1, and number of layers."""
    layers = layers_of(module.get_submodule(part))
    return {f"{part}.{name}": (place, len(layers)) for place, layer in enumerate(layers, start=1) for name in layer}


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and name.endswith("weight") and not _POSITIONS.search(name)
