"""From image to image in memory: arrays and tensors."""

from torch import Tensor

from escsr.inference.door import batch_of_pixels, planes_of_tensor, require_tensor
from escsr.inference.enlarger import Enlarger, assemble
from escsr.inference.geometry import SizeWish
from escsr.inference.planes import Pixels, planes_of
from escsr.inference.shrinking import shrink_pixels, shrink_tensor


def enlarge_pixels(enlarger: Enlarger, pixels: Pixels, wish: SizeWish) -> Pixels:
    """Enlarge pixels: (H, W, C) of uint8, uint16 or float32 in [0, 1]; the result is alike.

    Errors as for a call of the Upscaler.
    """
    source = planes_of(pixels)
    enlargement = enlarger.plan_size(source.width, source.height, wish)
    plan = enlarger.plan(source.shape, enlargement, result_is_held=True)
    result = assemble(enlarger.stream(source, plan), source, enlargement.network_size)
    width, height = enlargement.target_size
    return shrink_pixels(result, width=width, height=height) if enlargement.shrinks else result


def enlarge_tensor(enlarger: Enlarger, image: Tensor, wish: SizeWish) -> Tensor:
    """Enlarge a batch: (B, 3, H, W) floating point in [0, 1]; dtype and device are kept.

    Errors as for a call of the Upscaler.
    """
    require_tensor(image)
    source = planes_of_tensor(image)
    enlargement = enlarger.plan_size(source.width, source.height, wish)
    plan = enlarger.plan(source.shape, enlargement, result_is_held=True)
    larger = enlarger.run_whole(image.detach().clamp(0, 1), plan)
    if larger is None:
        size = enlargement.network_size
        larger = batch_of_pixels(assemble(enlarger.stream(source, plan), source, size))
    if enlargement.shrinks:
        width, height = enlargement.target_size
        larger = shrink_tensor(larger, width=width, height=height)
    # Made outside inference mode, so that the caller may go on computing gradients.
    return larger.to(image.device, image.dtype).clamp(0, 1)
