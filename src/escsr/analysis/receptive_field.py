"""The effective receptive field: which pixels the middle of the result depends on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escsr.analysis.records import Skipped
from escsr.shapes import ImageBatch

SHARES = (0.5, 0.9, 0.99)
"""Shares of the gradient for which the side of a square is told."""


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
