"""Layer by layer over parts, the same as in one piece."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.errors import CheckpointError, ConfigurationError
from escsr.model import ESC, ESCConfig
from escsr.upscaling import Upscaler
from escsr.upscaling.exact import Place, exact_bands
from escsr.upscaling.fidelity import keep_colours, keep_colours_of_bands
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.tiles import AxisScale, Span
from tests.family_networks import FAMILY, family_network
from tests.model.configurations import configurations
from tests.upscaling.exact_runs import ROUNDING, plan_of, random_pixels, shaken, whole_and_exact
from tests.upscaling.networks import engine_of, smallest


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_is_exact(name: str) -> None:
    """With the colour guard, in memory and on disk; two windows and an odd rest either way."""
    network = shaken(family_network(name))
    side = network.config.unshuffle
    source = planes_of(random_pixels(21 * side - 1, 27 * side))
    plan = plan_of(5, "disk" if side == 1 else "memory")
    whole, exact = whole_and_exact(network, source, plan, keeps_colours=True)
    assert np.abs(exact - whole).max() < ROUNDING


@settings(max_examples=15, deadline=None)
@given(
    config=configurations(),
    height=st.integers(1, 26),
    width=st.integers(1, 26),
    band_rows=st.integers(1, 60),
    place=st.sampled_from(["memory", "disk"]),
    keeps_colours=st.booleans(),
    padding=st.sampled_from(["none", "window"]),
)
def test_any_network_in_any_parts_is_exact(
    config: ESCConfig,
    height: int,
    width: int,
    band_rows: int,
    place: Place,
    keeps_colours: bool,
    padding: str,
) -> None:
    """Whatever the sizes of the image and the parts."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = shaken(ESC(config))
    source = planes_of(random_pixels(height, width))
    engine = engine_of(network, padding=padding)
    spans = (Span(start=0, stop=height), Span(start=0, stop=width))
    scales = tuple(
        AxisScale(length=side, output_length=side * config.scale) for side in (height, width)
    )
    image = source.read(*spans)
    whole = engine.run(image)
    bands = exact_bands(
        source,
        engine,
        plan_of(band_rows, place),
        scales=scales,  # pyright: ignore[reportArgumentType]
        on_share_done=lambda share: None,
    )
    if keeps_colours:
        whole = keep_colours(whole, image)
        bands = keep_colours_of_bands(bands, lambda top, stop: image[:, :, top:stop], scales)  # pyright: ignore
    exact = np.concatenate(list(bands), axis=2)
    # Random weights may make results of any size; the tolerance is of their range.
    assert np.abs(exact - whole).max() <= ROUNDING * max(1.0, float(np.abs(whole).max()))


def test_tiles_of_the_same_networks_are_not_exact() -> None:
    """Else the tests above would show nothing."""
    network = shaken(family_network("esc-x2"))
    pixels = random_pixels(40, 56)
    whole = Upscaler(network, device="cpu", tile="whole")(pixels)
    tiled = Upscaler(network, device="cpu", tile=16)(pixels)
    exact = Upscaler(network, device="cpu", tile=16, exact=True)(pixels)
    assert np.abs(tiled - whole).max() > 100 * ROUNDING
    assert np.abs(exact - whole).max() < ROUNDING


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha_are_exact(channels: int) -> None:
    """Alpha goes through the network as an image of its own, after the colours."""
    pixels = random_pixels(40, 24, channels)
    # Dividing by a small alpha would make more of rounding.
    pixels[..., -1] = pixels[..., -1] / 2 + 0.5
    source = planes_of(pixels)
    whole, exact = whole_and_exact(smallest(2), source, plan_of(7, "disk"), keeps_colours=True)
    assert np.abs(exact - whole).max() < ROUNDING


def test_a_batch_is_exact() -> None:
    """Each image has kernels of its own."""
    batch = torch.rand(3, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    whole = Upscaler(smallest(2), device="cpu", tile="whole")(batch)
    exact = Upscaler(smallest(2), device="cpu", tile=8, exact=True)(batch)
    assert (exact - whole).abs().max() < ROUNDING


@pytest.mark.parametrize("padding", ["none", "window"])
@pytest.mark.parametrize("size", [(61, 83), (27, 50)])
def test_any_size_is_exact(size: tuple[int, int], padding: str) -> None:
    """The colour guard's means and the waves of ESC+LTE know where a part lies."""
    network = shaken(family_network("esc-lte-x4"))
    source = planes_of(random_pixels(26, 21))
    whole, exact = whole_and_exact(
        network, source, plan_of(5), size=size, keeps_colours=True, padding=padding
    )
    assert np.abs(exact - whole).max() < ROUNDING


@pytest.mark.parametrize(
    "overrides",
    [
        {"first_mixer": "convolution", "num_conv_layers": 2},
        {"layer_mixer": "window", "attention_gate": True},
        {"first_mixer": "convolution", "layer_mixer": "window", "attention_gate": True},
        {"share_large_kernel": False, "num_conv_layers": 3},
        {"dynamic_kernel": False},
        {"num_conv_layers": 0},
        {"pdim": 16},
        {"large_kernel_size": 1},
        {"large_kernel_size": 1, "large_kernel": "decomposed"},
    ],
)
def test_ablations_are_exact(overrides: dict[str, object]) -> None:
    """Attention everywhere or nowhere, a kernel for each layer, none that is dynamic."""
    network = shaken(smallest(2, **{"num_blocks": 2, **overrides}))
    source = planes_of(random_pixels(21, 27))
    whole, exact = whole_and_exact(network, source, plan_of(9, "disk"))
    assert np.abs(exact - whole).max() < ROUNDING


def test_broken_weights_are_told_of() -> None:
    """NaN among them, when they are opened; or numbers so large that results are none."""
    network = smallest(2)
    network.get_parameter("blocks.0.feed_forward.expand.weight").data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="holds NaN"):
        Upscaler(network, device="cpu", tile=8, exact=True)
    network = smallest(2)
    network.get_parameter("reconstruction.to_subpixels.weight").data.fill_(3e38)
    upscaler = Upscaler(network, device="cpu", tile=8, exact=True)
    with pytest.raises(CheckpointError, match="weights are broken"):
        upscaler(random_pixels(20, 20))


def test_other_back_ends_have_exact_results_by_the_core() -> None:
    """The same as the core's own; the reference is only for measuring, and refused."""
    pixels = random_pixels(40, 24)
    native, eager = (
        Upscaler(smallest(2), device="cpu", tile=8, exact=True, backend=backend)(pixels)
        for backend in ("native", "eager")
    )
    assert np.array_equal(native, eager)
    with pytest.raises(ConfigurationError, match='not with the back-end "reference"'):
        Upscaler(smallest(2), device="cpu", tile=8, exact=True, backend="reference")(pixels)
