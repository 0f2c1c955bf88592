"""The layers of a network in their order, and the features after each of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from escsr.model import ESC
from escsr.model.network import ESCBlock
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch

Kept = TypeVar("Kept")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A place in a network where features can be looked at."""

    label: str
    """Short, for the axis of a picture; no two of a network share one."""
    module: nn.Module
    is_input: bool = False
    """The features are what the module is given, not what it returns: after a residual has been
    added, no module returns the sum, but the next one is given it."""


def esc_within(network: nn.Module) -> ESC | None:
    """The ESC that a network is, or wraps; None where it is another."""
    return next((module for module in network.modules() if isinstance(module, ESC)), None)


def esc_layers(network: ESC) -> list[Layer]:
    """The features after the first convolution, every layer of every block, and the last."""
    layers = [Layer(label="first", module=network.shallow)]
    for number, block in enumerate(network.blocks, start=1):
        assert isinstance(block, ESCBlock)
        layers += _block_layers(block, number)
    return [*layers, Layer(label="last", module=network.deep)]


def _block_layers(block: ESCBlock, number: int) -> list[Layer]:
    """After the ConvFFN, the first mixer, every further layer, and the block as a whole."""
    follow = [*block.conv_layers, block.norm_out]
    after_mixers = [
        Layer(label=f"{number}.{name}", module=module, is_input=True)
        for name, module in zip(_mixer_names(block), follow, strict=True)
    ]
    return [
        Layer(label=f"{number}.ffn", module=block.norm_attention, is_input=True),
        *after_mixers,
        Layer(label=f"{number}.out", module=block),
    ]


def layer_label(network: nn.Module, name: str) -> str:
    """What a part of an ESC is called in pictures and reports, as ``esc_layers`` calls its places.

    Args:
        network: an ESC, or a module that holds one.
        name: of a module of ``network``, such as ``blocks.1.conv_layers.0.conv_attention``.
    Returns:
        ``2.conv1``: the block, and the kind and place of the mixer that the module is or belongs
        to; ``name`` itself where it is no part of a mixer.
    """
    for prefix, esc in network.named_modules():
        if isinstance(esc, ESC):
            inside = name.removeprefix(f"{prefix}." if prefix else "")
            return _mixer_labels(esc).get(_mixer_of(inside), name)
    return name


def _mixer_of(name: str) -> str:
    """``blocks.1.attention.softmax`` -> ``blocks.1.attention``."""
    parts = name.split(".")
    return ".".join(parts[: 5 if "conv_layers" in parts else 3])


def _mixer_labels(network: ESC) -> dict[str, str]:
    """Name of each mixer -> its label."""
    labels: dict[str, str] = {}
    for place, block in enumerate(network.blocks):
        assert isinstance(block, ESCBlock)
        names = ["attention"]
        names += [f"conv_layers.{layer}.conv_attention" for layer in range(len(block.conv_layers))]
        for name, label in zip(names, _mixer_names(block), strict=True):
            labels[f"blocks.{place}.{name}"] = f"{place + 1}.{label}"
    return labels


def _mixer_names(block: ESCBlock) -> list[str]:
    """``attn``, ``conv1``, ``conv2``, … of a block, by what its mixers are."""
    mixers = [block.attention, *(layer.conv_attention for layer in block.conv_layers)]
    names = [
        f"{'attn' if isinstance(mixer, WindowAttention) else 'conv'}{place}"
        for place, mixer in enumerate(mixers)
    ]
    return [names[0].removesuffix("0"), *names[1:]]


def look(
    network: nn.Module,
    layers: Sequence[Layer],
    image: ImageBatch,
    keep: Callable[[FeatureMap], Kept],
) -> list[Kept | None]:
    """Run a network on an image, and keep something of the features of each layer.

    Args:
        network: (1, 3, H, W) -> an image.
        layers: where to look.
        image: (1, 3, H, W).
        keep: is given (1, C, H', W') of a layer, H' x W' as after the first convolution.
    Returns:
        What ``keep`` returned, in the order of ``layers``; None for a layer whose features are of
        another size, or that was not reached.
    """
    kept: dict[str, Kept] = {}
    trunk: list[tuple[int, int]] = []

    def find_trunk(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not trunk:
            trunk.append((output.shape[-2], output.shape[-1]))

    def note(label: str, features: object) -> None:
        found = as_feature_map(features, trunk[0]) if trunk else None
        if found is not None:
            kept[label] = keep(found)

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(find_trunk) for module in convolutions]
    handles += [_register(layer, note) for layer in layers]
    with torch.inference_mode(), removed_afterwards(handles):
        network(image)
    return [kept.get(layer.label) for layer in layers]


@contextmanager
def removed_afterwards(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """Around a network's run: its hooks are removed, whatever happens."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _register(layer: Layer, note: Callable[[str, object], None]) -> Any:
    if layer.is_input:
        return layer.module.register_forward_pre_hook(
            lambda module, inputs: note(layer.label, inputs[0])
        )
    return layer.module.register_forward_hook(
        lambda module, inputs, output: note(layer.label, output)
    )


def as_feature_map(features: object, size: tuple[int, int]) -> FeatureMap | None:
    """Features of one image as (1, C, H, W), however a network lays them out.

    Args:
        features: (1, C, H, W), (1, H, W, C) or tokens (1, H*W, C); the first of a tuple counts.
        size: (H, W).
    Returns:
        A view; None where it is none of these.
    """
    if isinstance(features, tuple | list) and features:
        features = features[0]
    if not isinstance(features, Tensor) or features.ndim not in (3, 4) or len(features) != 1:
        return None
    if features.ndim == 4 and tuple(features.shape[2:]) == size:
        return features
    if features.ndim == 4 and tuple(features.shape[1:3]) == size:
        return features.permute(0, 3, 1, 2)
    if features.ndim == 3 and features.shape[1] == size[0] * size[1]:
        return features.transpose(1, 2).reshape(1, -1, *size)
    return None


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
