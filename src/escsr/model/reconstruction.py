"""From features to an image: the door to all upsamplers, and the paper's own."""

import torch.nn.functional as F
from torch import nn

from escsr.family.configuration import ESCConfig
from escsr.model.dysample import DySampleReconstruction
from escsr.model.local_deformable_attention import LocalAttentionReconstruction
from escsr.model.local_texture import LocalTextureHead
from escsr.model.upsamplers import (
    ConvNearestReconstruction,
    NearestConvReconstruction,
    PixelAttentionReconstruction,
    PixelShuffleReconstruction,
    TransposeConvReconstruction,
)
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
