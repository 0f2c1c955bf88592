"""Layer by layer, the same as in one piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.engines.core_engine import CoreEngine
from escsr.engines.engine import EngineOptions, Padding
from escsr.errors import CheckpointError, ConfigurationError
from escsr.family import ESCConfig
from escsr.upscaling import Upscaler
from escsr.upscaling.exact import Place, exact_bands
from escsr.upscaling.fidelity import keep_colours, keep_colours_of_bands
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.tiles import AxisScale, Span
from tests.family_networks import FAMILY, family_file
from tests.model.configurations import configurations
from tests.networks import (
    batches,
    engine_of,
    random_weights,
    saved,
    smallest,
    smallest_config,
)
from tests.upscaling.exact_runs import ROUNDING, plan_of, random_pixels, whole_and_exact


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_is_exact(name: str) -> None:
    """With the colour guard, in memory and on disk; two windows and an odd rest either way."""
    side = FAMILY[name].unshuffle
    source = planes_of(random_pixels(21 * side - 1, 27 * side))
    plan = plan_of("disk" if side == 1 else "memory")
    whole, exact = whole_and_exact(engine_of(family_file(name)), source, plan, keeps_colours=True)
    assert np.abs(exact - whole).max() < ROUNDING


@settings(max_examples=25, deadline=None)
@given(
    config=configurations(),
    height=st.integers(1, 26),
    width=st.integers(1, 26),
    band_rows=st.integers(1, 40),
    limit_bytes=st.sampled_from([0, 1, 2**18]),
    place=st.sampled_from(["memory", "disk"]),
    keeps_colours=st.booleans(),
    padding=st.sampled_from(["none", "window"]),
)
def test_any_network_in_any_parts_is_exact(
    config: ESCConfig,
    height: int,
    width: int,
    band_rows: int,
    limit_bytes: int,
    place: Place,
    keeps_colours: bool,
    padding: Padding,
) -> None:
    """Whatever the sizes of the image and of the parts."""
    source = planes_of(random_pixels(height, width))
    options = EngineOptions(device="cpu", padding=padding)
    engine = CoreEngine(config, random_weights(config, seed=2), options)
    spans = (Span(start=0, stop=height), Span(start=0, stop=width))
    images = source.read(*spans)
    whole = engine.run(images)
    scales = (
        AxisScale(length=height, output_length=height * config.scale),
        AxisScale(length=width, output_length=width * config.scale),
    )
    plan = plan_of(place, band_rows=band_rows, limit_bytes=limit_bytes)
    bands = exact_bands(source, engine, plan, scales=scales, on_share_done=lambda share: None)
    if keeps_colours:
        whole = keep_colours(whole, images)
        bands = keep_colours_of_bands(bands, lambda top, stop: images[:, :, top:stop], scales)
    exact = np.concatenate(list(bands), axis=2)
    # Random weights may make results of any size; the tolerance is of their range.
    assert np.abs(exact - whole).max() <= ROUNDING * max(1.0, float(np.abs(whole).max()))


def test_tiles_of_the_same_networks_are_not_exact() -> None:
    """Else the tests above would show nothing."""
    network, pixels = family_file("esc-x2"), random_pixels(40, 56)
    whole = Upscaler(network, device="cpu", tile="whole")(pixels)
    tiled = Upscaler(network, device="cpu", tile=16)(pixels)
    exact = Upscaler(network, device="cpu", tile=16, exact=True)(pixels)
    assert np.abs(tiled - whole).max() > 100 * ROUNDING
    assert np.abs(exact - whole).max() < ROUNDING


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha_are_exact(channels: int) -> None:
    """Alpha goes through the network as an image of its own, after the colours."""
    source = planes_of(random_pixels(40, 24, channels))
    engine = engine_of(smallest(2))
    whole, exact = whole_and_exact(engine, source, plan_of("disk", band_rows=7), keeps_colours=True)
    assert np.abs(exact - whole).max() < ROUNDING


@pytest.mark.parametrize("padding", ["none", "window"])
@pytest.mark.parametrize("size", [(61, 83), (27, 50)])
def test_any_size_is_exact(size: tuple[int, int], padding: str) -> None:
    """The colour guard's means and the waves of ESC+LTE know where a part lies."""
    engine = engine_of(family_file("esc-lte-x4"), padding=padding)
    source = planes_of(random_pixels(26, 21))
    whole, exact = whole_and_exact(
        engine, source, plan_of(band_rows=5), size=size, keeps_colours=True
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
    engine = engine_of(smallest(2, **{"num_blocks": 2, **overrides}))
    source = planes_of(random_pixels(21, 27))
    whole, exact = whole_and_exact(engine, source, plan_of("disk", band_rows=9))
    assert np.abs(exact - whole).max() < ROUNDING


@pytest.mark.parametrize("spoilt", ["blocks.0.feed_forward.expand", "reconstruction.to_subpixels"])
def test_broken_weights_are_told_of(spoilt: str) -> None:
    """Values that overflow in the features, or only in the result."""
    config = smallest_config()
    weights = random_weights(config)
    weights[f"{spoilt}.weight"][:] = 1e38
    upscaler = Upscaler(saved(config, weights), device="cpu", tile=8, exact=True)
    with pytest.raises(CheckpointError, match="weights are broken"):
        upscaler(random_pixels(20, 20))


@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_a_batch_of_tensors_is_exact_whatever_runs_the_network(backend: str) -> None:
    """Each image has kernels of its own; beside an engine of torch's the core is opened."""
    torch = pytest.importorskip("torch")
    batch = torch.from_numpy(batches(3, 40, 24))
    options = {"device": "cpu", "backend": backend}
    whole = Upscaler(smallest(2), tile="whole", **options)(batch)  # type: ignore[arg-type]
    exact = Upscaler(smallest(2), tile=8, exact=True, **options)(batch)  # type: ignore[arg-type]
    assert (exact - whole).abs().max() < ROUNDING


def test_other_back_ends_have_exact_results_by_the_core() -> None:
    """The same as the core's own; the reference is only for measuring, and refused."""
    pytest.importorskip("torch")
    pixels = random_pixels(40, 24)
    native, eager = (
        Upscaler(smallest(2), device="cpu", tile=8, exact=True, backend=backend)(pixels)
        for backend in ("native", "eager")
    )
    assert np.array_equal(native, eager)
    with pytest.raises(ConfigurationError, match='not with the back-end "reference"'):
        Upscaler(smallest(2), device="cpu", tile=8, exact=True, backend="reference")(pixels)
