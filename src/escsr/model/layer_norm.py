"""LayerNorm over the channels of a feature map."""

import torch
import torch.nn.functional as F
from torch import nn

from escsr.shapes import FeatureMap

EPSILON = 1e-6


class ChannelLayerNorm(nn.Module):
    """Normalise each pixel over its channels: (B, C, H, W) -> (B, C, H, W), eps 1e-6."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Normalise over dimension 1; a channels_last map is normalised without a copy."""
        channels_last = features.permute(0, 2, 3, 1)
        normalised = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, EPSILON)
        return normalised.permute(0, 3, 1, 2)
