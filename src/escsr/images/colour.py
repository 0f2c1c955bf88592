"""Colour of pixels (BT.601 luma, 8-bit RGB, colour beside opacity), and as files state it."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from escsr.errors import ImageValueError

_LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""Weights of R, G, B in [0, 1] that give Y of BT.601 in 16..235, before the offset of 16."""
_NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_PIXELS_AT_ONCE = 1 << 20


def rgb_to_luma(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert RGB to the luma (Y) of BT.601 in studio range, without rounding it.

    Args:
        image: (B, 3, H, W) RGB in [0, 1], floating point.
    Returns:
        (B, 1, H, W) in [16/255, 235/255]; same dtype.
    Raises:
        ImageValueError: not floating point, or not three channels.
    Source: ITU-R BT.601, as MATLAB's ``rgb2ycbcr`` computes it.
    """
    if image.ndim != 4 or image.shape[1] != 3 or image.dtype.kind != "f":
        raise ImageValueError(
            f"Luma needs a floating-point array (B, 3, H, W); came {image.dtype} of shape "
            f"{image.shape}. Repeat a grey channel three times first."
        )
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    of_red, of_green, of_blue = _LUMA_WEIGHTS
    return (of_red * red + of_green * green + of_blue * blue + 16.0) / 255.0


def to_rgb_uint8(
    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
) -> npt.NDArray[np.uint8]:
    """Turn the pixels of any image file into 8-bit RGB, as networks and metrics are fed.

    Grey becomes three equal channels, alpha is dropped (the colour under it is kept), and 16 bits
    are rounded to the nearest of 8.

    Args:
        pixels: (H, W, C) of 8 or 16 bits; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    Returns:
        (H, W, 3), contiguous and of its own memory.
    Raises:
        ImageValueError: another type or shape.
    """
    is_depth_known = pixels.dtype.name in ("uint8", "uint16")
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not is_depth_known:
        raise ImageValueError(
            f"RGB needs uint8 or uint16 pixels of shape (H, W, C) with 1 to 4 channels; came "
            f"{pixels.dtype} of shape {pixels.shape}."
        )
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if colour.dtype == np.uint16:
        colour = (colour.astype(np.uint32) * 255 + 32767) // 65535
    return np.array(colour, dtype=np.uint8, order="C")


def continue_colours(
    pixels: npt.NDArray[Any], *, reach_pixels: int = 12, wraps: bool = False
) -> npt.NDArray[Any]:
    """Continue visible colours into the surroundings that alpha hides altogether.

    So a filter that looks at colours alone sees no edge where opacity ends. Pixel by pixel
    outwards, a hidden colour becomes the mean of its known neighbours, which equals them where they
    are equal; colours further away, and those of pixels with any opacity, stay as they are.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32, C = 2 or 4, ending in straight alpha.
        reach_pixels: how far.
        wraps: beyond each border lies the other end of the image, as in a texture that repeats.
    Returns:
        The same shape and dtype: ``pixels`` itself where there is nothing to do, else a copy.
    """
    known = pixels[..., -1] > 0
    if known.all() or not known.any():
        return pixels
    if wraps:
        inner = slice(reach_pixels, -reach_pixels)
        beyond = ((reach_pixels, reach_pixels), (reach_pixels, reach_pixels), (0, 0))
        padded = np.pad(pixels, beyond, mode="wrap")
        continued = continue_colours(padded, reach_pixels=reach_pixels)
        return np.ascontiguousarray(continued[inner, inner])
    result = pixels.copy()
    for _ in range(reach_pixels):
        around = np.pad(known, 1)
        height, width = known.shape
        near = np.zeros_like(known)
        for down, right in _NEIGHBOURS:
            near |= around[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        near &= ~known
        if not near.any():
            break
        # Some rows at a time: where opacity is noise, a ring may hold half of all pixels.
        for top in range(0, height, max(1, _PIXELS_AT_ONCE // width)):
            rows = slice(top, top + max(1, _PIXELS_AT_ONCE // width))
            _fill_from_neighbours(result, around, near[rows], top)
        known |= near
    return result


def _fill_from_neighbours(
    pixels: npt.NDArray[Any], known: npt.NDArray[Any], chosen: npt.NDArray[Any], top: int
) -> None:
    """Set chosen colours, in rows from ``top`` on, to the mean of the known ones around them."""
    row, column = np.nonzero(chosen)
    row += top
    total = np.zeros((row.size, pixels.shape[2] - 1))
    count = np.zeros((row.size, 1))
    for down, right in _NEIGHBOURS:
        is_known = known[row + 1 + down, column + 1 + right][:, None]
        below = (row + down).clip(0, pixels.shape[0] - 1)
        beside = (column + right).clip(0, pixels.shape[1] - 1)
        total += pixels[below, beside, :-1] * is_known
        count += is_known
    # In float64 the mean of up to 8 equal numbers of 24 bits is that number.
    mean = total / count
    pixels[row, column, :-1] = mean if pixels.dtype.kind == "f" else np.rint(mean)


# Colour that a file states by numbers instead of a profile, and the profile that says the same.
#
# PNG says it with cICP, sRGB, gAMA and cHRM, AVIF and HEIF with an nclx box. Code points are those
# of ITU-T H.273 (CICP).

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue (CIE 1931)."""

_PRIMARIES: dict[int, Chromaticities] = {
    1: (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),  # BT.709, sRGB
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # BT.470 M
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.601, 625 lines
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601, 525 lines
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # SMPTE 240M
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),  # film
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),  # CIE XYZ, SMPTE ST 428
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI-P3
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (0.3127, 0.3290, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),  # EBU 3213
}
_SRGB, _UNSPECIFIED = 1, 2
_ADOBE_RGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)

_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),  # SMPTE 240M
    8: (1.0,),
    13: _SRGB_CURVE,
    17: (2.6,),  # SMPTE ST 428
}
"""Coded value to light: a power, or g, a, b, c, d of ICC's parametric curve of type 3."""

_HDR = {16: "PQ", 18: "HLG"}
_SRGB_TRANSFER = 13
SRGB_CODE_POINTS = (_SRGB, _SRGB_TRANSFER)
"""Primaries and transfer curve of sRGB."""
_GAMMAS = {1.0: 8, 2.2: 4, 2.6: 17, 2.8: 5}
_SAME_CHROMATICITY = 0.002
_SAME_GAMMA = 0.01
_GAMMA_RANGE = (0.1, 10.0)
"""Beyond it, nearly all values of 8 bits would be shown black, or nearly all white."""
_SMALLEST_GAMUT = 0.01
"""Twice the area of a triangle of primaries in x and y; BT.709 has 0.22."""


def possible_gamma(gamma: float) -> float | None:
    """Return a power that a file states; None if it is outside 0.1 to 10, as no display has it."""
    lowest, highest = _GAMMA_RANGE
    return gamma if lowest <= gamma <= highest else None


def possible_chromaticities(values: Sequence[float]) -> Chromaticities | None:
    """Return the x and y that a file states; None for what cannot be white and three primaries.

    All lie in the triangle of CIE 1931's x and y, the primaries span an area, and white, which is
    their sum, lies inside it.

    Args:
        values: x and y of white, red, green and blue.
    """
    if len(values) != 8:
        return None
    points = np.array(values).reshape(4, 2)
    columns = np.column_stack([points, 1 - points.sum(axis=1)]).T
    if columns.min() < -1e-4 or abs(np.linalg.det(columns[:, 1:])) < _SMALLEST_GAMUT:
        return None
    if columns[1, 0] <= 0 or np.linalg.solve(columns[:, 1:], columns[:, 0]).min() <= 0:
        return None
    white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y = values
    return white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedColour:
    """Primaries and transfer curve of RGB or grey pixels."""

    primaries: int = _UNSPECIFIED
    """Code point of the primaries; 2 where they are not stated, or stated by numbers."""
    transfer: int = _UNSPECIFIED
    """Code point of the transfer curve; 2 where it is not stated, or a power."""
    chromaticities: Chromaticities | None = None
    """Primaries by numbers."""
    gamma: float | None = None
    """The power that turns coded values into light, 1 for linear."""
    is_full_range: bool = True
    """Whether black is 0 and white the highest value, and not 16 and 235 of 255 as in video."""

    @property
    def beyond_profiles(self) -> str | None:
        """What this colour is, in words, where no profile can say it; None for all others."""
        if not self.is_full_range:
            return "video range (cICP)"
        if self.transfer in _HDR:
            return f"HDR ({_HDR[self.transfer]})"
        if self.gamma is None and self.transfer not in (_UNSPECIFIED, *_CURVES):
            return f"encoded with the transfer curve {self.transfer} of H.273"
        if self.chromaticities is None and self.primaries not in (_UNSPECIFIED, *_PRIMARIES):
            return f"encoded with the primaries {self.primaries} of H.273"
        return None

    @property
    def is_srgb(self) -> bool:
        """Whether readers that know nothing of it show the right colours."""
        return self.code_points == SRGB_CODE_POINTS

    @property
    def code_points(self) -> tuple[int, int] | None:
        """Primaries and transfer as H.273 numbers them; None where it has no numbers for them.

        What is not stated is sRGB's.
        """
        primaries, transfer = self.primaries, self.transfer
        if self.chromaticities is not None:
            primaries = next(filter(self._are_primaries, _PRIMARIES), -1)
        if self.gamma is not None:
            near = [t for g, t in _GAMMAS.items() if abs(g - self.gamma) < _SAME_GAMMA]
            transfer = near[0] if near else -1
            if transfer == _GAMMAS[2.2] and primaries in (_SRGB, _UNSPECIFIED):
                # That is how files state sRGB to readers that know no more than gAMA.
                transfer = _SRGB_TRANSFER
        if -1 in (primaries, transfer) or not self.is_full_range:
            return None
        return (
            _SRGB if primaries == _UNSPECIFIED else primaries,
            _SRGB_TRANSFER if transfer == _UNSPECIFIED else transfer,
        )

    def _are_primaries(self, code: int) -> bool:
        pairs = zip(_PRIMARIES[code], self.chromaticities or (), strict=True)
        return all(abs(ours - theirs) < _SAME_CHROMATICITY for ours, theirs in pairs)

    def profile(self, *, grey: bool) -> bytes | None:
        """Make an ICC profile (version 4) that says the same.

        Args:
            grey: whether it describes one channel and not RGB.
        Returns:
            None for sRGB, which needs none, and for what no profile can say.
        """
        curve = (self.gamma,) if self.gamma is not None else _CURVES.get(self.transfer)
        if self.transfer == _UNSPECIFIED and self.gamma is None:
            curve = _SRGB_CURVE
        known = self.chromaticities or _PRIMARIES.get(self.primaries, _PRIMARIES[_SRGB])
        if self.is_srgb or curve is None or self.beyond_profiles:
            return None
        return _profile(known, curve, grey=grey)


ADOBE_RGB = StatedColour(chromaticities=_ADOBE_RGB, gamma=563 / 256)
"""Adobe RGB (1998), which cameras state by EXIF alone."""


_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
"""As the header of a profile must have it (ICC.1:2022, section 7.2.16)."""


def _profile(known: Chromaticities, curve: tuple[float, ...], *, grey: bool) -> bytes:
    points = np.array([[x, y, 1 - x - y] for x, y in _pairs(known)], np.float64)
    white: npt.NDArray[np.float64] = points[0] / points[0, 1]
    matrix: npt.NDArray[np.float64] = points[1:].T
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = _BRADFORD @ _D50 / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    matrix = adaptation @ matrix
    name = "Grey" if grey else "RGB"
    tags = {
        b"desc": _text(f"{name} as stated by the source file"),
        b"cprt": _text("No copyright"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(adaptation.ravel()),
    }
    response = b"para" + bytes(4) + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0)
    response += _fixed(np.array(curve))
    if grey:
        tags[b"kTRC"] = response
    else:
        for column, letter in enumerate((b"r", b"g", b"b")):
            tags[letter + b"XYZ"] = _xyz(matrix[:, column])
            tags[letter + b"TRC"] = response
    return _assembled(tags, b"GRAY" if grey else b"RGB ")


def _pairs(values: Chromaticities) -> list[tuple[float, float]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for signature, data in tags.items():
        table += signature + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s", size, 0x04200000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(_D50)
    return head.ljust(128, b"\0") + table + body


def _fixed(values: npt.NDArray[np.float64]) -> bytes:
    return np.rint(values * 65536).astype(">i4").tobytes()


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(data), 28) + data
