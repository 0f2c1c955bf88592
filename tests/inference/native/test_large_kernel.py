"""The large kernel in the frequency domain against a convolution tap by tap in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from escsr.inference.native.calls import convolve
from escsr.inference.native.large_kernel import KernelSpectra
from escsr.inference.native.matrix import padded_length
from tests.inference.native.formulas import array, largest_error, random_map
from tests.oracles.attention import Array
from tests.oracles.convolution import as_full_kernel, symmetric_kernel
from tests.oracles.convolution import convolve as convolved

pytestmark = pytest.mark.usefixtures("kernels")

ROUNDING = 2e-6
"""Of the largest value: a transform of 1024 numbers and back is 20 additions deep."""


def by_spectra(
    weights: tuple[Tensor, ...], dynamic: Tensor | None, features: Tensor
) -> tuple[Tensor, Tensor]:
    """(C, H, W) -> (C, H, W) by the kernel, and what it left in the channels that fill a vector."""
    channels, height, width = features.shape
    padded = padded_length(channels)
    spectra = KernelSpectra(weights, padded)
    values = torch.zeros(height * width, padded)
    values[:, :channels] = features.flatten(1).t()
    result = torch.full_like(values, torch.nan)
    if dynamic is not None:
        dynamic = torch.cat((dynamic.flatten(1), torch.zeros(padded - channels, 9)))
    convolve(
        values,
        size=(height, width),
        kernel_size=spectra.kernel_size,
        dense=spectra.dense,
        classes=spectra.classes,
        places=spectra.places,
        depthwise=spectra.with_dynamic(dynamic),
        result=result,
    )
    return result[:, :channels].t().reshape(features.shape), result[:, channels:]


def with_dynamic(kernel: Array, dynamic: Tensor | None) -> Array:
    """The dynamic kernel added to the middle of (C, C, K, K)."""
    if dynamic is not None:
        middle = slice(kernel.shape[-1] // 2 - 1, kernel.shape[-1] // 2 + 2)
        kernel[:, :, middle, middle] += as_full_kernel(array(dynamic))
    return kernel


def assert_convolves(
    kind: str, size: int, shape: tuple[int, int, int], has_dynamic: bool, seed: int = 0
) -> None:
    """A kernel of a kind and side, on a map of random numbers."""
    channels = shape[0]
    features = random_map(*shape, seed=seed)
    dynamic = random_map(channels, 3, 3, seed=seed + 1) if has_dynamic else None
    if kind == "dense":
        dense = symmetric_kernel(array(random_map(channels, channels, size, size, seed=seed + 2)))
        weights, full = (torch.from_numpy(dense).float(),), dense
    else:
        spatial = random_map(channels, 1, size, size, seed=seed + 2)
        weights = (torch.zeros(channels, channels, 1, 1), spatial)
        full = as_full_kernel(array(spatial[:, 0]))
    ours, rest = by_spectra(weights, dynamic, features)
    expected = convolved(array(features), with_dynamic(np.array(full), dynamic))
    assert largest_error(ours, expected) < ROUNDING
    assert not rest.any()


@pytest.mark.parametrize("has_dynamic", [False, True])
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
@pytest.mark.parametrize("size", [3, 5, 9, 13, 17])
def test_spectra_convolve_as_taps_do(kind: str, size: int, has_dynamic: bool) -> None:
    """Three tiles across, the last one cut off; channels that do not fill a vector."""
    assert_convolves(kind, size, (6, 35, 70), has_dynamic)


@settings(max_examples=12)
@given(
    kind=st.sampled_from(["dense", "depthwise"]),
    size=st.sampled_from([3, 7, 13, 17]),
    channels=st.sampled_from([1, 4, 8, 16, 17]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    has_dynamic=st.booleans(),
)
def test_spectra_convolve_maps_of_all_sizes(
    kind: str, size: int, channels: int, height: int, width: int, has_dynamic: bool
) -> None:
    """Also maps smaller than the kernel, and channels of one and of several vectors."""
    assert_convolves(kind, size, (channels, height, width), has_dynamic)


def test_places_of_a_class_share_a_spectrum() -> None:
    """At most eight of them; every place is in one class."""
    spectra = KernelSpectra((torch.zeros(1, 1, 5, 5),), padded_length(1))
    assert sorted(spectra.places.tolist()) == list(range(32 * 32))
    counts = spectra.classes.diff()
    assert counts.min() >= 1
    assert counts.max() == 8
    # Distances of 0 to 16 in each direction, and which is which does not matter.
    assert len(counts) == 17 * 18 // 2


def test_an_impulse_gives_the_kernel_back() -> None:
    """At every place of the map, also across the seams of tiles."""
    dense = symmetric_kernel(array(random_map(1, 1, 13, 13)))
    for place in (0, 5, 19, 20, 39):
        features = torch.zeros(1, 40, 40)
        features[0, place, place] = 1
        ours, _ = by_spectra((torch.from_numpy(dense).float(),), None, features)
        assert largest_error(ours, convolved(array(features), dense)) < ROUNDING
