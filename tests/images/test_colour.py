"""Luma and premultiplied colour, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from escsr.errors import ImageValueError
from escsr.images.colour import premultiply, rgb_to_luma, unpremultiply


def test_luma_of_black_white_and_red_is_bt601() -> None:
    """Black is 16, white 235, pure red 81.481 of 255."""
    rgb = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.float64)
    luma = rgb_to_luma(rgb.T.reshape(1, 3, 1, 3)) * 255
    assert torch.allclose(luma.flatten(), torch.tensor([16.0, 235.0, 81.481]).double(), atol=1e-5)


def test_luma_refuses_what_is_not_rgb() -> None:
    """A grey or integer tensor is refused with its shape."""
    with pytest.raises(ImageValueError, match=r"\(1, 1, 2, 2\)"):
        rgb_to_luma(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ImageValueError, match="uint8"):
        rgb_to_luma(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


@given(colour=st.floats(0, 1), alpha=st.floats(1 / 65535, 1))
def test_unpremultiplying_undoes_premultiplying(colour: float, alpha: float) -> None:
    """Wherever something is visible, the straight colour comes back."""
    colours = torch.full((1, 3, 1, 1), colour, dtype=torch.float64)
    alphas = torch.full((1, 1, 1, 1), alpha, dtype=torch.float64)
    back = unpremultiply(premultiply(colours, alphas), alphas)
    assert torch.allclose(back, colours, atol=1e-12, rtol=0)


def test_invisible_pixels_become_black_and_not_nan() -> None:
    """Where alpha is 0, the result is 0."""
    result = unpremultiply(torch.ones(1, 3, 2, 2), torch.zeros(1, 1, 2, 2))
    assert torch.equal(result, torch.zeros(1, 3, 2, 2))
