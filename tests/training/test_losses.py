"""The losses, by hand and against slow float64 versions of their formulas."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from escsr.training.step import charbonnier_loss, fft_loss, l1_loss, l2_loss

# Sums of 100 float32 values of size 1 carry an error of a few units in the 7th digit.
FLOAT32 = 1e-5


@pytest.fixture
def batches() -> tuple[Tensor, Tensor]:
    """A result and a truth, (2, 3, 5, 6): odd and even sides."""
    generator = torch.Generator().manual_seed(0)
    sr_batch, hr_batch = torch.rand(2, 2, 3, 5, 6, generator=generator)
    return sr_batch, hr_batch


def constant(difference: float) -> tuple[Tensor, Tensor]:
    """A result that is everywhere so much brighter than the truth, (1, 3, 4, 4)."""
    hr_batch = torch.full((1, 3, 4, 4), 0.25)
    return hr_batch + difference, hr_batch


def test_a_constant_distance_by_hand() -> None:
    """A distance of 0.5: L1 is 0.5, L2 0.25, Charbonnier sqrt(0.25 + 1e-6)."""
    sr_batch, hr_batch = constant(0.5)
    assert float(l1_loss(sr_batch, hr_batch)) == pytest.approx(0.5)
    assert float(l2_loss(sr_batch, hr_batch)) == pytest.approx(0.25)
    expected = math.sqrt(0.25 + 1e-6)
    assert float(charbonnier_loss(sr_batch, hr_batch)) == pytest.approx(expected, rel=1e-6)


def test_the_spectrum_of_a_constant_is_one_number() -> None:
    """4x4 values of 0.5 sum to 8 at frequency 0; of 4x3 frequencies with 2 parts, 1 is not 0."""
    assert float(fft_loss(*constant(0.5))) == pytest.approx(8 / 24)


def test_charbonnier_is_l1_but_for_its_round_tip() -> None:
    """Never below, nowhere more than epsilon above, and epsilon itself at 0."""
    assert float(charbonnier_loss(*constant(0.0))) == pytest.approx(1e-3)
    for difference in (0.0, 1e-4, 1e-2, 0.3):
        sr_batch, hr_batch = constant(difference)
        above = float(charbonnier_loss(sr_batch, hr_batch) - l1_loss(sr_batch, hr_batch))
        # The differences themselves are rounded to about 1e-8.
        assert -1e-7 <= above <= 1e-3 + 1e-7


def test_charbonnier_has_a_gradient_of_0_where_there_is_no_difference() -> None:
    """Where that of L1 jumps."""
    sr_batch, hr_batch = constant(0.0)
    sr_batch.requires_grad_()
    charbonnier_loss(sr_batch, hr_batch).backward()
    assert sr_batch.grad is not None
    assert torch.count_nonzero(sr_batch.grad) == 0


def test_the_losses_equal_their_formulas_in_float64(batches: tuple[Tensor, Tensor]) -> None:
    """With numpy's own Fourier transform."""
    difference = (batches[0].double() - batches[1].double()).numpy()
    spectrum = np.fft.rfft2(difference)
    expected = {
        l1_loss: np.abs(difference).mean(),
        l2_loss: (difference**2).mean(),
        charbonnier_loss: np.sqrt(difference**2 + 1e-6).mean(),
        fft_loss: np.concatenate([np.abs(spectrum.real), np.abs(spectrum.imag)]).mean(),
    }
    for loss, value in expected.items():
        assert float(loss(*batches)) == pytest.approx(value, rel=FLOAT32), loss.__name__
