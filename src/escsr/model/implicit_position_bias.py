"""ESC-RIB's position bias: a small network of the place makes factors of low rank."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.model.position_bias import PositionFactors


class ImplicitPositionBias(nn.Module):
    """Factors of the bias, made from a token's place in its window by a small network.

    Source: the rank-factorised implicit neural bias of ESC-RIB, arXiv:2603.06738.
    """

    def __init__(
        self, num_heads: int, window_size: int, *, rank: int, hidden_dim: int, frequencies: int
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.frequencies = frequencies
        self.to_hidden = nn.Parameter(torch.empty(2 + 4 * frequencies, hidden_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(1, hidden_dim))
        self.to_query = nn.Parameter(torch.empty(num_heads, hidden_dim, rank))
        self.to_key = nn.Parameter(torch.empty(num_heads, hidden_dim, rank))
        for matrix in (self.to_hidden, self.to_query, self.to_key):
            nn.init.normal_(matrix, std=0.05)

    def forward(self) -> PositionFactors:
        """The factors of a window's tokens, row-major: (N, T, R) each."""
        places = place_features(self.window_size, self.frequencies, like=self.to_hidden)
        hidden = F.relu(places @ self.to_hidden + self.hidden_bias)
        # The rank's root keeps the sum of R products as large as one.
        rank = self.to_query.shape[-1]
        return PositionFactors(hidden @ self.to_query * rank**-0.5, hidden @ self.to_key)


def place_features(window_size: int, frequencies: int, *, like: Tensor) -> Tensor:
    """What a network is told of each place in a window.

    Args:
        window_size: w.
        frequencies: F; the i-th is 2^i, without pi.
        like: gives dtype and device.
    Returns:
        (w^2, 2 + 4F): x and y in (-1, 1), then sin x, sin y, cos x, cos y of each frequency.
    """
    w = window_size
    # In half precision high frequencies would see each place somewhere else.
    dtype = torch.promote_types(like.dtype, torch.float32)
    centre = 2 * (torch.arange(w, device=like.device, dtype=dtype) + 0.5) / w - 1
    places = torch.stack((centre.repeat(w), centre.repeat_interleave(w)), -1)
    features = [places]
    for exponent in range(frequencies):
        features += [(2**exponent * places).sin(), (2**exponent * places).cos()]
    return torch.cat(features, -1).to(like.dtype)
