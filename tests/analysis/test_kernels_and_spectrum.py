"""Large and dynamic kernels, and the spectra of features."""

import pytest
import torch
from torch import nn

from escsr.analysis.kernels import (
    DynamicKernels,
    LargeKernels,
    asymmetry,
    dynamic_kernels,
    large_kernels,
)
from escsr.analysis.records import Skipped
from escsr.analysis.spectrum import BINS, Spectra, radial_amplitude, relative_log, spectra

from .networks import Rival, random_image, small_esc


def nothing() -> None:
    """What is called after each image."""


def test_geometric_averaging_leaves_a_symmetric_kernel() -> None:
    """Of a random one: far from symmetric before, symmetric after."""
    found = large_kernels(small_esc())
    assert isinstance(found, LargeKernels)
    assert found.is_averaged
    assert asymmetry(found.stored) > 0.5
    assert asymmetry(found.used) == pytest.approx(0, abs=1e-6)
    for turned in (found.used.rot90(1, (-2, -1)), found.used.flip(-1)):
        torch.testing.assert_close(turned, found.used)


def test_asymmetry_by_hand() -> None:
    """One corner of 3x3 has an average of 1/4 at each corner: sqrt(9/16 + 3/16) from it."""
    corner = torch.zeros(3, 3)
    corner[0, 0] = 1
    assert asymmetry(corner) == pytest.approx(0.75**0.5)


def test_a_decomposed_kernel_is_used_as_it_is_stored() -> None:
    """As in ESC-FP, which averages nothing."""
    found = large_kernels(small_esc(large_kernel="decomposed"))
    assert isinstance(found, LargeKernels)
    assert not found.is_averaged
    assert found.used.shape == (4, 1, 5, 5)
    torch.testing.assert_close(found.stored, found.used)


def test_unshared_kernels_are_counted() -> None:
    """The ablation has one per layer; the first is shown."""
    found = large_kernels(small_esc(share_large_kernel=False))
    assert isinstance(found, LargeKernels)
    assert found.count == 4


def test_images_make_kernels_of_their_own() -> None:
    """Equal images equal ones, different images different ones."""
    network, first, second = small_esc(), random_image(), random_image(12, 40, seed=1) * 0.3
    same = dynamic_kernels(network, [first, first], ["a", "b"], nothing)
    other = dynamic_kernels(network, [first, second], ["a", "b"], nothing)
    assert isinstance(same, DynamicKernels)
    assert isinstance(other, DynamicKernels)
    assert same.layers == ["1.conv1", "1.conv2", "2.conv1", "2.conv2"]
    assert same.kernels.shape == (4, 2, 4, 3, 3)
    assert same.spread == pytest.approx([0] * 4, abs=1e-6)
    assert other.spread is not None
    assert min(other.spread) > 0


def test_one_image_has_no_spread() -> None:
    """Not zero: unknown."""
    found = dynamic_kernels(small_esc(), [random_image()], ["a"], nothing)
    assert isinstance(found, DynamicKernels)
    assert found.spread is None


def test_the_spread_by_hand() -> None:
    """Kernels of 1 and of 3 are 1 from their mean, and sqrt((1 + 9) / 2) in size."""
    kernels = torch.ones(1, 2, 4, 3, 3)
    kernels[:, 1] = 3
    found = DynamicKernels(layers=["a"], images=["x", "y"], kernels=kernels)
    assert found.spread == pytest.approx([5**-0.5])


@pytest.mark.parametrize(
    ("network", "reason"),
    [(Rival(), "no ESC"), (small_esc(dynamic_kernel=False), "no dynamic kernels")],
)
def test_networks_without_dynamic_kernels_are_skipped(network: nn.Module, reason: str) -> None:
    """With the reason."""
    found = dynamic_kernels(network, [random_image()], ["a"], nothing)
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_the_spectrum_of_white_noise_is_flat() -> None:
    """Within 0.03 of a power of ten: some hundred directions and 64 channels are averaged."""
    noise = torch.randn(1, 64, 64, 48, generator=torch.Generator().manual_seed(0))
    profile = relative_log(radial_amplitude(noise))
    assert profile[0] == 0
    assert float(profile.abs().max()) < 0.03


def test_the_spectrum_of_a_constant_is_all_low() -> None:
    """The window spreads it over neighbouring frequencies, which belong to the lowest rings."""
    profile = relative_log(radial_amplitude(torch.full((1, 2, 64, 64), 0.7)))
    # Beyond the lowest two rings a symmetric Hann window leaves 1e-3 and falls on.
    assert float(profile[2:].max()) < -2.5
    assert float(profile[BINS // 2 :].max()) < -4


def test_blurring_lowers_high_frequencies() -> None:
    """The finer, the more."""
    noise = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(noise, 3, 1, 1)
    profile = relative_log(radial_amplitude(smooth))
    assert profile[0] > profile[4] > profile[8]


def test_attention_and_convolution_of_an_esc_are_told_apart() -> None:
    """Each with its mean over layers; images too small for a spectrum are left out."""
    images = [random_image(40, 32), random_image(8, 64)]
    found = spectra(small_esc(), images, nothing)
    assert isinstance(found, Spectra)
    assert found.images == 1
    kinds = [layer.kind for layer in found.layers]
    assert (kinds.count("attention"), kinds.count("convattn")) == (2, 4)
    assert found.mean_of("block") is None
    mean = found.mean_of("attention")
    assert mean is not None
    assert mean.shape == (BINS,)


def test_small_images_have_no_spectrum() -> None:
    """The reason is told."""
    found = spectra(small_esc(), [random_image(31, 90)], nothing)
    assert isinstance(found, Skipped)
    assert "32 pixels" in found.reason
