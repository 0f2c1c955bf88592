"""The kernels of ConvAttention: the large one of all layers, and the dynamic ones per image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from escsr.analysis.drawing import (
    LINE_COLOURS,
    MAGNITUDES,
    SIGNED,
    new_figure,
    shortened,
    show_map,
)
from escsr.analysis.layers import esc_within, layer_label, removed_afterwards
from escsr.analysis.records import Skipped, plain_number, plain_numbers
from escsr.model.convolutional_attention import DynamicKernel, SharedLargeKernel
from escsr.shapes import ImageBatch

NO_ESC = "it is no ESC, and has neither a shared large kernel nor dynamic ones."


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeKernels:
    """A large kernel as it is stored and as convolutions use it."""

    stored: Tensor
    """(P, P, K, K), or (P, 1, K, K) of a decomposed one."""
    used: Tensor
    """The same shape, averaged over the 8 flips and rotations where the network does so."""
    is_averaged: bool
    count: int
    """How many the network has; 1 where all layers share it. The first is shown."""

    @property
    def centre_share(self) -> float:
        """Share of the energy that the middle 3x3 of the kernel in use has."""
        middle = self.used.shape[-1] // 2
        inner = self.used[..., middle - 1 : middle + 2, middle - 1 : middle + 2]
        return float(inner.square().sum() / self.used.square().sum())

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        return {
            "shape": list(self.used.shape),
            "count": self.count,
            "is_averaged": self.is_averaged,
            "asymmetry_stored": plain_number(asymmetry(self.stored), 6),
            "asymmetry_used": plain_number(asymmetry(self.used), 6),
            "energy_share_of_middle_3x3": plain_number(self.centre_share, 5),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicKernels:
    """The 3x3 kernels that each layer made of each image."""

    layers: list[str]
    """In their order."""
    images: list[str]
    kernels: Tensor
    """(layers, images, P, 3, 3)."""

    @property
    def spread(self) -> list[float] | None:
        """Of each layer: how far kernels of one image are from their mean over the images.

        The root mean square of that distance, over that of the kernels: 0 means that every image
        gets the same kernels. None with a single image.
        """
        if len(self.images) < 2:
            return None
        distance = (self.kernels - self.kernels.mean(1, keepdim=True)).square().mean((1, 2, 3, 4))
        size = self.kernels.square().mean((1, 2, 3, 4))
        return (distance / size.clamp(min=1e-30)).sqrt().tolist()

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        spread = self.spread
        return {
            "layers": self.layers,
            "images": self.images,
            "spread": None if spread is None else [plain_number(value, 5) for value in spread],
            "kernels": plain_numbers(self.kernels.flatten(-2), 5),
        }


def asymmetry(kernel: Tensor) -> float:
    """How far a kernel is from its average over the square's symmetries, as a share of its size.

    Args:
        kernel: (…, K, K).
    Returns:
        0 for a symmetric kernel; below 1 in any case.
    """
    turned = [kernel.rot90(turns, (-2, -1)) for turns in range(4)]
    average = torch.stack([*turned, *(one.flip(-1) for one in turned)]).mean(0)
    return float((kernel - average).norm() / kernel.norm().clamp(min=1e-30))


def large_kernels(network: nn.Module) -> LargeKernels | Skipped:
    """The large kernel of an ESC; the first of them in the ablation that shares none."""
    if esc_within(network) is None:
        return Skipped(NO_ESC)
    found = [module for module in network.modules() if isinstance(module, SharedLargeKernel)]
    if not found:
        return Skipped("none of its layers is a ConvAttention.")
    with torch.no_grad():
        return LargeKernels(
            stored=found[0].weights[-1].detach().float().cpu(),
            used=found[0]()[-1].detach().float().cpu(),
            is_averaged=found[0].is_averaged,
            count=len(found),
        )


def dynamic_kernels(
    network: nn.Module,
    images: Sequence[ImageBatch],
    names: Sequence[str],
    on_image: Callable[[], None],
) -> DynamicKernels | Skipped:
    """The dynamic kernels of every layer, made of each of some images.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        names: of the images.
        on_image: called after each.
    """
    found = [(n, m) for n, m in network.named_modules() if isinstance(m, DynamicKernel)]
    if not found:
        return Skipped(NO_ESC if esc_within(network) is None else "it makes no dynamic kernels.")
    made: dict[nn.Module, list[Tensor]] = {module: [] for _, module in found}

    def keep(module: nn.Module, inputs: object, kernel: Tensor) -> None:
        made[module].append(kernel[0].float().cpu())

    handles = [module.register_forward_hook(keep) for _, module in found]
    with torch.inference_mode(), removed_afterwards(handles):
        for image in images:
            network(image)
            on_image()
    return DynamicKernels(
        layers=[layer_label(network, name) for name, _ in found],
        images=list(names),
        kernels=torch.stack([torch.stack(made[module]) for _, module in found]),
    )


_EXAMPLES = 4
"""Single kernels shown beside the mean."""
_MOST_LAYERS = 4
_MOST_IMAGES = 4
_CHANNELS = 4
"""Channels of a dynamic kernel that are shown, side by side."""


def draw_large_kernels(found: Sequence[tuple[str, LargeKernels]]) -> Any | None:
    """Per network two rows, stored and in use: the mean magnitude, and the strongest kernels."""
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


def draw_dynamic_kernels(found: Sequence[tuple[str, DynamicKernels]]) -> Any | None:
    """Per network the kernels of some layers, what images change in them, and the spread."""
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
        limits = ", ".join(f"±{largest:.2g}" for largest in dict.fromkeys(ranges))
        row[0].set_ylabel(f"{kernels.layers[layer]}\n{limits}", fontsize=8)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)


def _show_kernels(panel: Any, kernels: Tensor, *, largest: float) -> float:
    """(P, 3, 3) side by side, in a frame; the largest weight of the colour scale."""
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
