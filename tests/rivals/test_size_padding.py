"""Images are extended to the size that a network is made for, and its result cropped."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from escsr.model.padding import reflect_pad_to_multiple
from escsr.rivals.size_padding import SizePadded


class _Doubling(nn.Module):
    """Nearest-neighbour x2 that remembers what it was given."""

    given: Tensor

    def forward(self, image: Tensor) -> Tensor:
        self.given = image
        return image.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    multiple=st.integers(1, 17),
    minimum=st.integers(0, 50),
    square=st.booleans(),
)
def test_any_image_becomes_a_size_that_the_network_takes(
    height: int, width: int, multiple: int, minimum: int, square: bool
) -> None:
    """Multiples, not below the minimum, square if asked; the result is the image's own part."""
    network = _Doubling()
    padded = SizePadded(network, scale=2, multiple=multiple, minimum=minimum, square=square)
    image = torch.rand(1, 3, height, width)
    assert torch.equal(padded(image), _Doubling()(image))
    given_height, given_width = network.given.shape[-2:]
    assert given_height % multiple == given_width % multiple == 0
    assert min(given_height, given_width) >= max(minimum, 1)
    assert given_height == given_width or not square


def test_a_multiple_alone_pads_as_the_official_tester() -> None:
    """The same function that pads features within the network."""
    network = _Doubling()
    image = torch.rand(1, 3, 20, 33)
    SizePadded(network, scale=2, multiple=16)(image)
    assert torch.equal(network.given, reflect_pad_to_multiple(image, 16))


@pytest.mark.parametrize("size", [(16, 32), (48, 16)])
def test_an_image_of_the_right_size_is_passed_on_as_it_is(size: tuple[int, int]) -> None:
    """Without a copy."""
    network = _Doubling()
    image = torch.rand(1, 3, *size)
    SizePadded(network, scale=2, multiple=16)(image)
    assert network.given is image
