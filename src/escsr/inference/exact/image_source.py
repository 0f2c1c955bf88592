"""An image as a network's body sees it, read rectangle by rectangle."""

import torch
from torch import Tensor

from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.planes import PixelPlanes
from escsr.inference.tiling import Span
from escsr.model.network import ESC
from escsr.model.padding import reflected_positions
from escsr.shapes import ImageBatch


class ImageSource:
    """One of the images that a network sees of the pixels in memory.

    Args:
        pixels: where they come from.
        number: of the image, below ``pixels.num_images``.
        network: whose body reads.
        multiple: both sides are extended by reflection to multiples of so many pixels, and of as
            many as become channels.
        dtype: of what is read.
    """

    def __init__(
        self,
        pixels: PixelPlanes,
        number: int,
        *,
        network: ESC,
        multiple: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._pixels, self._number, self._network = pixels, number, network
        self._dtype, self._device = dtype, device
        self._unshuffle = network.config.unshuffle
        self.size = map_size(
            (pixels.height, pixels.width), multiple=multiple, unshuffle=self._unshuffle
        )

    def entered(self, place: Rectangle) -> Patch:
        """What the body is given for a rectangle of its map."""
        entered = self._network.enter(self.lr_image(place))
        return Patch(features=entered, place=place, size=self.size)

    def lr_image(self, place: Rectangle) -> ImageBatch:
        """The pixels of the image below a rectangle of the map: (1, 3, height, width)."""
        u = self._unshuffle
        rows = _positions(place.top * u, place.bottom * u, self._pixels.height)
        columns = _positions(place.left * u, place.right * u, self._pixels.width)
        image = self._pixels.read(_span_of(rows), _span_of(columns))[self._number, None]
        image = image.index_select(2, rows - rows.min()).index_select(3, columns - columns.min())
        image = image.to(self._device, self._dtype)
        return image.contiguous(memory_format=torch.channels_last)


def map_size(
    image_size: tuple[int, int], *, multiple: int = 1, unshuffle: int = 1
) -> tuple[int, int]:
    """(height, width) of a body's maps for an image of (height, width)."""
    extended = (-(-side // multiple) * multiple for side in image_size)
    height, width = (-(-side // unshuffle) for side in extended)
    return height, width


def _positions(start: int, stop: int, length: int) -> Tensor:
    return reflected_positions(torch.arange(start, stop, device="cpu"), length)


def _span_of(positions: Tensor) -> Span:
    return Span(start=int(positions.min()), stop=int(positions.max()) + 1)
