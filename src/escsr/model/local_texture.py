"""From features to an image of any size: the Local Texture Estimator (LTE).

Coordinates: an axis runs from -1 to 1, and pixel i of n has its centre at ``-1 + (2i+1)/n``. They
are computed in float64, so that rounding never decides which pixel is nearest, and narrowed then.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.errors import ImageSizeError, ImageValueError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig
from escsr.model.autocast import without_autocast
from escsr.shapes import FeatureMap, ImageBatch

TRAINED_SCALE = 4.0
"""The largest factor of training; beyond it the cell stays as it was there."""
QUERIES_AT_ONCE = 2048
"""Pixels that go through the MLP together on a CPU: their values stay in its cache."""
QUERIES_AT_ONCE_ELSEWHERE = 16384
"""On other devices, which want more work at a time; about 8 KB each."""
_LEAST_AREA = 1e-9


class LocalTextureHead(nn.Module):
    """Predict the pixels of an image of any size from the features around them.

    Each pixel of the features gives amplitudes and frequencies of waves. A query sums the waves of
    its four nearest pixels, each through the MLP, and averages the four results by area; then the
    bilinearly enlarged image is added.

    Whatever the size of the output, the head needs less than 0.5 GB beside features and output: it
    works on pieces of the image, and on ``queries_at_once`` pixels of a piece at a time.

    Differs: the reference clamps its images to [0, 1]; here, as of all networks of this package,
    the result is not clamped.

    Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022,
    as the official code of ESC, arXiv:2503.06671, has it.
    """

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        self.texture_dim = config.texture_dim
        self.queries_at_once: int | None = None  # None lets the device decide
        self.amplitude = nn.Conv2d(config.dim, config.texture_dim, 3, padding=1)
        self.frequency = nn.Conv2d(config.dim, config.texture_dim, 3, padding=1)
        self.phase = nn.Linear(2, config.texture_dim // 2, bias=False)
        self.decoder = _build_decoder(config)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """Enlarge images to a size, which may differ from theirs by any factor in each axis.

        Args:
            features: (B, C, H, W), made of (lr_image - 0.5) / 0.5.
            lr_image: (B, 3, H, W) RGB in [0, 1].
            output_size: (H', W'), at least 1 each.
        Returns:
            (B, 3, H', W') on the scale of ``lr_image``, not clamped.
        Raises:
            ImageSizeError: a side of ``output_size`` is not at least 1.
        """
        if min(output_size) < 1:
            raise ImageSizeError(
                f"output_size is {tuple(output_size)}; both height and width must be at least 1."
            )
        rows, columns = (
            AxisView.whole(length=length, output_length=output_length)
            for length, output_length in zip(features.shape[-2:], output_size, strict=True)
        )
        return self.enlarge_part(features, lr_image, rows, columns)

    def enlarge_part(
        self, features: FeatureMap, lr_image: ImageBatch, rows: AxisView, columns: AxisView
    ) -> ImageBatch:
        """Make a part of the result from a part of the image, as ``forward`` makes the whole.

        Args:
            features: (B, C, H, W) of the part, made of (lr_image - 0.5) / 0.5.
            lr_image: (B, 3, H, W) RGB in [0, 1], the part.
            rows: which of the result's rows, and where the part lies in the image.
            columns: likewise.
        Returns:
            (B, 3, rows.num_pixels, columns.num_pixels) on the scale of ``lr_image``, not clamped.
        """
        dtype, sizes = _precise(features.dtype), features.shape[-2:]
        views = (rows, columns)
        axes = [neighbours_of(view, size, dtype) for view, size in zip(views, sizes, strict=True)]
        cell = [
            cell_in_half_pixels(view.output_length, view.length, trained_scale=TRAINED_SCALE)
            for view in views
        ]
        kernel = self._texture_kernel(dtype)
        phase = self._phase(torch.tensor(cell, dtype=dtype, device=features.device))
        size = [view.num_pixels for view in views]
        output = lr_image.new_empty(*lr_image.shape[:2], *size)
        sides = [output_side(*lengths) for lengths in zip(size, sizes, strict=True)]
        for row_slice in pieces(size[0], sides[0]):
            for column_slice in pieces(size[1], sides[1]):
                part = (axes[0].part(row_slice), axes[1].part(column_slice))
                place = output[:, :, row_slice, column_slice]
                self._fill(place, features, lr_image, part, kernel, phase)
        return output

    def query(
        self, features: FeatureMap, lr_image: ImageBatch, coordinates: Tensor, cell: Tensor
    ) -> Tensor:
        """Predict pixels at any places, as training wants it: everything takes a gradient.

        Waves of the whole features are in memory, which patches can afford.

        Args:
            features: (B, C, H, W), made of (lr_image - 0.5) / 0.5.
            lr_image: (B, 3, H, W) RGB in [0, 1].
            coordinates: (B, Q, 2), the centres (row, column) of the queries, [-1, 1] from edge to
                edge of the image.
            cell: (B, 2), height and width of a query's pixel in the same unit; 2 / output size.
        Returns:
            (B, Q, 3) on the scale of ``lr_image``.
        Raises:
            ImageValueError: coordinates or cell have another shape.
        """
        batch, _, height, width = features.shape
        _require_queries(coordinates, cell, batch)
        dtype = _precise(features.dtype)
        textures = self._textures(F.pad(features, (1, 1, 1, 1)), self._texture_kernel(dtype))
        rows = find_neighbours(coordinates[..., 0], height, dtype)
        columns = find_neighbours(coordinates[..., 1], width, dtype)
        half_pixels = cell.to(dtype) * torch.tensor((height, width), dtype=dtype).to(cell.device)
        phase = self._phase(half_pixels)[:, None]
        first = torch.arange(batch, device=features.device)[:, None] * (height * width)
        predicted = self._predict(textures, width, first, (rows, columns), phase)
        pixels = lr_image.permute(0, 2, 3, 1).reshape(-1, lr_image.shape[1]).to(dtype)
        return interpolate(pixels, width, first, (rows, columns)) + 0.5 * predicted

    def _fill(
        self,
        output: ImageBatch,
        features: FeatureMap,
        lr_image: ImageBatch,
        axes: "tuple[AxisNeighbours, AxisNeighbours]",
        kernel: tuple[Tensor, Tensor],
        phase: Tensor,
    ) -> None:
        """Write a rectangle of the output, image by image, a few queries at a time."""
        (top, bottom), (left, right) = (axis.span() for axis in axes)
        width, device = right - left, features.device
        at_once = self.queries_at_once or _queries_at_once(device)
        rows = axes[0].counted_from(top).as_column().to(device)
        columns = axes[1].counted_from(left).to(device)
        for number in range(features.shape[0]):
            window = cut_with_margin(features[number, None], top, bottom, left, right)
            textures = self._textures(window, kernel)
            image = lr_image[number, :, top:bottom, left:right]
            pixels = image.permute(1, 2, 0).reshape(-1, image.shape[0]).to(textures.dtype)
            for chosen in chunks(output.shape[2:], at_once):
                some = (rows.part(chosen[0]), columns.part(chosen[1]))
                predicted = self._predict(textures, width, 0, some, phase)
                result = interpolate(pixels, width, 0, some) + 0.5 * predicted
                output[number, :, chosen[0], chosen[1]] = result.permute(2, 0, 1)

    def _predict(
        self,
        textures: Tensor,
        width: int,
        first: Tensor | int,
        axes: "tuple[AxisNeighbours, AxisNeighbours]",
        phase: Tensor,
    ) -> Tensor:
        """The average over four neighbours of what the MLP makes of their waves: (…, 3)."""
        rows, columns = axes
        corners = [(row, column) for row in (0, 1) for column in (0, 1)]
        areas = [
            (rows.offset[row] * columns.offset[column]).abs() + _LEAST_AREA
            for row, column in corners
        ]
        whole_area = areas[0] + areas[1] + areas[2] + areas[3]
        result: Tensor | float = 0.0
        for number, (row, column) in enumerate(corners):
            index = rows.nearest[row] * width + columns.nearest[column] + first
            offset = (rows.offset[row][..., None], columns.offset[column][..., None])
            prediction = self._decode(rows_at(textures, index), offset, phase)
            # Each is weighed by the area at the opposite corner: the nearer, the more.
            result = result + prediction * (areas[3 - number] / whole_area)[..., None]
        assert isinstance(result, Tensor)
        return result

    def _decode(self, texture: Tensor, offset: tuple[Tensor, Tensor], phase: Tensor) -> Tensor:
        """``MLP(amplitude * [cos, sin](pi (frequency . offset + phase)))``: (…, 3)."""
        amplitude, row_frequency, column_frequency = (
            texture[..., channels] for channels in self._parts_of_texture()
        )
        turns = torch.addcmul(phase, row_frequency, offset[0])
        angle = torch.addcmul(turns, column_frequency, offset[1]) * math.pi
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1) * amplitude
        dtype = next(self.decoder.parameters()).dtype
        return self.decoder(waves.to(dtype)).to(texture.dtype)

    def _parts_of_texture(self) -> tuple[slice, slice, slice]:
        """Where amplitudes, row frequencies and column frequencies lie among the channels."""
        dim, half = self.texture_dim, self.texture_dim // 2
        return slice(0, dim), slice(dim, dim + half), slice(dim + half, dim + 2 * half)

    def _textures(self, window: FeatureMap, kernel: tuple[Tensor, Tensor]) -> Tensor:
        """(B, C, H+2, W+2) -> (B*H*W, 2*texture_dim): amplitudes, row and column frequencies."""
        with without_autocast(window.device):
            return convolve_precisely(window.to(kernel[0].dtype), *kernel)

    def _texture_kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both convolutions in one; frequencies, stored wave by wave, come axis by axis."""
        weight, frequency = self.amplitude.weight, self.frequency.weight
        bias, frequency_bias = self.amplitude.bias, self.frequency.bias
        assert bias is not None and frequency_bias is not None
        by_axis = frequency.reshape(-1, 2, *frequency.shape[1:]).transpose(0, 1)
        weight = torch.cat((weight, by_axis.reshape(frequency.shape)))
        bias = torch.cat((bias, frequency_bias.reshape(-1, 2).transpose(0, 1).flatten()))
        return weight.to(dtype), bias.to(dtype)

    def _phase(self, cell: Tensor) -> Tensor:
        """The phases that a cell of (…, 2) half pixels adds, in turns: (…, texture_dim / 2)."""
        return (cell[..., None, :] * self.phase.weight.to(cell.dtype)).sum(dim=-1)


def _build_decoder(config: ESCConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    dim = config.texture_dim
    for _ in range(config.texture_mlp_layers):
        layers += [nn.Linear(dim, config.texture_mlp_dim), nn.ReLU()]
        dim = config.texture_mlp_dim
    return nn.Sequential(*layers, nn.Linear(dim, 3))


def _precise(dtype: torch.dtype) -> torch.dtype:
    """What frequencies and places are computed in: half precision would turn waves about."""
    return torch.promote_types(dtype, torch.float32)


def _queries_at_once(device: torch.device) -> int:
    return QUERIES_AT_ONCE if device.type == "cpu" else QUERIES_AT_ONCE_ELSEWHERE


def _require_queries(coordinates: Tensor, cell: Tensor, batch: int) -> None:
    if coordinates.dim() != 3 or coordinates.shape[0] != batch or coordinates.shape[2] != 2:
        raise ImageValueError(
            f"coordinates have the shape {tuple(coordinates.shape)}; they must be (B, Q, 2) with "
            f"B = {batch} as of the features, (row, column) of each query."
        )
    if cell.shape != (batch, 2):
        raise ImageValueError(
            f"cell has the shape {tuple(cell.shape)}; it must be ({batch}, 2): height and width of "
            "a query's pixel, one for each image."
        )


_WINDOW_PIXELS = 124
"""Side of the piece of the LR image, but for its margins, whose waves are in memory at a time.

Pieces depend on the sizes of images alone. A convolution rounds differently in a piece of another
shape, and a cosine of a high frequency would make more of it; the number of queries at a time may
change without that.
"""
_OUTPUT_PIXELS = 4096
"""Longest side of a piece of the output."""


def output_side(output_length: int, length: int) -> int:
    """How many output pixels need at most ``_WINDOW_PIXELS`` of the input, by an axis."""
    fitting = max(1, _WINDOW_PIXELS * output_length // length)
    return min(fitting, _OUTPUT_PIXELS, output_length)


def pieces(length: int, side: int) -> Iterator[slice]:
    """Cut an axis into stretches of ``side`` pixels; the last may be shorter."""
    return (slice(first, min(first + side, length)) for first in range(0, length, side))


def chunks(size: torch.Size, queries_at_once: int) -> Iterator[tuple[slice, slice]]:
    """Cut (height, width) into groups of whole rows as far as they fit, else into parts of one."""
    columns = min(size[1], max(1, queries_at_once))
    rows = max(1, queries_at_once // columns)
    return (
        (row_slice, column_slice)
        for row_slice in pieces(size[0], rows)
        for column_slice in pieces(size[1], columns)
    )


def cut_with_margin(
    features: FeatureMap, top: int, bottom: int, left: int, right: int
) -> FeatureMap:
    """A rectangle with one pixel more on each side, zero beyond the image."""
    height, width = features.shape[-2:]
    window = features[:, :, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
    margins = (left == 0, right == width, top == 0, bottom == height)
    return F.pad(window, [int(is_beyond) for is_beyond in margins])


_SHIFT = 1e-6
"""Added to a shifted coordinate; it decides where a query lies halfway between two pixels."""
_EDGE = 1 - 1e-6
"""Shifted coordinates are clamped to plus or minus this."""


@dataclass(frozen=True, slots=True)
class AxisNeighbours:
    """The pixels of one axis that answer each query; every tensor has the queries' shape."""

    nearest: tuple[Tensor, Tensor]
    """The pixel nearest to the query shifted by half a pixel to the front, and to the back."""
    offset: tuple[Tensor, Tensor]
    """From the centre of that pixel to the query, in half pixels; floating point."""
    between: tuple[Tensor, Tensor]
    """The pixels to interpolate between, at the front and at the back; alike at a border."""
    share: Tensor
    """Of the pixel at the back in the interpolation, 0 to 1; floating point."""

    def part(self, chosen: slice) -> "AxisNeighbours":
        """Those of some queries of a row of them."""
        return self._each(lambda values: values[chosen])

    def as_column(self) -> "AxisNeighbours":
        """A row of queries as a column: broadcast with another axis's row, they make a grid."""
        return self._each(lambda values: values[:, None])

    def to(self, device: torch.device) -> "AxisNeighbours":
        """The same on a device."""
        return self._each(lambda values: values.to(device))

    def counted_from(self, first: int) -> "AxisNeighbours":
        """The same with pixels counted from ``first``, as in a window cut out of the image."""
        (near_front, near_back), (front, back) = self.nearest, self.between
        return AxisNeighbours(
            (near_front - first, near_back - first),
            self.offset,
            (front - first, back - first),
            self.share,
        )

    def span(self) -> tuple[int, int]:
        """The first pixel that any of the queries needs, and the one after the last."""
        pixels = torch.stack((*self.nearest, *self.between))
        return int(pixels.min()), int(pixels.max()) + 1

    def _each(self, change: Callable[[Tensor], Tensor]) -> "AxisNeighbours":
        return AxisNeighbours(
            (change(self.nearest[0]), change(self.nearest[1])),
            (change(self.offset[0]), change(self.offset[1])),
            (change(self.between[0]), change(self.between[1])),
            change(self.share),
        )


def find_neighbours(coordinates: Tensor, length: int, dtype: torch.dtype) -> AxisNeighbours:
    """Find the pixels that answer queries along one axis.

    Args:
        coordinates: of the queries, any shape, in [-1, 1].
        length: number of pixels.
        dtype: of the offsets and shares.
    Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022,
    and its official code: shift by plus or minus 1/n, add 1e-6, clamp, take the nearest.
    """
    if coordinates.device.type != "mps":  # which has no float64; patches are small enough there
        coordinates = coordinates.double()
    nearest = (
        _nearest(coordinates - 1 / length, length),
        _nearest(coordinates + 1 / length, length),
    )
    offset = (
        _offset(coordinates, nearest[0], length).to(dtype),
        _offset(coordinates, nearest[1], length).to(dtype),
    )
    position = ((coordinates + 1) * (length / 2) - 0.5).clamp(0, length - 1)
    front = position.floor().long()
    between = (front, (front + 1).clamp(max=length - 1))
    return AxisNeighbours(nearest, offset, between, (position - front).to(dtype))


def neighbours_of(view: AxisView, num_features: int, dtype: torch.dtype) -> AxisNeighbours:
    """The pixels at hand that answer each pixel of a part of the result: on the CPU.

    Args:
        view: the part.
        num_features: pixels at hand, from ``view.start`` on; more than the image has where it was
            extended.
        dtype: of offsets and shares.
    """
    position = 2 * torch.arange(view.first, view.stop, dtype=torch.float64) + 1
    share = view.length / num_features
    coordinates = position / view.output_length * share - 2 * view.start / num_features - 1
    return find_neighbours(coordinates, num_features, dtype)


def cell_in_half_pixels(output_length: int, length: int, *, trained_scale: float) -> float:
    """The size of an output pixel in half pixels of the input, from which the phase is made.

    It is 2 / scale; beyond the trained scale the cell is multiplied by scale / trained_scale and
    so stays as it was there.
    """
    return 2.0 / min(output_length / length, trained_scale)


def interpolate(
    pixels: Tensor, width: int, first: Tensor | int, axes: tuple[AxisNeighbours, AxisNeighbours]
) -> Tensor:
    """Sample images bilinearly; beyond the outermost centres the border is repeated.

    Args:
        pixels: (n, C), rows of width ``width`` one after another.
        width: of the image that the columns are counted in.
        first: place of an image's first pixel in ``pixels``, broadcast with the queries.
        axes: rows and columns of the queries, which broadcast to (…).
    Returns:
        (…, C).
    """
    rows, columns = axes
    front, back = (
        torch.lerp(
            rows_at(pixels, row * width + columns.between[0] + first),
            rows_at(pixels, row * width + columns.between[1] + first),
            columns.share[..., None],
        )
        for row in rows.between
    )
    return torch.lerp(front, back, rows.share[..., None])


def rows_at(table: Tensor, index: Tensor) -> Tensor:
    """Look rows of a table up: (n, C) at (…) -> (…, C)."""
    return table.index_select(0, index.flatten()).reshape(*index.shape, -1)


def _nearest(shifted: Tensor, length: int) -> Tensor:
    clamped = (shifted + _SHIFT).clamp(-_EDGE, _EDGE)
    return ((clamped + 1) * (length / 2)).floor().long().clamp(0, length - 1)


def _offset(coordinates: Tensor, pixel: Tensor, length: int) -> Tensor:
    centre = (2 * pixel.to(coordinates.dtype) + 1) / length - 1
    return (coordinates - centre) * length


def convolve_precisely(features: FeatureMap, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve without padding; where cuDNN would round float32 to TF32's 11 bits, by products.

    A flag of cuDNN's would do too, but it is one for the whole process, other threads included.

    Args:
        features: (B, C, H, W).
        weight: (O, C, K, K), of the same dtype.
        bias: (O), of the same dtype.
    Returns:
        (B * (H-K+1) * (W-K+1), O), pixels in row-major order.
    """
    if features.device.type == "cuda":
        return convolve_by_products(features, weight, bias)
    maps = F.conv2d(features, weight, bias)
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def convolve_by_products(features: FeatureMap, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as ``convolve_precisely``, as a matrix product for each tap of the kernel.

    PyTorch computes these in full float32 unless set otherwise.
    """
    size = weight.shape[-1]
    height, width = (side - size + 1 for side in features.shape[-2:])
    pixels = features.permute(0, 2, 3, 1)
    total = bias
    for row in range(size):
        for column in range(size):
            shifted = pixels[:, row : row + height, column : column + width]
            tap = weight[:, :, row, column].T
            total = torch.addmm(total, shifted.reshape(-1, tap.shape[0]), tap)
    return total
