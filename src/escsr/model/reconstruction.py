"""From features to an image: the upsampler and the image skip."""

import torch.nn.functional as F
from torch import nn

from escsr.model.config import ESCConfig
from escsr.shapes import FeatureMap, ImageBatch


class Reconstruction(nn.Module):
    """Turn features into the enlarged image and add the enlarged input.

    ``PixelShuffle(Conv3x3(features)) + enlarge(lr_image)``.

    Source: ESC, arXiv:2503.06671, section 3.1.
    """

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.image_skip = config.image_skip
        self.to_subpixels = nn.Conv2d(config.dim, 3 * config.scale**2, 3, padding=1)

    def forward(self, features: FeatureMap, lr_image: ImageBatch) -> ImageBatch:
        """(B, C, H, W) and (B, 3, H, W) -> (B, 3, scale*H, scale*W)."""
        subpixels = self.to_subpixels(features)
        if self.image_skip == "nearest":
            subpixels = subpixels + lr_image.repeat_interleave(self.scale**2, dim=1)
            return F.pixel_shuffle(subpixels, self.scale)
        height, width = lr_image.shape[-2:]
        # A size rather than a factor: torch.export keeps it exact for dynamic sides.
        size = (self.scale * height, self.scale * width)
        enlarged = F.interpolate(lr_image, size=size, mode="bicubic")
        return F.pixel_shuffle(subpixels, self.scale) + enlarged
