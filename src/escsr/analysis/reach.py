"""How far a network sees: the effective receptive field, and local attribution maps (LAM)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.analysis.drawing import (
    LINE_COLOURS,
    LINE_STYLES,
    MAGNITUDES,
    new_figure,
    outline,
    shortened,
    show_map,
)
from escsr.analysis.pictures import Patch, Picture
from escsr.analysis.records import DEFAULT_STEPS, Skipped, plain_number, plain_numbers
from escsr.shapes import ImageBatch

SHARES = (0.5, 0.9, 0.99)
"""Shares of the gradient for which the side of a square is reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceptiveField:
    """How much each LR pixel moves the middle of the result."""

    field: Tensor
    """(S, S), sums to 1; the middle is (S // 2, S // 2)."""
    share_within: Tensor
    """(R + 1,): the share of ``field`` in the square that reaches r pixels from the middle."""
    support_share: float
    """Share of the pixels that have any influence at all."""
    images: int
    """Over how many it is averaged."""

    def side_holding(self, share: float) -> int:
        """Side in pixels of the smallest centred square with this share of the influence."""
        reached = self.share_within >= min(share, float(self.share_within[-1]))
        return 2 * int(reached.float().argmax()) + 1

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        sides = {f"{100 * share:g}%": self.side_holding(share) for share in SHARES}
        return {
            "side_pixels": len(self.field),
            "side_pixels_holding": sides,
            "share_within": plain_numbers(self.share_within, 5),
            "share_of_pixels_with_influence": plain_number(self.support_share, 5),
            "images": self.images,
        }


def receptive_field(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> ReceptiveField | Skipped:
    """Average the effective receptive field over the middles of images.

    Args:
        network: on the images' device; gradients flow through it to its input.
        images: (1, 3, H, W) each; a square in the middle of each is used, as large as the smallest
            of them allows.
        on_image: called after each.
    Source: Luo et al., Understanding the Effective Receptive Field, NeurIPS 2016.
    """
    side = min(min(image.shape[-2:]) for image in images)
    total = torch.zeros(side, side, dtype=torch.float64)
    used = 0
    for image in images:
        top, left = ((length - side) // 2 for length in image.shape[-2:])
        square = image[..., top : top + side, left : left + side]
        influence = influence_on_middle(network, square).cpu().double()
        on_image()
        if influence.sum() > 0:
            total += influence / influence.sum()
            used += 1
    if not used:
        return Skipped("the middle of its result depends on no pixel of the image.")
    field = total / used
    return ReceptiveField(
        field=field,
        share_within=shares_within(field),
        support_share=float((field > 0).double().mean()),
        images=used,
    )


def influence_on_middle(network: nn.Module, image: ImageBatch) -> Tensor:
    """Gradient of the middle of the result with respect to the image: (1, 3, S, S) -> (S, S).

    The middle is all that the network makes of the LR pixel (S // 2, S // 2): its r x r pixels of
    three channels, summed. The gradient's magnitudes are summed over channels.
    """
    with torch.enable_grad():
        source = image.detach().clone().requires_grad_()
        result = network(source)
        rows, columns = (
            _pixels_of_middle(large, small)
            for large, small in zip(result.shape[-2:], image.shape[-2:], strict=True)
        )
        (gradient,) = torch.autograd.grad(result[..., rows, columns].sum(), source)
    return gradient[0].abs().sum(0)


def shares_within(field: Tensor) -> Tensor:
    """The share of an (S, S) field in each square around its middle, the single pixel first."""
    side = field.shape[-1]
    distance = (torch.arange(side) - side // 2).abs()
    ring = torch.maximum(distance[:, None], distance[None, :])
    per_ring = torch.zeros(int(ring.max()) + 1, dtype=field.dtype)
    per_ring.index_add_(0, ring.flatten(), field.flatten())
    return per_ring.cumsum(0) / field.sum()


def _pixels_of_middle(large: int, small: int) -> slice:
    """Where the result of the middle pixel of one axis lies."""
    middle = small // 2
    first = middle * large // small
    return slice(first, max(first + 1, (middle + 1) * large // small))


BLUR_SIGMA_PIXELS = 1.2
"""Of the Gaussian that the path begins with, in LR pixels, as in the publication."""
BLUR_KERNEL_PIXELS = 9
_SMOOTHING = 1e-3
"""Added to gradients of the result (in quadrature), whose length has no slope at zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalAttribution:
    """What each LR pixel adds to the detail of a patch of the result."""

    attribution: Tensor
    """(H, W), of any sign; sums to ``explained``."""
    patch: Patch
    """In pixels of the part of the image that was looked at."""
    diffusion_index: float
    """0 (one pixel) to 100 (all pixels alike)."""
    explained: float
    """The sum of all attributions."""
    difference: float
    """The detail of the patch with the image, less that with the blurred image; equal to
    ``explained`` but for the finite number of steps."""
    steps: int

    @property
    def completeness_error(self) -> float:
        """How far ``explained`` is from ``difference``, as a share of it."""
        return abs(self.explained - self.difference) / max(abs(self.difference), 1e-12)

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        return {
            "diffusion_index": plain_number(self.diffusion_index, 3),
            "explained": plain_number(self.explained, 5),
            "difference": plain_number(self.difference, 5),
            "completeness_error": plain_number(self.completeness_error, 5),
            "steps": self.steps,
        }


def local_attribution(
    network: nn.Module,
    image: ImageBatch,
    patch: Patch,
    *,
    steps: int = DEFAULT_STEPS,
    on_step: Callable[[], None] = lambda: None,
) -> LocalAttribution | Skipped:
    """Attribute the detail of a patch to the pixels of an image, by integrated gradients.

    The path goes from the blurred image to the image by blurring less and less; the trapezoidal
    rule integrates the gradient of ``detail_of`` the patch of the result along it.

    Args:
        network: on the image's device; gradients flow through it to its input.
        image: (1, 3, H, W).
        patch: inside the image, in its pixels.
        steps: pieces of the path, >= 1.
        on_step: called after each gradient, ``steps + 1`` times.
    Source: Gu & Dong, Interpreting Super-Resolution Networks with Local Attribution Maps,
        CVPR 2021. Differs: trapezoids instead of left ends; what is left unexplained is below 1 %
        (tests/analysis/test_reach.py).
    """
    total, difference = _integrated(network, image, patch, steps, on_step)
    attribution = total[0].sum(0)
    if not bool(attribution.abs().sum() > 0):
        return Skipped(
            "the patch has no detail that depends on the image; choose another with --patch, of "
            "at least 2 pixels of the result."
        )
    return LocalAttribution(
        attribution=attribution,
        patch=patch,
        diffusion_index=diffusion_index(attribution),
        explained=float(attribution.sum()),
        difference=difference,
        steps=steps,
    )


def _integrated(
    network: nn.Module, image: ImageBatch, patch: Patch, steps: int, on_step: Callable[[], None]
) -> tuple[Tensor, float]:
    """The integral of the gradient along the path, (1, 3, H, W), and how much the detail grew."""
    total = torch.zeros_like(image, dtype=torch.float64, device="cpu")
    before: tuple[Tensor, Tensor] | None = None
    details: list[float] = []
    for step in range(steps + 1):
        point = blurred(image, BLUR_SIGMA_PIXELS * (1 - step / steps))
        detail, gradient = _gradient(network, point, patch)
        details.append(detail)
        if before is not None:
            total += ((gradient + before[1]) / 2 * (point - before[0])).cpu().double()
        before = (point, gradient)
        on_step()
    return total, details[-1] - details[0]


def detail_of(result: ImageBatch) -> Tensor:
    """How much detail a patch has: the lengths of its gradient, summed over pixels and channels."""
    down = result[..., 1:, :-1] - result[..., :-1, :-1]
    right = result[..., :-1, 1:] - result[..., :-1, :-1]
    return ((down.square() + right.square() + _SMOOTHING**2).sqrt() - _SMOOTHING).sum()


def diffusion_index(attribution: Tensor) -> float:
    """``(1 - Gini) * 100`` of the magnitudes of attributions.

    Returns:
        100 where all are alike, 100 / n where one of n pixels has all; NaN where all are zero.
    Source: Gu & Dong, CVPR 2021.
    """
    magnitudes = attribution.abs().flatten().double().sort().values
    count = len(magnitudes)
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    gini = ((2 * rank - count - 1) * magnitudes).sum() / (count * magnitudes.sum())
    return float((1 - gini) * 100)


def blurred(image: ImageBatch, sigma_pixels: float) -> ImageBatch:
    """Blur with a Gaussian of ``BLUR_KERNEL_PIXELS``; the border pixels are repeated outwards."""
    if sigma_pixels <= 0:
        return image
    reach = BLUR_KERNEL_PIXELS // 2
    offset = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-0.5 * (offset / sigma_pixels).square())
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    wide = F.conv2d(F.pad(image, (reach, reach, 0, 0), mode="replicate"), weights, groups=3)
    tall = F.pad(wide, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(tall, weights.transpose(-2, -1), groups=3)


def _gradient(network: nn.Module, image: ImageBatch, patch: Patch) -> tuple[float, Tensor]:
    """The detail of the patch of the result, and its gradient with respect to the image."""
    with torch.enable_grad():
        source = image.detach().clone().requires_grad_()
        result = network(source)
        vertical, horizontal = (
            large / small for large, small in zip(result.shape[-2:], image.shape[-2:], strict=True)
        )
        rows = _scaled(patch.y, patch.side, vertical)
        columns = _scaled(patch.x, patch.side, horizontal)
        detail = detail_of(result[..., rows, columns])
        (gradient,) = torch.autograd.grad(detail, source)
    return float(detail.detach()), gradient


def _scaled(start: int, length: int, factor: float) -> slice:
    return slice(math.floor(start * factor), math.ceil((start + length) * factor))


_DECADES = 5
"""Powers of ten below the largest value that a heat map shows."""
_PANEL_INCHES = 3.3


def draw_receptive_field(found: Sequence[tuple[str, ReceptiveField]]) -> Any | None:
    """One heat map per network, and the share of influence within squares of growing side."""
    if not found:
        return None
    figure = new_figure(_PANEL_INCHES * (len(found) + 1) + 0.9, _PANEL_INCHES + 0.75)
    *panels, curves = figure.subplots(1, len(found) + 1, squeeze=False)[0]
    image = None
    for panel, (label, field) in zip(panels, found, strict=True):
        image = _show_decades(panel, field.field.numpy())
        sides = [field.side_holding(share) for share in SHARES]
        for side, style in zip(sides, ("-", "--", ":"), strict=True):
            corner = len(field.field) // 2 - side // 2
            outline(panel, corner, corner, side, colour="white", style=style)
        sides_text = ", ".join(f"{s:.0%}: {side}" for s, side in zip(SHARES, sides, strict=True))
        panel.set_title(shortened(label))
        panel.set_xlabel(f"side of the square that holds\n{sides_text} pixels")
    figure.colorbar(image, ax=panels, label="influence / largest", shrink=0.8)
    _draw_shares(curves, found)
    return figure


def _draw_shares(panel: Any, found: Sequence[tuple[str, ReceptiveField]]) -> None:
    for number, (label, field) in enumerate(found):
        sides = 2 * np.arange(len(field.share_within)) + 1
        panel.plot(
            sides,
            field.share_within.numpy(),
            color=LINE_COLOURS[number % len(LINE_COLOURS)],
            linestyle=LINE_STYLES[number % len(LINE_STYLES)],
            label=shortened(label, 22),
        )
    panel.set(xlabel="side of a centred square, LR pixels", ylabel="share of the influence")
    panel.set_ylim(0, 1.03)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, loc="lower right")


def draw_attribution(
    found: Sequence[tuple[str, LocalAttribution]], picture: Picture, patch: Patch
) -> Any | None:
    """The image with its patch, and one attribution map per network."""
    if not found:
        return None
    figure = new_figure(_PANEL_INCHES * (len(found) + 1) + 0.9, _PANEL_INCHES + 0.15)
    source, *panels = figure.subplots(1, len(found) + 1, squeeze=False)[0]
    show_map(source, picture.image[0].permute(1, 2, 0).numpy())
    outline(source, patch.x, patch.y, patch.side, colour=LINE_COLOURS[1], style="-")
    source.set_title(f"{shortened(picture.name)}: the patch")
    image = None
    for panel, (label, attribution) in zip(panels, found, strict=True):
        image = _show_decades(panel, attribution.attribution.abs().numpy())
        outline(panel, patch.x, patch.y, patch.side, colour="white", style="-")
        panel.set_title(f"{shortened(label)}: DI {attribution.diffusion_index:.1f}")
    figure.colorbar(image, ax=panels, label="attribution / largest", shrink=0.8)
    return figure


def _show_decades(panel: Any, values: npt.NDArray[Any]) -> Any:
    """A heat map of magnitudes over some powers of ten."""
    from matplotlib.colors import LogNorm

    lowest = 10.0**-_DECADES
    shares = np.clip(values / values.max(), lowest, 1)
    return show_map(panel, shares, cmap=MAGNITUDES, norm=LogNorm(lowest, 1))
