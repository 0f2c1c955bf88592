"""Effective receptive field and local attribution."""

import pytest
import torch
from torch import Tensor, nn

from escsr.analysis.pictures import Patch, affordable_side, kept_bytes_per_pixel
from escsr.analysis.reach import (
    LocalAttribution,
    ReceptiveField,
    blurred,
    detail_of,
    diffusion_index,
    influence_on_middle,
    local_attribution,
    receptive_field,
    shares_within,
)
from escsr.analysis.records import Skipped

from .networks import MIDDLE, plain_convolution, random_image, small_esc

CPU = torch.device("cpu")


def nothing() -> None:
    """What is called after each image."""


def test_the_field_of_a_convolution_is_its_kernel() -> None:
    """3x3 pixels around the middle, all alike, and not one more."""
    found = receptive_field(plain_convolution(), [random_image(9, 9)], nothing)
    assert isinstance(found, ReceptiveField)
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[3:6, 3:6] = 1 / 9
    torch.testing.assert_close(found.field, expected)
    assert found.support_share == pytest.approx(9 / 81)
    assert [found.side_holding(share) for share in (0.1, 0.5, 0.99)] == [1, 3, 3]


def test_the_middle_of_an_enlarged_pixel_is_all_that_became_of_it() -> None:
    """Nearest neighbour: the LR pixel alone, r x r times for each channel."""
    network = nn.Upsample(scale_factor=3)
    influence = influence_on_middle(network, random_image(4, 4))
    expected = torch.zeros(4, 4)
    expected[2, 2] = 3 * 9
    torch.testing.assert_close(influence, expected)


def test_shares_of_a_flat_field_are_areas() -> None:
    """Squares of side 1, 3 and 5 in one of 5x5."""
    shares = shares_within(torch.full((5, 5), 1 / 25))
    assert shares.tolist() == pytest.approx([1 / 25, 9 / 25, 1])


def test_images_of_several_sizes_share_a_square() -> None:
    """As large as the smallest side."""
    images = [random_image(12, 9), random_image(7, 20)]
    found = receptive_field(small_esc(), images, nothing)
    assert isinstance(found, ReceptiveField)
    assert found.field.shape == (7, 7)
    assert found.images == 2
    assert float(found.field.sum()) == pytest.approx(1)


def test_a_network_that_ignores_its_image_has_no_field() -> None:
    """The reason is told instead of a division by zero."""

    class Blind(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image * 0

    found = receptive_field(Blind(), [random_image(8, 8)], nothing)
    assert isinstance(found, Skipped)


@pytest.mark.parametrize(
    ("attribution", "index"),
    [
        (torch.full((4, 5), -0.3), 100),
        (torch.eye(10)[:1], 100 / 10),
        (torch.tensor([1.0, 3.0]), 75),  # the Gini coefficient of (1, 3) is 1/4
    ],
)
def test_the_diffusion_index_by_hand(attribution: Tensor, index: float) -> None:
    """100 for a uniform map, whatever its sign; next to nothing for a single pixel."""
    assert diffusion_index(attribution) == pytest.approx(index)
    single = torch.zeros(100, 100)
    single[3, 4] = -2
    assert diffusion_index(single) == pytest.approx(0.01)


def test_attributions_explain_the_whole_difference() -> None:
    """Completeness of integrated gradients: within 1 % with 50 trapezoids.

    The error is that of the rule of integration and no other: with 3 it is far larger.
    """
    found = local_attribution(small_esc(), random_image(), MIDDLE)
    few = local_attribution(small_esc(), random_image(), MIDDLE, steps=3)
    assert isinstance(few, LocalAttribution)
    assert isinstance(found, LocalAttribution)
    assert found.difference > 0
    assert found.explained == pytest.approx(found.difference, rel=0.01)
    assert found.completeness_error < min(0.01, few.completeness_error / 3)
    assert 0 < found.diffusion_index < 100


def test_the_attribution_of_an_identity_stays_in_its_patch() -> None:
    """What a network does not look at gets nothing."""
    found = local_attribution(nn.Identity(), random_image(), MIDDLE, steps=5)
    assert isinstance(found, LocalAttribution)
    inside = found.attribution[12:20, 12:20].abs().sum()
    assert float(inside / found.attribution.abs().sum()) == pytest.approx(1)


def test_a_patch_without_detail_is_skipped() -> None:
    """A single pixel of the result has no neighbour to differ from."""
    found = local_attribution(nn.Identity(), random_image(), Patch(x=3, y=3, side=1), steps=2)
    assert isinstance(found, Skipped)
    assert "--patch" in found.reason


def test_detail_is_the_length_of_gradients() -> None:
    """By hand: a step of 3 to the right and 4 down has the length 5; a flat patch has none."""
    step = torch.tensor([[0.0, 3.0], [4.0, 0.0]])[None, None]
    assert float(detail_of(step)) == pytest.approx(5, abs=2e-3)  # smoothed by 1e-3
    assert float(detail_of(torch.ones(1, 3, 4, 4))) == 0


def test_blurring_keeps_flat_images_and_ends_at_the_image() -> None:
    """The weights of the Gaussian sum to 1, at the borders too."""
    flat = torch.full((1, 3, 6, 7), 0.4)
    torch.testing.assert_close(blurred(flat, 1.2), flat)
    image = random_image(6, 7)
    torch.testing.assert_close(blurred(image, 0), image)
    assert float(blurred(image, 1.2).var()) < float(image.var())


def test_what_does_not_fit_into_memory_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a multiple of 16 pixels, but never below the smallest."""
    network = small_esc()
    per_pixel = kept_bytes_per_pixel(network, CPU)
    assert per_pixel > 3 * 8 * 4  # at least some maps of 8 channels of 4 bytes
    place = "escsr.analysis.pictures.available_memory_bytes"
    for free_bytes, side in (
        (10**15, 200),
        (2.1 * 100**2 * per_pixel, 96),
        (0, 32),
    ):
        monkeypatch.setattr(place, lambda device, free_bytes=free_bytes: free_bytes)
        assert affordable_side(network, CPU, wanted_pixels=200) == side
    monkeypatch.setattr(place, lambda device: None)
    assert affordable_side(network, CPU, wanted_pixels=200) == 200
