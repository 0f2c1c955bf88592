"""How alike a network's layers are: their features (linear CKA) and their attention maps."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from escsr.analysis.drawing import MAGNITUDES, new_figure, shortened
from escsr.analysis.layers import layer_label, look, main_layers, removed_afterwards
from escsr.analysis.records import Skipped, plain_number, plain_numbers
from escsr.model.position_bias import PositionFactors
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch

MOST_POSITIONS = 8192
"""Pixels, of all images together, at which features are compared."""
MOST_WINDOWS = 32
"""Windows, of all images together, whose attention maps are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """How alike the layers of one network are, each with each."""

    labels: list[str]
    """Of the layers, in their order."""
    matrix: Tensor
    """(L, L) in [0, 1], symmetric, 1 on the diagonal; NaN for a layer that is constant."""
    samples: int
    """Pixels (features), or pairs of a window and a head (attention), that it is taken over."""
    note: str = ""
    """What is to be known of it beside the numbers."""

    @property
    def mean_of_neighbours(self) -> float:
        """The mean over all pairs of one layer and the next."""
        return float(self.matrix.diagonal(1).nanmean())

    @property
    def mean_of_pairs(self) -> float:
        """The mean over all pairs of different layers."""
        count = len(self.labels)
        above = torch.ones(count, count).triu(1).bool()
        return float(self.matrix[above].nanmean())

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        return {
            "layers": self.labels,
            "matrix": plain_numbers(self.matrix, 4),
            "mean_of_neighbours": plain_number(self.mean_of_neighbours, 4),
            "mean_of_pairs": plain_number(self.mean_of_pairs, 4),
            "samples": self.samples,
            "note": self.note or None,
        }


def feature_similarity(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> Similarity | Skipped:
    """Compare the features after every layer with those after every other, by linear CKA.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        on_image: called after each.
    """
    layers = main_layers(network)
    per_image = max(1, MOST_POSITIONS // len(images))
    rows: list[list[Tensor | None]] = []
    for image in images:
        rows.append(look(network, layers, image, lambda found: pixels_of(found, per_image)))
        on_image()
    # A layer whose features are of another size, on whatever image, cannot be compared.
    columns = list(zip(*rows, strict=True))
    present = [place for place, column in enumerate(columns) if all(c is not None for c in column)]
    if len(present) < 2:
        return Skipped(
            "no sequence of blocks was found whose features can be compared: it needs a list of "
            "modules that return (B, C, H, W), (B, H, W, C) or (B, H*W, C)."
        )
    features = [torch.cat([c for c in columns[place] if c is not None]) for place in present]
    if len(features[0]) < 2:
        return Skipped("the images hold one pixel; give one of at least 2.")
    return Similarity(
        labels=[layers[place].label for place in present],
        matrix=cka_matrix(features),
        samples=len(features[0]),
    )


def pixels_of(features: FeatureMap, most: int) -> Tensor:
    """Some pixels, the same of every map of one size: (1, C, H, W) -> (n, C) on the CPU."""
    pixels = features[0].flatten(1).T
    if len(pixels) > most:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(pixels), generator=generator)[:most]
        pixels = pixels[chosen.to(pixels.device)]
    return pixels.float().cpu()


def cka_matrix(features: Sequence[Tensor]) -> Tensor:
    """Linear centred kernel alignment of the features of the same samples, each with each.

    Args:
        features: (n, C) of every layer.
    Returns:
        (L, L) in [0, 1]: 1 where one is a rotation and scaling of the other, whatever the channels
        are called; about 0 where they have nothing to do with one another and n is far above C.
        NaN where one of them is constant.
    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019.
    """
    centred = [one.double() - one.double().mean(0) for one in features]
    count = len(centred)
    products = torch.zeros(count, count, dtype=torch.float64)
    for row in range(count):
        for column in range(row, count):
            product = (centred[row].T @ centred[column]).square().sum()
            products[row, column] = products[column, row] = product
    size = products.diagonal().sqrt()
    return (products / (size[:, None] * size[None, :])).clamp(max=1.0)


def attention_similarity(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> Similarity | Skipped:
    """Compare the attention maps of every attention layer with those of every other.

    The cosine of the maps (probabilities of every query and key) of the same window and head,
    averaged over windows and heads. Only windows that lie inside an image as a whole count.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        on_image: called after each.
    """
    found: AttentionMaps | Skipped | None = None
    total: Tensor | None = None
    samples = 0
    for image in images:
        one = attention_maps_of(network, image, most_windows=max(1, MOST_WINDOWS // len(images)))
        on_image()
        if isinstance(one, Skipped):
            found = found or one
            continue
        summed, count = summed_cosines(one)
        total = summed if total is None else total + summed
        found, samples = one, samples + count
    if total is None or not isinstance(found, AttentionMaps):
        return found if isinstance(found, Skipped) else Skipped("there is no image.")
    return Similarity(labels=found.labels, matrix=total / samples, samples=samples, note=found.note)


def summed_cosines(maps: "AttentionMaps") -> tuple[Tensor, int]:
    """The cosines of every two layers, summed over windows and heads; and how many those are."""
    total = torch.zeros(len(maps.labels), len(maps.labels), dtype=torch.float64)
    for window in range(maps.num_windows):
        for head in range(maps.num_heads):
            flat = torch.stack([layer(window, head).flatten() for layer in maps.layers])
            flat = flat / flat.norm(dim=1, keepdim=True)
            total += (flat @ flat.T).cpu().double()
    return total, maps.num_windows * maps.num_heads


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
    with removed_afterwards(handles):
        network(image)
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
    with removed_afterwards(handles):
        network(image)
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


_MOST_NUMBERED = 8
"""Layers up to which every field of a matrix shows its number."""
_MOST_TICKS = 26
_PANEL_INCHES = 4.2
_SMALL_PANEL_INCHES = 2.9


def draw_feature_similarity(found: Sequence[tuple[str, Similarity]]) -> Any | None:
    """One matrix of linear CKA per network; None where there is none."""
    return _draw(found, "linear CKA of the features after two layers")


def draw_attention_similarity(found: Sequence[tuple[str, Similarity]]) -> Any | None:
    """One matrix of cosines of attention maps per network; None where there is none."""
    return _draw(found, "cosine of two attention maps")


def _draw(found: Sequence[tuple[str, Similarity]], meaning: str) -> Any | None:
    if not found:
        return None
    is_small = max(len(similarity.labels) for _, similarity in found) <= _MOST_NUMBERED
    side = _SMALL_PANEL_INCHES if is_small else _PANEL_INCHES
    figure = new_figure(side * len(found) + 0.9, side + 0.35)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    lowest = min(float(np.nanmin(similarity.matrix.numpy())) for _, similarity in found)
    image = None
    for panel, (label, similarity) in zip(panels, found, strict=True):
        image = panel.imshow(similarity.matrix.numpy(), cmap=MAGNITUDES, vmin=lowest, vmax=1.0)
        panel.set_title(
            f"{shortened(label)}\nneighbours {similarity.mean_of_neighbours:.2f}, "
            f"all pairs {similarity.mean_of_pairs:.2f}"
        )
        _label_axes(panel, similarity.labels)
        if len(similarity.labels) <= _MOST_NUMBERED:
            _write_numbers(panel, similarity.matrix.numpy(), lowest)
    figure.colorbar(image, ax=list(panels), label=meaning, shrink=0.85)
    return figure


def _label_axes(panel: Any, labels: list[str]) -> None:
    """The name of every layer, or of every so many."""
    step = -(-len(labels) // _MOST_TICKS)
    places = range(0, len(labels), step)
    names = [labels[place] for place in places]
    size = 8 if len(names) <= 18 else 6.5
    panel.set_xticks(list(places), names, rotation=90, fontsize=size)
    panel.set_yticks(list(places), names, fontsize=size)


def _write_numbers(panel: Any, matrix: Any, lowest: float) -> None:
    middle = (lowest + 1) / 2
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        colour = "white" if value < middle else "black"
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
