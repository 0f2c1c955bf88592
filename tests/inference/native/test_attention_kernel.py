"""Window attention by the native kernel against the formula in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from escsr.inference.native.calls import LOG2_E, attend, lanes
from tests.inference.native.formulas import array, largest_error, random_map, window_attention

pytestmark = pytest.mark.usefixtures("kernels")


def attended(qkv: Tensor, table: Tensor, size: tuple[int, int], window_size: int) -> Tensor:
    """By the kernel: (H*W, C)."""
    result = torch.full((qkv.shape[0], qkv.shape[1] // 3), torch.nan)
    table = (table * LOG2_E).contiguous()
    attend(qkv, table, size=size, window_size=window_size, attended=result)
    return result


def random_table(heads: int, window_size: int, spread: float = 1.0) -> Tensor:
    """Biases of all offsets."""
    return random_map(heads, 2 * window_size - 1, 2 * window_size - 1, seed=9, spread=spread)


def assert_equals_the_formula(
    qkv: Tensor, table: Tensor, size: tuple[int, int], window_size: int
) -> None:
    """Within float32's rounding of the scores.

    A score s is rounded by 6e-8 |s|, and again where the bias is added and the highest subtracted;
    a weight is off by as much of itself. 1e-6 is for the exponential and the sums.
    """
    expected, largest_score = window_attention(array(qkv), array(table), size, window_size)
    error = largest_error(attended(qkv, table, size, window_size), expected)
    assert error < 1e-6 + 2.4e-7 * largest_score


@pytest.mark.parametrize(
    ("window_size", "heads", "head_dim", "size"),
    [
        (16, 4, 16, (32, 48)),
        (16, 2, 8, (37, 21)),
        (16, 1, 32, (16, 17)),
        (32, 2, 16, (33, 40)),
        (48, 1, 16, (48, 5)),
    ],
)
def test_attention_is_the_formulas(
    window_size: int, heads: int, head_dim: int, size: tuple[int, int]
) -> None:
    """Of all head dimensions, sides that are whole windows and sides that are not."""
    qkv = random_map(size[0] * size[1], 3 * heads * head_dim)
    assert_equals_the_formula(qkv, random_table(heads, window_size), size, window_size)


def test_windows_of_any_number_of_vectors_are_the_formulas() -> None:
    """8, 16 and 24 with vectors of 8; 16, 32 and 48 with vectors of 16."""
    for window_size in (lanes(), 2 * lanes(), 3 * lanes()):
        qkv = random_map(20 * 13, 3 * 8)
        assert_equals_the_formula(qkv, random_table(1, window_size), (20, 13), window_size)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3), (4, 31)])
def test_tiny_sides_are_reflected_again_and_again(size: tuple[int, int]) -> None:
    """A side of 1 is replicated, one of 2 alternates."""
    qkv = random_map(size[0] * size[1], 3 * 16)
    assert_equals_the_formula(qkv, random_table(2, 16), size, 16)


@settings(max_examples=10)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_attention_is_the_formulas_for_all_sizes(height: int, width: int) -> None:
    """Windows that hang over the end at the right, below, or both."""
    qkv = random_map(height * width, 3 * 8, seed=height)
    assert_equals_the_formula(qkv, random_table(1, 16), (height, width), 16)


@pytest.mark.parametrize("factor", [50.0, 1e4])
def test_huge_scores_saturate(factor: float) -> None:
    """With q and k so much larger a query sees one key; nothing overflows.

    Scores reach 10^4 and 10^9 then; the winner is the same as in float64 but where two keys are
    nearer than rounding, which these numbers avoid.
    """
    qkv = random_map(20 * 20, 3 * 16)
    qkv[:, :32] *= factor
    table = random_table(1, 16)
    expected, largest_score = window_attention(array(qkv), array(table), (20, 20), 16)
    ours = attended(qkv, table, (20, 20), 16)
    assert ours.isfinite().all()
    if factor < 100:
        assert largest_error(ours, expected) < 2.4e-7 * largest_score
    # A weighted mean of values stays between them.
    assert ours.abs().max() <= qkv[:, 32:].abs().max() * (1 + 1e-6)


def test_scores_far_below_the_first_ones_are_harmless() -> None:
    """Biases of -30 and +30 beside each other, more than float32 resolves."""
    table = 30 * random_table(2, 16).sign()
    assert_equals_the_formula(random_map(18 * 30, 3 * 32), table, (18, 30), 16)


def test_equal_inputs_give_themselves() -> None:
    """Where all values are equal, so is every mean of them, whatever the weights."""
    qkv = torch.ones(17 * 19, 3 * 32)
    result = attended(qkv, random_table(2, 16, spread=30), (17, 19), 16)
    # A sum of 256 weights, and another of as many products.
    assert (result - 1).abs().max() < 1e-6


@pytest.mark.parametrize("part", [0, 1, 2])
def test_nan_in_queries_keys_or_values_is_not_hidden(part: int) -> None:
    """A mean over weights that are no numbers is none either; broken weights must show."""
    qkv = random_map(16 * 16, 3 * 16)
    qkv[5, 16 * part] = torch.nan
    result = attended(qkv, random_table(1, 16), (16, 16), 16)
    expected, _ = window_attention(array(qkv), array(random_table(1, 16)), (16, 16), 16)
    assert np.array_equal(np.isnan(array(result)), np.isnan(expected))
