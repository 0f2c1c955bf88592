"""Kernels are what their formulas say, and are drawn as often as the settings say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from escsr.training.degradation import (
    draw_blur_kernels,
    draw_final_kernels,
    gaussian_kernels,
    plateau_kernels,
    sinc_kernels,
)
from escsr.training.recipe import DegradationRecipe, DegradationStageRecipe

SIDES = torch.tensor([7, 13, 21])


def numbers(*values: float) -> Tensor:
    """A row of float64."""
    return torch.tensor(values, dtype=torch.float64)


def drawn(count: int, **stage: object) -> Tensor:
    """Kernels of a stage with these settings."""
    chosen = DegradationStageRecipe.model_validate(stage)
    return draw_blur_kernels(np.random.default_rng(0), count, DegradationRecipe(), chosen)


def side_of(kernel: Tensor) -> int:
    """Of the square in the middle that is not zero."""
    rows = kernel.abs().amax(dim=1).nonzero()
    return int(rows.max() - rows.min()) + 1


@pytest.mark.parametrize("kind", ["gaussian", "plateau", "sinc"])
def test_a_kernel_sums_to_1_within_its_side(kind: str) -> None:
    """Outside of 7, 13 and 21 pixels all is zero; the brightness of images stays."""
    sigmas, angles, betas = (
        numbers(2, 3, 1.5)[:, None].expand(3, 2),
        numbers(0, 1, 2),
        numbers(1, 2, 1),
    )
    made = {
        "gaussian": lambda: gaussian_kernels(sigmas, angles, betas, SIDES, side_pixels=21),
        "plateau": lambda: plateau_kernels(sigmas, angles, betas, SIDES, side_pixels=21),
        "sinc": lambda: sinc_kernels(numbers(1, 2, 3), SIDES, side_pixels=21),
    }[kind]()
    assert made.shape == (3, 21, 21)
    torch.testing.assert_close(made.sum(dim=(1, 2)), numbers(1, 1, 1))
    assert [side_of(kernel) for kernel in made] == [7, 13, 21]


def test_a_round_gaussian_falls_as_the_formula_says() -> None:
    """One pixel from the middle, sigma 2: exp(-1/8) of it; at (3, 4), exp(-25/8)."""
    (kernel,) = gaussian_kernels(
        numbers(2, 2)[None], numbers(0.7), numbers(1), torch.tensor([21]), side_pixels=21
    )
    assert float(kernel[10, 11] / kernel[10, 10]) == pytest.approx(math.exp(-1 / 8))
    assert float(kernel[13, 14] / kernel[10, 10]) == pytest.approx(math.exp(-25 / 8))
    torch.testing.assert_close(kernel, kernel.T)
    torch.testing.assert_close(kernel, kernel.flip(0))


def test_a_long_gaussian_has_the_covariance_of_its_sigmas_and_angle() -> None:
    """Sigma 2 along 30 degrees, 1 across: moments are the matrix R diag(4, 1) R^T."""
    angle = math.pi / 6
    (kernel,) = gaussian_kernels(
        numbers(2, 1)[None], numbers(angle), numbers(1), torch.tensor([21]), side_pixels=21
    )
    rows, columns = torch.meshgrid(*[torch.arange(21) - 10.0] * 2, indexing="ij")
    cosine, sine = math.cos(angle), math.sin(angle)
    # What is cut off at 5 sigma, and the sampling, change a moment by 1e-4.
    assert float((kernel * columns**2).sum()) == pytest.approx(4 * cosine**2 + sine**2, abs=1e-3)
    assert float((kernel * rows**2).sum()) == pytest.approx(4 * sine**2 + cosine**2, abs=1e-3)
    assert float((kernel * rows * columns).sum()) == pytest.approx(3 * cosine * sine, abs=1e-3)


def test_the_exponent_of_a_generalised_gaussian_shapes_its_flank() -> None:
    """Two pixels from the middle with sigma 2, q is 1: exp(-1/2) whatever beta; at 4, 4^beta."""
    betas = numbers(0.5, 1, 3)
    kernels = gaussian_kernels(
        numbers(2, 2).expand(3, 2), numbers(0, 0, 0), betas, torch.tensor([21] * 3), side_pixels=21
    )
    ratios = kernels[:, 10] / kernels[:, 10, 10:11]
    torch.testing.assert_close(ratios[:, 12], numbers(*[math.exp(-0.5)] * 3))
    torch.testing.assert_close(ratios[:, 14], torch.exp(-(4**betas) / 2))


def test_a_plateau_falls_as_the_formula_says() -> None:
    """Sigma 2, beta 1.5: at 2 pixels 1/2 of the middle, at 4 pixels 1/9."""
    (kernel,) = plateau_kernels(
        numbers(2, 2)[None], numbers(0), numbers(1.5), torch.tensor([21]), side_pixels=21
    )
    assert float(kernel[10, 12] / kernel[10, 10]) == pytest.approx(1 / 2)
    assert float(kernel[14, 10] / kernel[10, 10]) == pytest.approx(1 / 9)


def test_a_sinc_is_the_first_bessel_function_over_the_distance() -> None:
    """With a cut-off of 1, J1(1) = 0.4400506 at one pixel and 1/2 in the middle, by tables."""
    (kernel,) = sinc_kernels(numbers(1), torch.tensor([21]), side_pixels=21)
    assert float(kernel[10, 11] / kernel[10, 10]) == pytest.approx(2 * 0.4400506, abs=1e-7)
    torch.testing.assert_close(kernel, kernel.T)


def test_a_sinc_lets_low_frequencies_pass_and_stops_high_ones() -> None:
    """A cut-off of pi/2, a wave of pi/4 and one of 3 pi/4 along a row; 21 pixels leak a little."""
    (kernel,) = sinc_kernels(numbers(math.pi / 2), torch.tensor([21]), side_pixels=21)
    steps = torch.arange(21, dtype=torch.float64) - 10
    passed, stopped = ((kernel.sum(dim=0) * torch.cos(w * steps)).sum() for w in (0.785, 2.356))
    assert float(passed) == pytest.approx(1, abs=0.1)
    assert float(stopped) == pytest.approx(0, abs=0.1)


def test_every_odd_side_from_7_to_21_is_drawn() -> None:
    """And no other; wide ones, since the flanks of narrow ones vanish."""
    assert {side_of(kernel) for kernel in drawn(300, sigma=(3, 3))} == set(range(7, 22, 2))


def test_a_tenth_of_the_kernels_rings() -> None:
    """Of all kinds, only sincs have negative values; 4000 draws leave 1.5 % of doubt."""
    share = (drawn(4000).amin(dim=(1, 2)) < 0).double().mean()
    assert float(share) == pytest.approx(0.1, abs=0.015)


def test_a_third_of_the_other_kernels_is_longer_than_wide() -> None:
    """Anisotropic ones: 0.25 + 0.03 + 0.03 of them; round kernels equal their transpose."""
    kernels = drawn(4000, sinc_chance=0)
    is_long = (kernels - kernels.transpose(1, 2)).abs().amax(dim=(1, 2)) > 1e-9
    assert float(is_long.double().mean()) == pytest.approx(0.31, abs=0.025)


def test_half_of_the_plateaus_have_an_exponent_of_1() -> None:
    """Their range starts there; the other half lies above it: at 2 sigma less than 1/5."""
    only_plateaus = (0, 0, 0, 0, 1, 0)
    kernels = drawn(1000, sinc_chance=0, kernel_chances=only_plateaus, sigma=(1, 1))
    ratios = kernels[:, 10, 12] / kernels[:, 10, 10]
    share = ((ratios - 1 / 5).abs() < 1e-9).double().mean()
    assert float(share) == pytest.approx(0.5, abs=0.05)
    assert float(ratios.max()) < 1 / 5 + 1e-9


def test_small_sincs_keep_more_than_large_ones() -> None:
    """Cut-offs start at pi/3 below a side of 13, else at pi/5: seen by the middle, w^2 / 4 pi."""
    kernels = drawn(2000, sinc_chance=1)
    sides = [side_of(kernel) for kernel in kernels]
    middles = kernels[:, 10, 10].tolist()
    lowest_large = min(m for m, side in zip(middles, sides, strict=True) if side >= 13)
    lowest_small = min(m for m, side in zip(middles, sides, strict=True) if side < 13)
    # Before normalisation: (pi/5)^2 / 4 pi = 0.031 and (pi/3)^2 / 4 pi = 0.087.
    assert lowest_large < 0.045
    assert lowest_small > 0.055


def test_a_fifth_of_the_last_filters_changes_nothing() -> None:
    """0.8 are sincs; the others are a 1 in the middle."""
    kernels = draw_final_kernels(np.random.default_rng(0), 2000, DegradationRecipe())
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(2000, dtype=torch.float64))
    share = (kernels[:, 10, 10] == 1).double().mean()
    assert float(share) == pytest.approx(0.2, abs=0.03)
