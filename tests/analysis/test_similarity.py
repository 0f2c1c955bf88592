"""Similarity of features by linear CKA, and of attention maps by their cosine."""

import math

import pytest
import torch
from torch import nn

from escsr.analysis.records import Skipped
from escsr.analysis.similarity import (
    AttentionMaps,
    Similarity,
    attention_maps_of,
    attention_similarity,
    cka_matrix,
    evenly,
    feature_similarity,
    summed_cosines,
)
from escsr.model.attention.backends import attend
from escsr.model.window_attention import WindowAttention

from .networks import Rival, random_image, small_esc


def nothing() -> None:
    """What is called after each image."""


def linear_cka(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of two sets of features of the same samples."""
    return float(cka_matrix([first, second])[0, 1])


def test_cka_of_two_columns_is_their_squared_correlation() -> None:
    """By hand: (0, 1, 2) and (0, 2, 1) have the covariance 1, the variances 2 and 2: 1/4."""
    first = torch.tensor([[0.0], [1.0], [2.0]])
    second = torch.tensor([[0.0], [2.0], [1.0]])
    assert linear_cka(first, second) == pytest.approx(1 / 4, abs=1e-12)


def test_cka_does_not_see_rotation_scale_and_offset() -> None:
    """The same features seen from elsewhere are the same features."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(100, 6, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert linear_cka(features, features) == pytest.approx(1, abs=1e-12)
    assert linear_cka(features, 3 * features @ rotation + 5) == pytest.approx(1, abs=1e-12)


def test_cka_of_independent_features_is_about_zero() -> None:
    """Of n samples of C channels chance leaves about C / n: here 4 / 4000."""
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(4000, 4, generator=generator) for _ in range(2))
    assert 0 <= linear_cka(first, second) < 0.005


def test_constant_features_have_no_similarity() -> None:
    """Not a number, neither 0 nor 1, and the others are not spoilt."""
    varied = torch.arange(6.0).reshape(3, 2)
    matrix = cka_matrix([varied, torch.ones(3, 2), varied])
    assert math.isnan(matrix[0, 1])
    assert matrix[0, 2] == pytest.approx(1)


def test_every_layer_of_an_esc_is_compared() -> None:
    """The matrix is symmetric, with ones on its diagonal."""
    images = [random_image(24, 20), random_image(9, 11, seed=1)]
    found = feature_similarity(small_esc(), images, nothing)
    assert isinstance(found, Similarity)
    of_block = ("ffn", "attn", "conv1", "conv2", "out")
    layers = [f"{block}.{name}" for block in (1, 2) for name in of_block]
    assert found.labels == ["first", *layers, "last"]
    assert found.samples == 24 * 20 + 9 * 11
    torch.testing.assert_close(found.matrix, found.matrix.T)
    assert found.matrix.diagonal().tolist() == pytest.approx([1] * 12)
    assert 0 < found.mean_of_pairs < 1


def test_the_blocks_of_a_rival_are_compared() -> None:
    """Whatever layout its features have."""
    found = feature_similarity(Rival().eval(), [random_image(8, 12)], nothing)
    assert isinstance(found, Similarity)
    assert found.labels == ["1", "2", "3"]


def test_a_network_without_blocks_is_skipped_with_the_reason() -> None:
    """One convolution has no sequence of blocks."""
    found = feature_similarity(nn.Conv2d(3, 3, 3), [random_image()], nothing)
    assert isinstance(found, Skipped)
    assert "no sequence of blocks" in found.reason


@pytest.mark.parametrize("bias", ["table", "implicit"])
def test_the_maps_are_those_that_the_network_uses(bias: str) -> None:
    """Times the values they are what attention returns, with either kind of position bias."""
    network, image = small_esc(position_bias=bias), random_image(16, 20)
    maps = attention_maps_of(network, image, most_windows=99)
    assert isinstance(maps, AttentionMaps)
    assert (maps.num_windows, maps.num_heads) == (2 * 2, 2)  # the third column is not whole
    attention = next(m for m in network.modules() if isinstance(m, WindowAttention))
    entered: list[torch.Tensor] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    network(image)
    handle.remove()
    q, k, v = attention.queries_keys_values(entered[0])
    table = attention.position_bias()
    table = table if isinstance(table, torch.Tensor) else table.product()
    expected = attend(q, k, v, table, backend="naive")
    # Windows lie row by row, three in a row; float32 sums of 64 keys.
    torch.testing.assert_close(maps.layers[0](3, 1) @ v[4, 1], expected[4, 1], atol=1e-5, rtol=0)


def test_maps_of_equal_blocks_are_alike() -> None:
    """Cosine 1; and of a map with a quite different one, by hand, 1 / sqrt(2)."""
    same, spread = torch.eye(2), torch.full((2, 2), 0.5)
    maps = AttentionMaps(
        labels=["a", "b", "c"],
        layers=[lambda *_: same, lambda *_: same, lambda *_: spread],
        num_windows=1,
        num_heads=3,
    )
    total, count = summed_cosines(maps)
    expected = torch.tensor([[1, 1, 0.5**0.5], [1, 1, 0.5**0.5], [0.5**0.5, 0.5**0.5, 1]])
    assert count == 3
    torch.testing.assert_close((total / count).float(), expected)


def test_small_images_beside_large_ones_cost_nothing() -> None:
    """Windows are taken where they are whole; a small image adds none."""
    small, large = random_image(5, 30), random_image(16, 16)
    alone = attention_similarity(small_esc(), [large], nothing)
    both = attention_similarity(small_esc(), [small, large], nothing)
    assert isinstance(alone, Similarity)
    assert isinstance(both, Similarity)
    assert alone.samples == both.samples == 4 * 2
    torch.testing.assert_close(alone.matrix, both.matrix)


@pytest.mark.parametrize(
    ("network", "size", "reason"),
    [
        (small_esc(), (7, 40), "no whole window lies inside.*40x7.*8x8"),
        (small_esc(num_blocks=1), (16, 16), "one attention layer"),
        (nn.Conv2d(3, 3, 3), (16, 16), "no two attention layers"),
    ],
)
def test_where_there_are_no_maps_the_reason_is_told(
    network: nn.Module, size: tuple[int, int], reason: str
) -> None:
    """Nothing is made up."""
    found = attention_similarity(network, [random_image(*size)], nothing)
    assert isinstance(found, Skipped)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.reason)


def test_softmax_maps_of_a_rival_are_found() -> None:
    """Equal blocks have equal maps only if they are given the same, so these are not all 1."""
    found = attention_similarity(Rival().eval(), [random_image(6, 6)], nothing)
    assert isinstance(found, Similarity)
    assert found.matrix.shape == (3, 3)
    assert found.matrix.diagonal().tolist() == pytest.approx([1] * 3)


def test_a_choice_is_spread_over_all() -> None:
    """In the middles of equal parts."""
    assert evenly(range(10), 2) == [2, 7]
    assert evenly([3, 4], 5) == [3, 4]
