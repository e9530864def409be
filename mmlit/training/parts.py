"""The parts of a model that learning rates and logs tell apart."""

from collections.abc import Iterable, Mapping

from torch import nn

#: in the order of the model; those that a model has none of do not occur
PARTS = ("image_encoder", "text_encoder", "heads", "fusion", "auxiliaries")


def part_of(name: str, parameter: nn.Parameter) -> str:
    """The part that a parameter of the LightningModule belongs to.

    Of an alignment, `heads` is what either side goes through alone, which is what lies in a module of a name like
    `image`, `text` or `text_tokens`, and scalars such as a temperature; all else, in which both sides meet, is
    `fusion`.

    Args:
        name: within the LightningModule.
        parameter: of that name.

    Raises:
        ValueError: if it is in none.
    """
    first, _, rest = name.partition(".")
    if first == "alignment":
        sides = [part for part in rest.split(".") if part.partition("_")[0] in ("image", "text")]
        return "heads" if sides or parameter.ndim == 0 else "fusion"
    if first not in PARTS:
        raise ValueError(f"{name} is in none of {', '.join(PARTS)}")
    return first


def by_part(parameters: Iterable[tuple[str, nn.Parameter]]) -> Mapping[str, list[nn.Parameter]]:
    """Named parameters of the LightningModule, those that train now, in the order of `PARTS`."""
    found: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in parameters:
        if parameter.requires_grad:
            found[part_of(name, parameter)].append(parameter)
    return {part: members for part, members in found.items() if members}
