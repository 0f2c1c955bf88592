"""Reflection of any length."""

import pytest
import torch
import torch.nn.functional as F

from escsr.model.padding import reflect_pad, reflect_pad_to_multiple, reflected_positions
from tests.model.networks import random_image
from tests.oracles.attention import reflected_position


def test_reflection_is_a_triangle_wave():
    """An axis of 4 reads 0 1 2 3 2 1 0 1 2 3 2."""
    assert reflected_positions(torch.arange(11), 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_reflection_walks_to_and_fro(length):
    """For every length and position it leads where walking step by step leads."""
    ours = reflected_positions(torch.arange(40), length).tolist()
    assert ours == [reflected_position(position, length) for position in range(40)]


@pytest.mark.parametrize(("height", "width"), [(5, 7), (9, 6), (8, 8), (16, 5), (13, 24)])
def test_it_is_torchs_reflection_where_torch_can(height, width):
    """Where the padding is shorter than the side, the map equals `F.pad(mode="reflect")`."""
    features = random_image(2, 3, height, width)
    right = F.pad(features, (0, -width % 8, 0, -height % 8), mode="reflect")
    assert torch.equal(reflect_pad_to_multiple(features, 8), right)


@pytest.mark.parametrize(
    ("height", "width", "padded"),
    [(1, 1, (8, 8)), (1, 9, (8, 16)), (2, 3, (8, 8)), (4, 17, (8, 24))],
)
def test_sides_shorter_than_their_padding_are_reflected_again(height, width, padded):
    """The reference stops here with an error; ours repeats the reflection."""
    features = random_image(1, 2, height, width)
    ours = reflect_pad_to_multiple(features, 8)
    assert ours.shape[-2:] == padded
    for row in range(padded[0]):
        for column in range(padded[1]):
            source = features[
                ..., reflected_position(row, height), reflected_position(column, width)
            ]
            assert torch.equal(ours[..., row, column], source)


def test_a_border_on_all_sides_repeats_no_edge():
    """1 2 3 with three more on each side reads 2 3 2 1 2 3 2 1 2, also in the added rows."""
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert reflect_pad(row, 3)[0, 0].tolist() == [[2, 3, 2, 1, 2, 3, 2, 1, 2]] * 7


def test_whole_multiples_are_not_copied():
    """A map that needs no padding comes back itself."""
    features = random_image(1, 2, 8, 16)
    assert reflect_pad_to_multiple(features, 8) is features
