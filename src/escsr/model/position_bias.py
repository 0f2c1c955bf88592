"""Position biases of window attention.

A position bias is a module without arguments that gives a :data:`Bias`: ESC's is a table, ESC-RIB's
a small network of the place.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class PositionFactors:
    """A position bias as a product: ``bias[n, i, j] = query[n, i] . key[n, j]``.

    Appended to queries and keys, it is part of their dot product, and attention needs no bias.
    """

    query_NTR: Tensor
    """(N, T, R)."""
    key_NTR: Tensor
    """(N, T, R)."""

    def appended_to(self, q_BNTD: Tensor, k_BNTD: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose plain product, times 1, is ``q k^T / sqrt(D) + bias``.

        Args:
            q_BNTD: (windows, N, T, D), not scaled.
            k_BNTD: likewise.
        Returns:
            Both as (windows, N, T, D + R).
        """
        windows = q_BNTD.shape[0]
        scaled = q_BNTD * q_BNTD.shape[-1] ** -0.5
        factors = (self.query_NTR.to(q_BNTD.dtype), self.key_NTR.to(k_BNTD.dtype))
        query, key = (factor.expand(windows, -1, -1, -1) for factor in factors)
        return torch.cat((scaled, query), -1), torch.cat((k_BNTD, key), -1)

    def product(self) -> Tensor:
        """The bias of every (query, key) pair of a window: (N, T, T)."""
        return self.query_NTR @ self.key_NTR.transpose(-2, -1)


Bias: TypeAlias = Tensor | PositionFactors
"""(N, T, T), added to the scores; or its factors."""


class TablePositionBias(nn.Module):
    """One learned number per head and relative offset.

    Source: ESC, arXiv:2503.06671, section 3.3; drawn from N(0, 0.001) as in its official code.
    """

    def __init__(self, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.table = nn.Parameter(torch.empty(num_heads, (2 * window_size - 1) ** 2))
        nn.init.normal_(self.table, std=0.001)

    def forward(self) -> Tensor:
        """The bias of every (query, key) pair of a window: (N, T, T)."""
        return expand_bias(self.table, self.window_size)


def expand_bias(bias_table: Tensor, window_size: int) -> Tensor:
    """The bias of every (query, key) pair of a window, from the table of relative offsets.

    Args:
        bias_table: (N, (2w-1)^2); the entry of an offset is
            ``(key_row - query_row + w-1) * (2w-1) + (key_col - query_col + w-1)``.
        window_size: w.
    Returns:
        (N, w^2, w^2), row = query, tokens row-major.
    Source: the official code; the sign is key minus query, the transpose of Swin's.
    """
    w = window_size
    row = torch.arange(w, device=bias_table.device)
    offset = row[None, :] - row[:, None] + (w - 1)  # (query, key) along one axis
    index = offset[:, None, :, None] * (2 * w - 1) + offset[None, :, None, :]
    return bias_table[:, index.reshape(w * w, w * w)]


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
    """The features of each place in a window.

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
