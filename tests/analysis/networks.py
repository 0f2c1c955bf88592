"""Small networks to look into, ours and others."""

import torch
from torch import Tensor, nn

from escsr.analysis.pictures import Patch
from escsr.model import ESC, ESCConfig

MIDDLE = Patch(x=12, y=12, side=8)
"""Of an image of 32x32 pixels."""


def small_esc(**overrides: object) -> ESC:
    """Two blocks of two ConvAttention layers, windows of 8, always the same random weights."""
    values: dict[str, object] = {
        "scale": 2,
        "dim": 8,
        "pdim": 4,
        "num_blocks": 2,
        "num_conv_layers": 2,
        "window_size": 8,
        "num_heads": 2,
        "large_kernel_size": 5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ESC(ESCConfig.from_dict(values | overrides))
        for parameter in network.parameters():  # dynamic kernels, too, start other than zero
            nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def random_image(height: int = 32, width: int = 32, *, seed: int = 0) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, height, width, generator=generator)


class TokenAttention(nn.Module):
    """Attention of all pixels to all, on tokens, as many transformers write it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, 2 * dim)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(1, T, C) -> (1, T, C)."""
        q, k = self.projection(tokens).chunk(2, -1)
        return tokens + self.softmax(q[:, None] @ k[:, None].transpose(-2, -1))[:, 0] @ tokens


class Rival(nn.Module):
    """A foreign network of three blocks of tokens, at x2."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(TokenAttention(8) for _ in range(3))
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 1), nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3, 2H, 2W)."""
        features = self.head(image)
        tokens = features.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.tail(tokens.transpose(1, 2).reshape(features.shape))


def plain_convolution(kernel_size: int = 3) -> nn.Conv2d:
    """One convolution of three channels, no weight of which is zero, at x1."""
    layer = nn.Conv2d(3, 3, kernel_size, padding=kernel_size // 2).requires_grad_(False)
    nn.init.constant_(layer.weight, 0.1)
    return layer
