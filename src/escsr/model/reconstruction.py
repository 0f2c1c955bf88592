"""From features to an image: all upsamplers but those that have a file of their own.

Each takes features, the LR image and the size to make; most look at the features alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.family.configuration import ESCConfig
from escsr.family.weight_shapes import enlarging_steps
from escsr.model.local_deformable_attention import LocalAttentionReconstruction
from escsr.model.local_texture import LocalTextureHead
from escsr.shapes import FeatureMap, ImageBatch


def build_reconstruction(config: ESCConfig) -> nn.Module:
    """The last part of a network.

    Returns:
        A module of (B, C, h, w) features, the (B, 3, H, W) image and the size (H', W') to make;
        it gives (B, 3, >= H', >= W'), of which the upper left part is the result.
    """
    dim, scale = config.dim, config.inner_scale
    match config.upsampler:
        case "pixelshuffledirect":
            return Reconstruction(config)
        case "pixelshuffle":
            return PixelShuffleReconstruction(dim, config.upsampler_dim, scale)
        case "nearest+conv":
            return NearestConvReconstruction(dim, scale)
        case "conv+nearest":
            return ConvNearestReconstruction(dim, scale)
        case "dysample":
            return DySampleReconstruction(
                dim, config.upsampler_dim, scale, groups=config.dysample_groups
            )
        case "lte":
            return LocalTextureHead(config)
        case "transpose+conv":
            return TransposeConvReconstruction(dim, scale)
        case "lda":
            return LocalAttentionReconstruction(dim, config.upsampler_dim, scale)
        case "pa_up":
            return PixelAttentionReconstruction(dim, config.upsampler_dim, scale)


class Reconstruction(nn.Module):
    """Turn features into the enlarged image and add the enlarged input.

    ``PixelShuffle(Conv3x3(features)) + enlarge(lr_image)``.

    Source: ESC, arXiv:2503.06671, section 3.1.
    """

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        self.scale = config.inner_scale
        self.image_skip = config.image_skip
        self.to_subpixels = nn.Conv2d(config.dim, 3 * self.scale**2, 3, padding=1)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, H, W) and (B, 3, H, W) -> (B, 3, scale*H, scale*W)."""
        subpixels = self.to_subpixels(features)
        if self.image_skip == "none":
            return F.pixel_shuffle(subpixels, self.scale)
        if self.image_skip == "nearest":
            subpixels = subpixels + lr_image.repeat_interleave(self.scale**2, dim=1)
            return F.pixel_shuffle(subpixels, self.scale)
        # A size rather than a factor: torch.export keeps it exact for dynamic sides.
        enlarged = F.interpolate(lr_image, size=output_size, mode="bicubic")
        return F.pixel_shuffle(subpixels, self.scale) + enlarged


SLOPE = 0.2
"""Of the leaky ReLU between convolutions of an enlarged map."""


class Stack(nn.Module):
    """Layers that turn features into an image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w)."""
        return self.layers(features)


class NearestConvReconstruction(Stack):
    """ESC-Real's: as often as it takes nearest x2, convolution, leaky ReLU; then two convolutions.

    Source: ESC, arXiv:2503.06671, its official code.
    """

    def __init__(self, dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (nn.Upsample(scale_factor=factor), _conv(dim, dim), nn.LeakyReLU(SLOPE))
        ]
        super().__init__(*enlarge, _conv(dim, dim), nn.LeakyReLU(SLOPE), _conv(dim, 3))


class ConvNearestReconstruction(Stack):
    """ESC-Real-M's "nearest+conv": convolution, nearest, leaky ReLU; then two convolutions.

    Source: the official code of ESC-Real-M.
    """

    def __init__(self, dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (_conv(dim, dim), nn.Upsample(scale_factor=factor), nn.LeakyReLU(SLOPE))
        ]
        super().__init__(*enlarge, _conv(dim, dim), nn.LeakyReLU(SLOPE), _conv(dim, 3))


class PixelShuffleReconstruction(Stack):
    """Narrow; as often as it takes convolution and pixel shuffle; a last convolution.

    Source: the official code of ESC-Real-M.
    """

    def __init__(self, dim: int, inner_dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (_conv(inner_dim, inner_dim * factor**2), nn.PixelShuffle(factor))
        ]
        super().__init__(_conv(dim, inner_dim), nn.LeakyReLU(), *enlarge, _conv(inner_dim, 3))


class TransposeConvReconstruction(Stack):
    """Transposed convolutions to three channels, GELU between two of them; a last convolution.

    Each enlarges by 2 or 3; the first of two keeps all channels.

    Source: traiNNer-redux's ESC-Real-M ("transpose+conv").
    """

    def __init__(self, dim: int, scale: int) -> None:
        *before, last = enlarging_steps(scale)
        enlarge = [
            layer for factor in before for layer in (_transposed(dim, dim, factor), nn.GELU())
        ]
        super().__init__(*enlarge, _transposed(dim, 3, last), _conv(3, 3))


class PixelAttentionReconstruction(Stack):
    """As often as it takes nearest, convolution, pixel attention, convolution; a last convolution.

    Source: traiNNer-redux's ESC-Real-M ("pa_up"), after PAN, arXiv:2010.01073.
    """

    def __init__(self, dim: int, inner_dim: int, scale: int) -> None:
        enlarge: list[nn.Module] = []
        for factor in enlarging_steps(scale):
            enlarge += [
                nn.Upsample(scale_factor=factor),
                _conv(dim, inner_dim),
                PixelAttention(inner_dim),
                nn.LeakyReLU(SLOPE),
                _conv(inner_dim, inner_dim),
                nn.LeakyReLU(SLOPE),
            ]
            dim = inner_dim
        super().__init__(*enlarge, _conv(inner_dim, 3))


class PixelAttention(nn.Module):
    """Weigh every value by a gate made of its pixel: ``x * sigmoid(Conv1x1(x))``.

    Source: Zhao et al., "Efficient Image Super-Resolution Using Pixel Attention",
    arXiv:2010.01073, section 3.2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(dim, dim, 1)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return features * torch.sigmoid(self.gate(features))


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _transposed(in_channels: int, out_channels: int, factor: int) -> nn.ConvTranspose2d:
    """Enlarges by 2 with overlapping kernels of 4x4, or by 3 with kernels of 3x3 side by side."""
    if factor == 3:
        return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)


class DySampleReconstruction(nn.Module):
    """From features to an image by ``DySample``, after narrowing them where that is asked for.

    Source: the official code of ESC-Real and ESC-Real-M.
    """

    def __init__(self, dim: int, inner_dim: int, scale: int, *, groups: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(dim, inner_dim, 3, padding=1) if inner_dim != dim else None
        self.sampler = DySample(inner_dim, 3, scale, groups=groups)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w); the image is not looked at."""
        return self.sampler(self._narrowed(features))

    def reach_pixels(self, features: FeatureMap) -> float:
        """How far from a pixel of the features its part of the result looks, in these pixels."""
        around = 0 if self.narrow is None else 1
        # Sub-pixels lie within half a pixel, and interpolation looks one further.
        return float(self.sampler.offsets(self._narrowed(features)).abs().max()) + 1.5 + around

    def _narrowed(self, features: FeatureMap) -> FeatureMap:
        return features if self.narrow is None else F.leaky_relu(self.narrow(features))


class DySample(nn.Module):
    """Sample features where learned offsets say, bilinearly, then mix channels.

    Args:
        in_channels: C; a multiple of ``groups``.
        out_channels: of the result.
        scale: factor per side.
        groups: channels of a group are sampled at the same places.
    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023 (its "lp" style with
    a dynamic scope), as in the official code of ESC-Real.
    Differs: the reference pins memory and so needs an accelerator (tests/model/test_dysample.py).
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int, *, groups: int) -> None:
        super().__init__()
        self.scale, self.groups = scale, groups
        self.offset = nn.Conv2d(in_channels, 2 * groups * scale**2, 1)
        self.scope = nn.Conv2d(in_channels, 2 * groups * scale**2, 1, bias=False)
        self.mix = nn.Conv2d(in_channels, out_channels, 1)
        nn.init.trunc_normal_(self.offset.weight, std=0.02)
        nn.init.zeros_(self.scope.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, out_channels, scale*H, scale*W)."""
        batch, channels, height, width = features.shape
        places = self.places(features)
        grouped = features.reshape(batch * self.groups, channels // self.groups, height, width)
        sampled = F.grid_sample(
            grouped.to(places.dtype),
            places,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        sides = (self.scale * height, self.scale * width)
        return self.mix(sampled.reshape(batch, channels, *sides).to(features.dtype))

    def offsets(self, features: FeatureMap) -> Tensor:
        """What sub-pixels are moved by: (B, 2 * groups * scale^2, H, W), in LR pixels."""
        return 0.5 * self.scope(features).sigmoid() * self.offset(features)

    def places(self, features: FeatureMap) -> Tensor:
        """Where each group is sampled: (B * groups, scale*H, scale*W, 2), x and y in [-1, 1].

        At least float32: in bfloat16, places of pixels from the 128th on would be whole pixels.
        """
        batch, _, height, width = features.shape
        s, g = self.scale, self.groups
        dtype = torch.promote_types(features.dtype, torch.float32)
        moved = self.offsets(features).to(dtype)
        # Channels are ordered (xy, group, sub-row, sub-column).
        moved = moved.reshape(batch, 2, g, s, s, height, width).permute(0, 2, 5, 3, 6, 4, 1)
        # In LR pixels, the centre of pixel 0 at 0.5.
        sub = (torch.arange(s, device=features.device, dtype=dtype) - (s - 1) / 2) / s
        x = torch.arange(width, device=features.device, dtype=dtype)[:, None] + 0.5 + sub
        y = torch.arange(height, device=features.device, dtype=dtype)[:, None] + 0.5 + sub
        x_places = 2 * (moved[..., 0] + x) / width - 1
        y_places = 2 * (moved[..., 1] + y[:, :, None, None]) / height - 1
        places = torch.stack((x_places, y_places), -1)
        return places.reshape(batch * g, height * s, width * s, 2)
