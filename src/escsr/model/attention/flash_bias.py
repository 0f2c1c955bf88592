"""FlashBias: a learned position bias as a product of low-rank factors.

Appended to queries and keys, the factors make the bias part of the dot product, and attention runs
on a kernel that knows of none and reads no (N, T, T). What a rank below the window's T tokens drops
is an error; how large it is, is always said.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from escsr.errors import ConfigurationError
from escsr.model.position_bias import PositionFactors


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRule:
    """The rank of the bias: numbers per token; at most T, which is exact.

    Raises:
        ConfigurationError: a rank or a bound that cannot be.
    """

    rank: int | None = None
    """The rank itself; None lets ``largest_bias_error`` decide."""
    largest_bias_error: float = 0.1
    """Bound on the error of any entry of the bias: the smallest rank that keeps it.

    The shipped esc-tiny, with windows of 256 tokens, then takes ranks of 117 to 209, and no pixel
    moved by a whole level of 8 bits on a photograph; 0.001 would take 253 to 256, that is all
    (docs/attention-back-ends.md)."""

    def __post_init__(self) -> None:
        if self.rank is not None and not _is_rank(self.rank):
            raise ConfigurationError(
                f"The rank of a factorised bias is {self.rank!r}; it must be a whole number, >= 1."
            )
        if not self.largest_bias_error >= 0:
            raise ConfigurationError(
                f"largest_bias_error is {self.largest_bias_error}; it must be a number, >= 0."
            )


class FactorisedPositionBias(nn.Module):
    """A fixed bias as U sqrt(S) and V sqrt(S) of its singular value decomposition, per head.

    Args:
        bias_NTT: (N, T, T), row = query.
        rule: chooses the rank, one for all heads.
    Source: FlashBias, as ESC's official code uses it after fine-tuning (arXiv:2603.06738).
    Differs: nothing is fine-tuned here, so a low rank costs more
    (tests/model/attention/test_flash_bias.py).
    """

    def __init__(self, bias_NTT: Tensor, rule: RankRule) -> None:
        super().__init__()
        exact = bias_NTT.detach().double()
        left, strengths, right = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(exact))  # pyright: ignore[reportUnknownMemberType]
        root = strengths.sqrt()
        query, key = left * root[:, None, :], right.transpose(-2, -1) * root[:, None, :]
        self.rank = min(rule.rank or _smallest_rank(query, key, exact, rule), exact.shape[-1])
        self.query_NTR = nn.Buffer(query[..., : self.rank].to(bias_NTT.dtype).contiguous())
        self.key_NTR = nn.Buffer(key[..., : self.rank].to(bias_NTT.dtype).contiguous())
        product = self.forward().product().double()
        self.bias_error = float((product - exact).abs().max())
        """Largest error of an entry of the bias."""
        self.probability_error = float((product.softmax(-1) - exact.softmax(-1)).abs().max())
        """Largest error of a softmax probability, where queries and keys say nothing."""

    def forward(self) -> PositionFactors:
        """The factors of a window's tokens: (N, T, R) each."""
        return PositionFactors(self.query_NTR, self.key_NTR)


def _is_rank(rank: object) -> bool:
    return isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1


def _smallest_rank(query: Tensor, key: Tensor, exact: Tensor, rule: RankRule) -> int:
    """By halving: a larger rank has a smaller error, but for details of single entries."""
    too_small, enough = 0, exact.shape[-1]
    while enough - too_small > 1:
        rank = (too_small + enough) // 2
        product = query[..., :rank] @ key[..., :rank].transpose(-2, -1)
        if float((product - exact).abs().max()) <= rule.largest_bias_error:
            enough = rank
        else:
            too_small = rank
    return enough
