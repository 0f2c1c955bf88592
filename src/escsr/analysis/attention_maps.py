"""Attention maps of a network, computed again from what its attention layers were given.

The network is run as it is: fused attention never holds these maps, so hooks catch the features
that enter an attention layer, and its own projections and bias make the map of one window and head.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escsr.analysis.layers import layer_label
from escsr.analysis.records import Skipped
from escsr.model.position_bias import PositionFactors
from escsr.model.window_attention import WindowAttention
from escsr.shapes import ImageBatch

LayerMaps = Callable[[int, int], Tensor]
"""(window, head) -> (T, T), the probabilities of every query (row) over the keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMaps:
    """The attention maps of all layers on one image."""

    labels: list[str]
    """Of the layers, in their order."""
    layers: list[LayerMaps]
    num_windows: int
    num_heads: int
    note: str = ""


def attention_maps_of(
    network: nn.Module, image: ImageBatch, *, most_windows: int
) -> AttentionMaps | Skipped:
    """The maps of whatever attention a network has.

    Args:
        network: any; our window attention is known, and of others the results of ``nn.Softmax``.
        image: (1, 3, H, W).
        most_windows: windows beyond these are left out, evenly.
    """
    named = [(n, m) for n, m in network.named_modules() if isinstance(m, WindowAttention)]
    if len(named) == 1:
        return Skipped("it has one attention layer, and there is none to compare it with.")
    if named:
        return _of_window_attention(network, named, image, most_windows)
    return _of_softmax(network, image, most_windows)


@torch.inference_mode()
def _of_window_attention(
    network: nn.Module,
    named: Sequence[tuple[str, WindowAttention]],
    image: ImageBatch,
    most_windows: int,
) -> AttentionMaps | Skipped:
    entered = _inputs_of([module for _, module in named], network, image)
    w, num_heads = named[0][1].window_size, named[0][1].num_heads
    height, width = entered[0].shape[-2:]
    rows, columns = height // w, width // w
    if rows < 1 or columns < 1:
        return Skipped(
            f"no whole window lies inside: attention sees {width}x{height} pixels, a window is "
            f"{w}x{w}. Give a larger image, or raise --crop."
        )
    per_row = -(-width // w)
    inside = [row * per_row + column for row in range(rows) for column in range(columns)]
    windows = torch.tensor(evenly(inside, most_windows), device=image.device)
    layers = [
        _maps_of(module, features, windows)
        for (_, module), features in zip(named, entered, strict=True)
    ]
    return AttentionMaps(
        labels=[layer_label(network, name) for name, _ in named],
        layers=layers,
        num_windows=len(windows),
        num_heads=num_heads,
    )


def _maps_of(attention: WindowAttention, features: Tensor, windows: Tensor) -> LayerMaps:
    """Probabilities of some windows, one head at a time: all of a layer may not fit into memory."""
    all_q, all_k, _ = attention.queries_keys_values(features)
    q_BNTD, k_BNTD = all_q[windows], all_k[windows]
    bias, scale = attention.position_bias(), q_BNTD.shape[-1] ** -0.5
    if isinstance(bias, PositionFactors):
        q_BNTD, k_BNTD = bias.appended_to(q_BNTD, k_BNTD)
        bias, scale = None, 1.0

    @torch.inference_mode()
    def probabilities(window: int, head: int) -> Tensor:
        scores = (q_BNTD[window, head] * scale) @ k_BNTD[window, head].T
        return (scores if bias is None else scores + bias[head]).softmax(dim=-1)

    return probabilities


def _inputs_of(modules: Sequence[nn.Module], network: nn.Module, image: ImageBatch) -> list[Tensor]:
    """What each of some modules was given while a network ran on an image."""
    entered: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered[module] = inputs[0]

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    return [entered[module] for module in modules]


@torch.inference_mode()
def _of_softmax(
    network: nn.Module, image: ImageBatch, most_windows: int
) -> AttentionMaps | Skipped:
    """The results of the ``nn.Softmax`` modules that are square, (windows, N, T, T)."""
    named = [(name, module) for name, module in network.named_modules() if _is_softmax(module)]
    kept: dict[nn.Module, tuple[torch.Size, Tensor]] = {}

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.ndim == 4 and output.shape[-1] == output.shape[-2] > 1:
            chosen = evenly(range(len(output)), most_windows)
            kept[module] = (output.shape, output[chosen].clone())

    handles = [module.register_forward_hook(keep) for _, module in named]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    shapes = Counter(shape for shape, _ in kept.values())
    if not shapes or shapes.most_common(1)[0][1] < 2:
        return Skipped(
            "it has no two attention layers whose maps can be had: ours are known, and of other "
            "networks the results of torch.nn.Softmax modules, (windows, heads, T, T)."
        )
    usual = shapes.most_common(1)[0][0]
    alike = [
        (name, kept[module][1])
        for name, module in named
        if module in kept and kept[module][0] == usual
    ]
    return AttentionMaps(
        labels=[str(place) for place in range(1, len(alike) + 1)],
        layers=[_lookup(maps) for _, maps in alike],
        num_windows=len(alike[0][1]),
        num_heads=usual[1],
        note="shifted windows, where it has any, are compared with unshifted ones of the same "
        "number",
    )


def _lookup(maps: Tensor) -> LayerMaps:
    return lambda window, head: maps[window, head]


def _is_softmax(module: nn.Module) -> bool:
    return isinstance(module, nn.Softmax)


def evenly(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of some numbers, spread over all of them."""
    count = min(len(numbers), most)
    return [numbers[(2 * place + 1) * len(numbers) // (2 * count)] for place in range(count)]
