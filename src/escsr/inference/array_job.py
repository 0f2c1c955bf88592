"""From image to image in memory: arrays and tensors."""

import torch
from torch import Tensor

from escsr.images.files import ExtraChannel
from escsr.inference.borders import Margins
from escsr.inference.door import (
    batch_of_pixels,
    planes_of_tensor,
    require_tensor,
    shape_of_tensor,
)
from escsr.inference.enlarger import Enlarger, assemble
from escsr.inference.geometry import SizeWish
from escsr.inference.planes import Pixels, planes_of
from escsr.inference.shrinking import shrink_pixels, shrink_tensor


def enlarge_pixels(
    enlarger: Enlarger, pixels: Pixels, wish: SizeWish, *, extra: ExtraChannel = "alpha"
) -> Pixels:
    """Enlarge pixels: (H, W, C) of uint8, uint16 or float32 in [0, 1]; the result is alike.

    Errors as for a call of the Upscaler.
    """
    source = planes_of(pixels, enlarger.treatment(extra))
    enlargement = enlarger.plan_size(source.width, source.height, wish)
    plan = enlarger.plan(source.shape, enlargement, result_is_held=True)
    result = assemble(enlarger.stream(source, plan), source, enlargement.network_size)
    if not enlargement.shrinks:
        return result
    width, height = enlargement.target_size
    return shrink_pixels(result, width=width, height=height, wraps=source.margins.wraps)


def enlarge_tensor(enlarger: Enlarger, image: Tensor, wish: SizeWish) -> Tensor:
    """Enlarge a batch: (B, 3, H, W) floating point in [0, 1]; dtype and device are kept.

    Errors as for a call of the Upscaler.
    """
    require_tensor(image)
    batch = image.detach().clamp(0, 1)
    treatment = enlarger.treatment()
    all_margins = [treatment.margins_of_tensor(single) for single in batch]
    # Images whose borders are treated alike run together, so that each gives what it gives alone.
    result: dict[int, Tensor] = {}
    for margins in dict.fromkeys(all_margins):
        chosen = [index for index, one in enumerate(all_margins) if one == margins]
        larger = _enlarge_alike(enlarger, batch[chosen], margins, wish)
        result.update(zip(chosen, larger, strict=True))
    # Made outside inference mode, so that the caller may go on computing gradients.
    larger = torch.stack([result[index] for index in range(len(batch))])
    return larger.to(image.device, image.dtype).clamp(0, 1)


def _enlarge_alike(enlarger: Enlarger, image: Tensor, margins: Margins, wish: SizeWish) -> Tensor:
    shape = shape_of_tensor(image, margins)
    enlargement = enlarger.plan_size(shape.width, shape.height, wish)
    plan = enlarger.plan(shape, enlargement, result_is_held=True)
    larger = enlarger.run_whole(image, plan)
    if larger is None:
        # Only tiles are cut on the host; a batch on a GPU that fits stays there.
        holds_flat = enlarger.treatment().holds_flat
        source = planes_of_tensor(image, margins, holds_flat=holds_flat)
        size = enlargement.network_size
        larger = batch_of_pixels(assemble(enlarger.stream(source, plan), source, size))
    if enlargement.shrinks:
        width, height = enlargement.target_size
        larger = shrink_tensor(larger, width=width, height=height, wraps=margins.wraps)
    return larger
