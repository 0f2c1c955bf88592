"""Local attribution maps (LAM): which pixels made a patch of the result what it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.analysis.pictures import Patch
from escsr.analysis.records import DEFAULT_STEPS, Skipped
from escsr.shapes import ImageBatch

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
