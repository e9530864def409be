"""A tower's layers in their order, found in its modules."""

from torch import nn

#: modules that hold a sequence of others
_STACKS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layers_of(tower: nn.Module) -> list[list[str]]:
    """Names of all parameters, layer by layer from the input on.

    Layers are the members of the tower's outermost stacks (`Sequential`, `ModuleList`, `ModuleDict`), stacks within
    them opened: a transformer's layers, a ResNet's residual blocks; of Hugging Face's Swin, ResNet and ConvNeXt the
    stages, since their blocks lie deeper. What comes before the first one (embeddings, positions, a stem) is a layer of
    its own; a norm, and what comes behind the last one, belongs to the layer before it. Parts are taken to run in the
    order in which they were made.
    """
    blocks = _blocks(tower)
    layers: list[list[str]] = [[]]
    last = None
    for name, _ in tower.named_parameters():
        own = next((block for block in blocks if name.startswith(block)), None)
        if own is not None and own != last:
            layers.append([])
            last = own
        layers[-1].append(name)
    return [layer for layer in layers if layer]


def _blocks(tower: nn.Module) -> list[str]:
    """Prefixes of the members of the outermost stacks; of several parts that have such stacks, the longest's."""
    level = {"": tower}
    while level:
        found = max((_stacked(prefix, module) for prefix, module in level.items()), key=len)
        if found:
            return found
        level = {
            f"{prefix}{name}.": child for prefix, module in level.items() for name, child in module.named_children()
        }
    return []


def _stacked(prefix: str, module: nn.Module) -> list[str]:
    """Prefixes of the members, with a matrix, of the stacks that a module is or has as children."""
    found: list[str] = []
    for name, child in module.named_children():
        if isinstance(child, _STACKS):
            found += _stacked(f"{prefix}{name}.", child)
        elif isinstance(module, _STACKS) and any(parameter.ndim >= 2 for parameter in child.parameters()):
            found.append(f"{prefix}{name}.")
    return found
