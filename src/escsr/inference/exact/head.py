"""From the features of the last block to rows of the result."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from escsr.family.configuration import ESCConfig
from escsr.inference.exact.feature_store import FeatureMapStore
from escsr.inference.exact.image_source import ImageSource
from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.tiling import AxisScale, Span
from escsr.model.dysample import DySampleReconstruction
from escsr.model.local_deformable_attention import (
    LocalAttentionReconstruction,
    Stretch,
    attention_reach,
)
from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.model.reconstruction import Reconstruction
from escsr.model.upsamplers import Stack
from escsr.shapes import FeatureMap, ImageBatch

SKIP_REACH = 3
"""How far the 7x7 of ESC-Real's features from the image looks."""
_BICUBIC_REACH = 2
_TEXTURE_REACH = 3
"""A convolution around the neighbours of a query, and one pixel to be nearest to."""
_FIRST_DYSAMPLE_MARGIN = 4


@dataclass(frozen=True, slots=True)
class ExactHead:
    """Makes rectangles of a result whose features are known everywhere."""

    network: ESC
    """Folded."""
    image: ImageSource
    """What the features were made of."""
    features: FeatureMapStore
    """Of the last block."""
    scales: tuple[AxisScale, AxisScale]
    """From the image to the result, by rows and by columns."""
    device: torch.device
    """Of the network."""

    def result(self, rows: tuple[int, int], columns: list[tuple[int, int]]) -> ImageBatch:
        """Make rows of the result.

        Args:
            rows: of the map, first and one past the last.
            columns: likewise; each stretch is worked on alone.
        Returns:
            (1, 3, rows of the result, its width) float32 on the CPU, not clamped.
        """
        parts: list[Tensor] = []
        for left, right in columns:
            core = Rectangle(top=rows[0], bottom=rows[1], left=left, right=right)
            parts.append(self._part(core).float().cpu())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)

    def _part(self, core: Rectangle) -> ImageBatch:
        reconstruction = self.network.reconstruction
        margin = margin_of(reconstruction)
        deep = self._deep(core.grown(margin, self.features.size))
        if isinstance(reconstruction, DySampleReconstruction):
            needed = math.ceil(reconstruction.reach_pixels(deep.features)) + 1
            if needed > margin:
                deep = self._deep(core.grown(needed, self.features.size))
        image = self.image.lr_image(deep.place)
        if isinstance(reconstruction, LocalTextureHead):
            return self._textured(reconstruction, deep, image, core)
        scale = self.network.config.inner_scale
        if isinstance(reconstruction, LocalAttentionReconstruction):
            rows = Stretch(start=deep.place.top, length=self.features.size[0])
            columns = Stretch(start=deep.place.left, length=self.features.size[1])
            result = reconstruction.enlarge_part(deep.features, rows, columns)
        else:
            size = (deep.place.height * scale, deep.place.width * scale)
            result = reconstruction(deep.features, image, size)
        top, left = (core.top - deep.place.top) * scale, (core.left - deep.place.left) * scale
        down, across = (axis.total_output for axis in self.scales)
        height = min(core.bottom * scale, down) - core.top * scale
        width = min(core.right * scale, across) - core.left * scale
        return result[:, :, top : top + height, left : left + width]

    def _deep(self, place: Rectangle) -> Patch:
        """What ``ESC.features`` gives, for a rectangle."""
        network, size = self.network, self.features.size
        last = self.features.read(place.grown(1, size), self.device)
        deep = last.apply(lambda x: network.deep(network.norm(x)), radius=1).crop(place)
        reach = 1 if network.feature_skip is None else SKIP_REACH
        entered = self.image.entered(place.grown(reach, size))
        deep = entered.apply(network.shallow, radius=1).plus(deep)
        if network.feature_skip is None:
            return deep
        return entered.apply(network.feature_skip, radius=SKIP_REACH).plus(deep)

    def _textured(
        self, head: LocalTextureHead, deep: Patch, image: FeatureMap, core: Rectangle
    ) -> ImageBatch:
        down, across = self.scales
        views = (
            down.view_from(
                deep.place.top, Span(start=core.top, stop=min(core.bottom, down.total_length))
            ),
            across.view_from(
                deep.place.left, Span(start=core.left, stop=min(core.right, across.total_length))
            ),
        )
        return head.enlarge_part(deep.features, image, *views)


def margin_of(reconstruction: nn.Module) -> int:
    """How many pixels of the features around a core its result depends on.

    Of DySample, which looks where it is told, a first guess.
    """
    if isinstance(reconstruction, Reconstruction):
        return _BICUBIC_REACH if reconstruction.image_skip == "bicubic" else 1
    if isinstance(reconstruction, DySampleReconstruction):
        return _FIRST_DYSAMPLE_MARGIN
    if isinstance(reconstruction, LocalTextureHead):
        return _TEXTURE_REACH
    if isinstance(reconstruction, LocalAttentionReconstruction):
        return reconstruction.reach_pixels
    assert isinstance(reconstruction, Stack)
    return _margin_of_stack(reconstruction.layers)


def largest_margin(config: ESCConfig) -> int:
    """No head of a network looks further; of DySample, as it is at first."""
    if config.upsampler == "lda":
        return attention_reach(config.inner_scale) + (config.upsampler_dim != config.dim)
    return _FIRST_DYSAMPLE_MARGIN if config.upsampler == "dysample" else _TEXTURE_REACH


def _margin_of_stack(layers: nn.Sequential) -> int:
    """Each convolution looks one pixel far, at the size that the map has by then.

    A transposed one of 4x4 pixels looks one far at the size before it, one of 3x3 not at all.
    """
    reach, enlarged = 0.0, 1.0
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            reach += layer.kernel_size[0] // 2 / enlarged
        elif isinstance(layer, nn.Upsample):
            assert isinstance(layer.scale_factor, float)
            enlarged *= layer.scale_factor
        elif isinstance(layer, nn.PixelShuffle):
            enlarged *= layer.upscale_factor
        elif isinstance(layer, nn.ConvTranspose2d):
            reach += (layer.kernel_size[0] > layer.stride[0]) / enlarged
            enlarged *= layer.stride[0]
    return math.ceil(reach - 1e-6)


def stretches(length: int, side: int) -> list[tuple[int, int]]:
    """Cut an axis into as few stretches of at most ``side`` as can be, of about one length."""
    count = math.ceil(length / side)
    return list(pairwise(index * length // count for index in range(count + 1)))
