"""Upscale images in memory: arrays, PIL images and tensors, and what of them is allowed."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.files import ExtraChannel
from escsr.images.resize import resize_bicubic
from escsr.images.writer import repeat_for_resizing, resize_pixels
from escsr.upscaling.passes import MultiPassUpscaler, assemble
from escsr.upscaling.pixels import Pixels, planes_of
from escsr.upscaling.sizes import SizeRequest
from escsr.upscaling.tiles import Floats

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

_ARRAY_DTYPES = ("uint8", "uint16", "float32", "float64")
_TENSOR_DTYPES = ("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16")
_PICTURE_MODES = ("1", "L", "LA", "RGB", "RGBA", "P", "I;16", "I;16L", "I;16B", "I;16N")

_FORMATS_WITH_A_MAIN_PICTURE = ("MPO", "PSD")
"""Of which Pillow counts depth maps, previews or layers as frames, and opens the picture itself."""

_RANGE_SLACK = 1e-3
"""Floating point may pass 0 and 1 by this much, as sums and resizing leave it; it is clamped."""


def upscale_pixels(
    upscaler: MultiPassUpscaler,
    pixels: Pixels,
    request: SizeRequest,
    *,
    extra: ExtraChannel = "alpha",
) -> Pixels:
    """Upscale pixels: (H, W, C) of uint8, uint16 or float32 in [0, 1]; the result is alike.

    Errors as for a call of the Upscaler.
    """
    source = planes_of(pixels, upscaler.treatment(extra))
    enlargement = upscaler.plan_size(source.width, source.height, request)
    plan = upscaler.plan(source.shape, enlargement, result_is_held=True)
    result = assemble(upscaler.stream(source, plan), source, enlargement.network_size)
    if not enlargement.shrinks:
        return result
    width, height = enlargement.target_size
    return shrink_pixels(result, width=width, height=height, wraps=source.margins.wraps)


def upscale_tensor(upscaler: MultiPassUpscaler, images: "Tensor", request: SizeRequest) -> "Tensor":
    """Upscale a batch: (B, 3, H, W) floating point in [0, 1]; dtype and device are kept.

    Images run one after another, so that each gives what it gives alone.

    Errors as for a call of the Upscaler.
    """
    import torch

    require_tensor(images)
    arrays = images.detach().float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    larger = [upscale_pixels(upscaler, pixels, request) for pixels in arrays]
    result = torch.from_numpy(np.stack(larger)).permute(0, 3, 1, 2)  # pyright: ignore[reportUnknownMemberType]
    return result.contiguous().to(images.device, images.dtype).clamp(0, 1)


def shrink_pixels(pixels: Pixels, *, width: int, height: int, wraps: bool = False) -> Pixels:
    """Resize with antialiasing: Lanczos for integers, bicubic for floating point.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1]; each channel by itself, since the
            colours that networks make go on where opacity ends.
        width: of the result.
        height: of the result.
        wraps: whether beyond a border lies the other end, else the border's own pixels.
    """
    if pixels.dtype != np.float32:
        return resize_pixels(pixels, width=width, height=height, weighs_opacity=False, wraps=wraps)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    if wraps:
        image = _shrink_repeated(_shrink_repeated(image, 2, height), 3, width)
    else:
        image = resize_bicubic(image, output_size=(height, width))
    return np.ascontiguousarray(image[0].clip(0, 1).transpose(1, 2, 0))


def _shrink_repeated(image: Floats, axis: int, target: int) -> Floats:
    """Resize one axis of an image (1, C, H, W) that repeats along it."""
    length = image.shape[axis]
    around = repeat_for_resizing(length, target)
    places = np.remainder(np.arange(-around, length + around, dtype=np.int64), length)
    before = around * target // length
    size = list(image.shape[2:])
    size[axis - 2] = target + 2 * before
    larger = resize_bicubic(image.take(places, axis), output_size=(size[0], size[1]))
    return larger.take(range(before, before + target), axis)


def is_tensor(image: object) -> "TypeGuard[Tensor]":
    """Whether this is a tensor of torch's, found out without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def pixels_of_array(array: npt.NDArray[Any]) -> Pixels:
    """Check an array and give it three axes.

    Args:
        array: (H, W) or (H, W, C), C from 1 to 4; uint8, uint16, or float32/float64 in [0, 1].
    Returns:
        (H, W, C) uint8, uint16 or float32; a view where nothing had to change.
    Raises:
        ImageValueError: another dtype, shape or range, or NaN.
        ImageSizeError: no pixels.
    """
    if array.dtype.name not in _ARRAY_DTYPES:
        raise ImageValueError(
            f"The array is {array.dtype.name}; allowed are {', '.join(_ARRAY_DTYPES)} (floating "
            "point in [0, 1]). Convert it with astype."
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise ImageValueError(
            f"The array has the shape {array.shape}; allowed are (H, W) grey and (H, W, C) with "
            "C = 1 grey, 2 grey and alpha, 3 RGB or 4 RGBA. For (C, H, W) move the channels last: "
            "array.transpose(1, 2, 0)."
        )
    _require_pixels(array.shape[0], array.shape[1])
    pixels = array.reshape(*array.shape[:2], -1)
    if pixels.dtype.kind == "u":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    _require_range(float(pixels.min()), float(pixels.max()), bool(np.isfinite(pixels).all()))
    return pixels.astype(np.float32, copy=False).clip(0, 1)


def array_like(result: Pixels, original: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give a result the axes and dtype of the array that came in."""
    shaped = result[..., 0] if original.ndim == 2 else result
    return shaped.astype(original.dtype, copy=False)


def is_picture(image: object) -> "TypeGuard[Picture]":
    """Whether this is a PIL image; Pillow need not be installed to tell."""
    try:
        from PIL.Image import Image
    except ImportError:
        return False
    return isinstance(image, Image)


def pixels_of_picture(picture: "Picture") -> Pixels:
    """Take the pixels of a PIL image.

    Args:
        picture: of mode L, LA, RGB, RGBA or I;16; palettes and 1-bit images are converted, and a
            colour that ``info`` marks as transparent becomes alpha.
    Raises:
        ImageValueError: another mode, several frames or pages, or a transparent grey of 16 bits.
        ImageSizeError: no pixels.
    """
    _require_one_frame(picture)
    if picture.mode not in _PICTURE_MODES:
        raise ImageValueError(
            f"The PIL image has the mode {picture.mode}; allowed are {', '.join(_PICTURE_MODES)}. "
            'Convert it first, for instance with image.convert("RGB").'
        )
    _require_pixels(picture.height, picture.width)
    if picture.mode.startswith("I;16") and picture.has_transparency_data:
        raise ImageValueError(
            f"The PIL image has the mode {picture.mode} and a transparent grey in "
            'info["transparency"], and Pillow has no mode for grey of 16 bits with alpha. Give an '
            "array of grey and alpha, (H, W, 2) uint16, or delete that entry of info."
        )
    if picture.mode == "P":
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    elif picture.mode in ("1", "L", "RGB") and picture.has_transparency_data:
        picture = picture.convert("RGBA" if picture.mode == "RGB" else "LA")
    elif picture.mode == "1":
        picture = picture.convert("L")
    return pixels_of_array(np.asarray(picture))


def _require_one_frame(picture: "Picture") -> None:
    """An opened animation or document is refused; a copy of one of its frames is not."""
    form = picture.format
    if form in _FORMATS_WITH_A_MAIN_PICTURE or not getattr(picture, "is_animated", False):
        return
    raise ImageValueError(
        f"The PIL image holds {getattr(picture, 'n_frames', 2)} frames or pages ({form}), and one "
        "image is enlarged at a time. Give each by itself: image.seek(number), then image.copy()."
    )


def picture_like(result: Pixels, original: "Picture") -> "Picture":
    """Make a PIL image of a result: of the mode that ``pixels_of_picture`` made, same ``info``."""
    from PIL import Image

    grey = result.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(result[..., 0] if grey else result))
    # A transparent colour means nothing in the result, which has alpha instead.
    kept = {name: value for name, value in original.info.items() if name != "transparency"}
    picture.info.update(kept)
    return picture


def require_tensor(image: "Tensor") -> None:
    """Refuse a tensor that is not a batch of RGB images.

    Raises:
        ImageValueError: not (B, 3, H, W), not floating point, not in [0, 1], NaN, or not dense
            values, as on the meta device.
        ImageSizeError: no pixels.
    """
    if str(image.dtype) not in _TENSOR_DTYPES:
        raise ImageValueError(
            f"The tensor is {image.dtype}; a batch of images is floating point in [0, 1]. Divide "
            "8-bit values by 255, or pass a numpy array."
        )
    if image.ndim != 4 or image.shape[1] != 3:
        raise ImageValueError(
            f"The tensor has the shape {tuple(image.shape)}; allowed is (B, 3, H, W). Add the "
            "batch dimension with image[None], and give grey as three equal channels."
        )
    _require_pixels(image.shape[2], image.shape[3])
    if image.shape[0] == 0:
        raise ImageSizeError("The batch holds no image; give at least one.")
    if image.is_meta or str(image.layout) != "torch.strided":
        came = "on the meta device" if image.is_meta else f"laid out as {image.layout}"
        raise ImageValueError(
            f"The tensor is {came}; a batch of images is dense and holds its values, on the CPU or "
            "another device. Give such a tensor, for instance with image.to_dense()."
        )
    values = image.detach()
    _require_range(float(values.min()), float(values.max()), bool(values.isfinite().all()))


def _require_pixels(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ImageSizeError(f"The image is {width}x{height} pixels; both sides need at least 1.")


def _require_range(lowest: float, highest: float, is_finite: bool) -> None:
    if not is_finite:
        raise ImageValueError(
            "The image holds NaN or infinite values; replace them first, for instance with "
            "numpy.nan_to_num."
        )
    if lowest < -_RANGE_SLACK or highest > 1 + _RANGE_SLACK:
        raise ImageValueError(
            f"The image's values reach from {lowest:g} to {highest:g}; floating point is in "
            "[0, 1]. Divide 8-bit values by 255, or pass them as uint8; clip what overshoots."
        )
