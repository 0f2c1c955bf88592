"""The main sequence of blocks of a network that we did not write.

Networks for super-resolution keep their blocks in one container; the one with the most parameters
is taken, and where its blocks are groups that keep blocks themselves, those are looked at as well.
"""

from collections.abc import Iterator

from torch import nn

from escsr.analysis.layers import Layer, esc_layers, esc_within

MOST_LAYERS = 64
"""More are thinned out evenly."""
_DEEPEST_GROUP = 2
"""Groups within groups that are opened."""


def main_layers(network: nn.Module) -> list[Layer]:
    """Where to look at the features of a network, from its image to its end.

    Returns:
        Of an ESC every layer; of another network the blocks of its main sequence; none where no
        such sequence is found.
    """
    esc = esc_within(network)
    if esc is not None:
        return esc_layers(esc)
    container = main_container(network)
    layers = [] if container is None else list(_blocks(container, "", 0))
    if len(layers) <= MOST_LAYERS:
        return layers
    last = len(layers) - 1
    return [layers[round(place * last / (MOST_LAYERS - 1))] for place in range(MOST_LAYERS)]


def main_container(module: nn.Module) -> nn.Module | None:
    """The list of modules that holds most parameters; the outermost of equals."""
    containers = [
        found
        for found in module.modules()
        if isinstance(found, nn.ModuleList | nn.Sequential) and len(found) >= 2
    ]
    return max(containers, key=_count, default=None)


def _blocks(container: nn.Module, prefix: str, depth: int) -> Iterator[Layer]:
    children = list(container.children())
    for place, child in enumerate(children):
        following = children[place + 1] if place + 1 < len(children) else None
        if _is_leaf(child) and _is_activation(following):
            continue  # looked at after its activation
        label = f"{prefix}{place + 1}"
        inner = _group_within(child) if depth < _DEEPEST_GROUP else None
        if inner is not None:
            yield from _blocks(inner, f"{label}.", depth + 1)
        yield Layer(label=label, module=child)


def _group_within(block: nn.Module) -> nn.Module | None:
    """The list of blocks that a group mostly consists of; None where it is a block itself."""
    inner = main_container(block)
    if inner is None or 2 * _count(inner) < _count(block):
        return None
    blocks = [child for child in inner.children() if not _is_leaf(child)]
    return inner if len(blocks) >= 2 else None


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _is_activation(module: nn.Module | None) -> bool:
    return module is not None and type(module).__module__ == "torch.nn.modules.activation"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
