"""DySample: enlarge by sampling features at learned places between pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.shapes import FeatureMap, ImageBatch


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
