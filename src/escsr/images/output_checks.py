"""What can be stored where, found out before any work is done."""

import os
from pathlib import Path

from escsr.errors import (
    ImageFormatError,
    ImageSizeError,
    ImageValueError,
    ImageWriteError,
    OutputExistsError,
)
from escsr.images.decoding import ExtraChannel, Pixels
from escsr.images.formats import ImageFormat, format_for_writing
from escsr.images.stated_colour import StatedColour
from escsr.temporary_files import link_target


def check_output(
    path: str | Path,
    *,
    width: int,
    height: int,
    channels: int,
    bit_depth: int,
    colour: StatedColour | None = None,
    extra: ExtraChannel | None = None,
    overwrite: bool = False,
) -> ImageFormat:
    """Find out before the work whether its result could be stored.

    Args:
        path: the output; its suffix chooses the format.
        width: of the result, in pixels.
        height: of the result, in pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        bit_depth: 8 or 16.
        colour: of the pixels, where the source states it otherwise than by a profile.
        extra: what the second or fourth channel is; None is opacity.
        overwrite: whether an existing file may be replaced.
    Returns:
        The format that the suffix chooses.
    Raises:
        ImageFormatError: the suffix is unknown, or its format cannot hold such a result.
        OutputExistsError: the file exists and ``overwrite`` is false.
        ImageWriteError: the folder is missing or closed to us, or the path is itself a folder.
        ImageValueError, ImageSizeError: arguments that cannot be.
    """
    path = Path(path)
    check_kind(width, height, channels, bit_depth)
    form = format_for_writing(path)
    if extra == "data" and form.name != "TIFF":
        raise ImageFormatError(
            f"{path}: {form.name} would take the channel beside the colours for transparency, and "
            "the image says that it is other data (ExtraSamples). Write TIFF, or remove the "
            "channel first."
        )
    _check_colour(path, form, colour)
    _check_limits(path, form, width, height, channels, bit_depth)
    try:
        _check_place(path, overwrite=overwrite)
    except OSError as error:
        raise ImageWriteError(
            f"{path} cannot be written: {error.strerror or error}. Check the folders above it."
        ) from error
    return form


def check_names(path: Path) -> None:
    """Refuse a file or folder name longer than the file system allows.

    Raises:
        ImageWriteError: the message says how to get a shorter one.
    """
    limit = _longest_name_bytes(path)
    for name in path.parts:
        num_bytes = len(os.fsencode(name))
        if num_bytes > limit:
            raise ImageWriteError(
                f"{path} cannot be written: the name {name[:20]}…{name[-10:]} is too long, "
                f"{num_bytes} bytes where {limit} are allowed. Give a shorter --suffix, or another "
                "name with --output (-o)."
            )


def _longest_name_bytes(path: Path) -> int:
    folder = next((p for p in path.parents if os.path.isdir(p)), None)  # noqa: PTH112
    try:
        return os.pathconf(folder or ".", "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return 255


def _check_place(path: Path, *, overwrite: bool) -> None:
    check_names(path)
    if path.is_dir():
        raise ImageWriteError(f"{path} is a folder; name a file in it.")
    if not overwrite and os.path.lexists(path):
        raise already_exists(path)
    if path.exists() and not path.is_file():
        raise ImageWriteError(f"{path} is a device or a pipe; name a file.")
    folder = link_target(path).parent if overwrite else path.parent
    if not folder.is_dir():
        raise ImageWriteError(f"The folder {folder} does not exist; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageWriteError(f"The folder {folder} may not be written to; choose another.")


def check_pixels(pixels: Pixels) -> None:
    """Refuse an array that is not (H, W, C) uint8 or uint16.

    Raises:
        ImageValueError: another dtype or number of axes.
    """
    if pixels.ndim != 3 or pixels.dtype.name not in ("uint8", "uint16"):
        raise ImageValueError(
            f"Pixels must be (H, W, C) uint8 or uint16; came {tuple(pixels.shape)} "
            f"{pixels.dtype.name}."
        )


def check_kind(width: int, height: int, channels: int, bit_depth: int) -> None:
    """Refuse a picture that no format holds.

    Raises:
        ImageSizeError: a side is not positive.
        ImageValueError: other than 1 to 4 channels of 8 or 16 bits.
    """
    if min(width, height) < 1:
        raise ImageSizeError(f"An image of {width}x{height} pixels cannot be; 1x1 is the least.")
    if channels not in (1, 2, 3, 4) or bit_depth not in (8, 16):
        raise ImageValueError(
            f"{channels} channels of {bit_depth} bits; allowed are 1 (grey), 2 (grey and alpha), "
            "3 (RGB) or 4 (RGB and alpha) of 8 or 16 bits."
        )


def _check_limits(
    path: Path, form: ImageFormat, width: int, height: int, channels: int, bit_depth: int
) -> None:
    if max(width, height) > form.max_side_pixels:
        raise ImageFormatError(
            f"{path}: {form.name} holds at most {form.max_side_pixels:,} pixels a side, and the "
            f"result has {width}x{height}. Write PNG or TIFF, or choose a smaller scale."
        )
    if channels in (2, 4) and not form.holds_alpha:
        raise ImageFormatError(
            f"{path}: {form.name} holds no transparency, and the image has some. Write PNG, "
            "WebP, TIFF or AVIF."
        )
    if bit_depth == 16 and form.max_bit_depth == 8:
        raise ImageFormatError(
            f"{path}: {form.name} holds 8 bits per channel, and the image has 16. Write PNG or "
            "TIFF (or AVIF, which keeps 12)."
        )


def _check_colour(path: Path, form: ImageFormat, colour: StatedColour | None) -> None:
    if colour is None or colour.beyond_profiles is None:
        return
    if form.name == "PNG" or (form.name == "AVIF" and colour.code_points is not None):
        return
    raise ImageFormatError(
        f"{path}: the image is {colour.beyond_profiles}, which {form.name} cannot state, so it "
        "would be shown in wrong colours. Write PNG (or AVIF for HDR), or convert the source to "
        "sRGB first."
    )


def already_exists(path: Path) -> OutputExistsError:
    """Make the error for a file that nobody asked us to replace."""
    return OutputExistsError(f"{path} exists already; allow overwriting, or choose another name.")
