"""Low-rank adapters in a tower: few weights that train, in front of many that stand still."""

from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from mmlit.contracts import Encoder, ImageEncoder, TextEncoder
from mmlit.layers.split_attention import split_attentions
from mmlit.layers.weights import spell

#: of every adapter's parameters, by any part of the key; the peft library's own
_PREFIX = "lora_"


class Lora:
    """Adds B A x · alpha / rank to what a tower's linear layers say of x; A (rank, in) and B (out, rank) train alone.

    B begins with zeros, so that training begins with the tower as it was. Attentions of torch's own, which keep three
    layers in one matrix, are taken apart first: their layers are `q_proj`, `k_proj`, `v_proj` and `out_proj`.

    Args:
        tower: which.
        rank: of the product B A, ≥ 1.
        alpha: divided by `rank`, the scale of what is added, > 0.
        dropout: of x on its way into A, in [0, 1).
        layers: `all-linear`, or patterns, as of file names, of linear layers' names or their ends: `[q_proj, v_proj]`.

    Raises:
        ValueError: if a number is out of range, no pattern is given, or the peft library is not installed.

    Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models", Sec. 4.1, arXiv 2106.09685.
    """

    def __init__(
        self,
        *,
        tower: Literal["image_encoder", "text_encoder"],
        rank: int,
        alpha: float,
        dropout: float,
        layers: Literal["all-linear"] | list[str],
    ) -> None:
        self.tower, self.option = tower, f"towers.{tower.removesuffix('_encoder')}_lora"
        if rank < 1:
            raise ValueError(f"{self.option}.rank must be >= 1, got {rank}")
        if not alpha > 0:
            raise ValueError(f"{self.option}.alpha must be > 0, got {alpha}")
        if not 0 <= dropout < 1:
            raise ValueError(f"{self.option}.dropout must lie in [0, 1), got {dropout}")
        if not layers:
            raise ValueError(f"{self.option}.layers must be all-linear or patterns of names, got {layers}")
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ValueError(f"{self.option} needs the peft library: pip install -e '.[lora]'") from error
        self.patterns = ["*"] if layers == "all-linear" else layers
        self._config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none")

    def apply(self, image_encoder: ImageEncoder, text_encoder: TextEncoder) -> None:
        """Puts adapters into the tower, and freezes all else of it.

        Raises:
            ValueError: if the tower is frozen, a pattern matches none of its linear layers, or it does not call one.
        """
        from peft import inject_adapter_in_model

        encoder: Encoder = image_encoder if self.tower == "image_encoder" else text_encoder
        if encoder.frozen:
            raise ValueError(
                f"{self.option} trains adapters in {self.tower}, but {self.tower}.freeze=true means that nothing of it "
                f"moves: take {self.tower}.freeze=false, which leaves only the adapters to train"
            )
        split_attentions(encoder)
        self._config.target_modules = self._named(encoder)
        inject_adapter_in_model(self._config, encoder)
        encoder.adapted = True
        dropouts = (part for name, part in encoder.named_modules() if name.endswith(".lora_dropout"))
        encoder.additions += tuple(dropouts)
        encoder.train()
        if idle := _idle(encoder):
            raise ValueError(
                f"{self.option}.layers: {self.tower} reads the weights of some layers without calling them, so that "
                f"adapters there do nothing: {spell(idle)}; name others"
            )

    def _named(self, encoder: nn.Module) -> set[str]:
        """Names of the linear layers that are to have an adapter, of those that would train without any."""
        linear = [
            name for name, part in encoder.named_modules() if isinstance(part, nn.Linear) and part.weight.requires_grad
        ]
        if not linear:
            raise ValueError(f"{self.option}: {self.tower} has no linear layer, and adapters go into nothing else")
        found: set[str] = set()
        for pattern in self.patterns:
            matched = {name for name in linear if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")}
            if not matched:
                there = ", ".join(sorted({".".join(name.split(".")[-2:]) for name in linear}))
                raise ValueError(
                    f"{self.option}.layers: no linear layer of {self.tower} is called {pattern}; there are {there}"
                )
            found |= matched
        return found


def _idle(encoder: Encoder) -> list[str]:
    """Layers whose adapters `pooled` of one black picture, or of one text, does not depend on."""
    if isinstance(encoder, ImageEncoder):
        inputs: tuple[torch.Tensor, ...] = (torch.zeros(1, 3, encoder.spec.size, encoder.spec.size),)
    else:
        inputs = encoder.tokenize(["a"])  # type: ignore[operator]
    adapters = {name: part for name, part in encoder.named_parameters() if part.requires_grad}
    modes = {part: part.training for part in encoder.modules()}
    with torch.enable_grad():
        pooled = encoder.eval()(*inputs).pooled
        found = torch.autograd.grad(pooled.sum(), list(adapters.values()), allow_unused=True)
    for part, mode in modes.items():
        part.training = mode
    without = (name for name, gradient in zip(adapters, found, strict=True) if gradient is None)
    return sorted({name.partition(f".{_PREFIX}")[0] for name in without})
