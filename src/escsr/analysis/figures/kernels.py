"""Pictures of the large kernel, and of the kernels that images make."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.analysis.figures.style import (
    LINE_COLOURS,
    MAGNITUDES,
    SIGNED,
    new_figure,
    shortened,
    show_map,
)
from escsr.analysis.kernels import DynamicKernels, LargeKernels, asymmetry
from escsr.analysis.run import Analysis

_EXAMPLES = 4
"""Single kernels shown beside the mean."""
_MOST_LAYERS = 4
_MOST_IMAGES = 4
_CHANNELS = 4
"""Channels of a dynamic kernel that are shown, side by side."""


def draw_large_kernels(analysis: Analysis) -> Any | None:
    """Per network two rows, stored and in use: the mean magnitude, and the strongest kernels."""
    found = analysis.found(lambda findings: findings.large_kernel, LargeKernels)
    if not found:
        return None
    rows = sum(2 if kernels.is_averaged else 1 for _, kernels in found)
    figure = new_figure(1.75 * (_EXAMPLES + 1) + 1.2, 1.85 * rows + 0.25)
    panels = iter(figure.subplots(rows, _EXAMPLES + 1, squeeze=False))
    for label, kernels in found:
        shown = [("stored", kernels.stored), ("averaged, as used", kernels.used)]
        if not kernels.is_averaged:
            shown = [("stored and used", kernels.stored)]
        strongest = _strongest(kernels.used)
        largest = max(float(kernel[i].abs().max()) for _, kernel in shown for i in strongest)
        rows_of_it = [next(panels) for _ in shown]
        for row, (state, kernel) in zip(rows_of_it, shown, strict=True):
            _draw_row(row, kernel, strongest, largest)
            row[0].set_ylabel(f"{shortened(label, 20)}\n{state}\nasymmetry {asymmetry(kernel):.2f}")
        signed = [panel for row in rows_of_it for panel in row[1:]]
        figure.colorbar(signed[0].images[0], ax=signed, label="weight", shrink=0.8, aspect=30)
    return figure


def _draw_row(row: Any, kernel: Tensor, strongest: list[tuple[int, int]], largest: float) -> None:
    show_map(row[0], kernel.abs().mean((0, 1)).numpy(), cmap=MAGNITUDES, vmin=0)
    row[0].set_title("mean magnitude")
    is_depthwise = kernel.shape[1] == 1
    for panel, (out, into) in zip(row[1:], strongest, strict=False):
        show_map(panel, kernel[out, into].numpy(), cmap=SIGNED, vmin=-largest, vmax=largest)
        panel.set_title(f"channel {out + 1}" if is_depthwise else f"from {into + 1} to {out + 1}")
    for panel in row[1 + len(strongest) :]:
        panel.set_axis_off()


def _strongest(kernel: Tensor) -> list[tuple[int, int]]:
    """The pairs (out, in) of the largest kernels: (P, Q, K, K)."""
    size = kernel.square().sum((-2, -1))
    order = size.flatten().argsort(descending=True)[:_EXAMPLES].tolist()
    return [(place // size.shape[1], place % size.shape[1]) for place in order]


def draw_dynamic_kernels(analysis: Analysis) -> Any | None:
    """Per network the kernels of some layers, what images change in them, and the spread."""
    found = analysis.found(lambda findings: findings.dynamic_kernel, DynamicKernels)
    if not found:
        return None
    columns = max(len(_columns(kernels)) for _, kernels in found)
    rows = min(_MOST_LAYERS, max(len(kernels.layers) for _, kernels in found))
    height = max(0.8 * rows + 0.85, 2.6) * len(found)
    figure = new_figure(2.1 * columns + 3.4, height)
    strips = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for strip, (label, kernels) in zip(strips, found, strict=True):
        left, right = strip.subfigures(1, 2, width_ratios=(2.1 * columns, 3.2))
        _draw_examples(left, label, kernels)
        _draw_spread(right.subplots(), kernels)
    return figure


def _columns(kernels: DynamicKernels) -> list[str]:
    """The kernels themselves, and what some images change in them."""
    if len(kernels.images) == 1:
        return [kernels.images[0]]
    images = [f"{shortened(name, 16)} - mean" for name in kernels.images[:_MOST_IMAGES]]
    return [f"mean of {len(kernels.images)} images", *images]


def _draw_examples(figure: Any, label: str, kernels: DynamicKernels) -> None:
    layers = _spread_places(len(kernels.layers), _MOST_LAYERS)
    titles = _columns(kernels)
    panels = figure.subplots(len(layers), len(titles), squeeze=False)
    figure.suptitle(f"{shortened(label)}: the {_CHANNELS} channels of a layer that vary most")
    for row, layer in zip(panels, layers, strict=True):
        made = kernels.kernels[layer]
        chosen = made[:, _varied_channels(made)]
        mean = chosen.mean(0)
        changes = chosen - mean
        ranges = [_show_kernels(row[0], mean, largest=float(mean.abs().max()))]
        for panel, change in zip(row[1:], changes, strict=False):
            ranges.append(_show_kernels(panel, change, largest=float(changes.abs().max())))
        told = ", ".join(f"±{largest:.2g}" for largest in dict.fromkeys(ranges))
        row[0].set_ylabel(f"{kernels.layers[layer]}\n{told}", fontsize=8)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)


def _show_kernels(panel: Any, kernels: Tensor, *, largest: float) -> float:
    """(P, 3, 3) side by side, in a frame; the largest weight that a colour stands for."""
    reach = largest or 1.0
    show_map(panel, _side_by_side(kernels), cmap=SIGNED, vmin=-reach, vmax=reach)
    for side in panel.spines.values():
        side.set_color("0.6")
    return largest


def _draw_spread(panel: Any, kernels: DynamicKernels) -> None:
    spread = kernels.spread
    if spread is None:
        size = kernels.kernels.square().mean((1, 2, 3, 4)).sqrt().tolist()
        panel.set_title("size (one image: no spread)")
        panel.set_xlabel("root mean square of the weights")
    else:
        size = spread
        panel.set_title(f"spread over {len(kernels.images)} images")
        panel.set_xlabel("distance from the mean / size")
    places = np.arange(len(size))
    panel.barh(places, size, color=LINE_COLOURS[0])
    panel.set_xlim(0, 1.05 * max(size) or 1.0)
    step = -(-len(places) // 26)
    font = 8 if len(places) <= 12 else 6
    panel.set_yticks(places[::step], kernels.layers[::step], fontsize=font)
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)


def _varied_channels(kernels: Tensor) -> list[int]:
    """The channels whose kernels differ most between images: (images, P, 3, 3)."""
    measure = kernels.var(0, unbiased=False) if len(kernels) > 1 else kernels[0].square()
    order = measure.sum((-2, -1)).argsort(descending=True)
    return sorted(order[:_CHANNELS].tolist())


def _side_by_side(kernels: Tensor) -> npt.NDArray[Any]:
    """(P, 3, 3) -> (5, 4P + 1), a gap around each kernel."""
    framed = torch.nn.functional.pad(kernels, (1, 0, 1, 1), value=float("nan"))
    row = framed.permute(1, 0, 2).reshape(5, -1)
    return torch.nn.functional.pad(row, (0, 1), value=float("nan")).numpy()


def _spread_places(count: int, most: int) -> list[int]:
    kept = min(count, most)
    return [round(place * (count - 1) / max(1, kept - 1)) for place in range(kept)]
