"""Layer by layer over parts, the same as in one piece."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.engines.eager import Engine
from escsr.engines.opening import BackendChoice
from escsr.errors import CheckpointError, ConfigurationError
from escsr.model import ESC, ESCConfig
from escsr.upscaling import Upscaler
from escsr.upscaling.exact import exact_bands
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.tiles import Span
from tests.family_networks import FAMILY, family_network
from tests.model.configurations import configurations
from tests.upscaling.exact_runs import ROUNDING, plan_of, random_pixels, shaken, whole_and_exact
from tests.upscaling.networks import smallest


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_is_exact(name: str) -> None:
    """With the colour guard, in memory and on disk; two windows and an odd rest either way."""
    network = shaken(family_network(name))
    side = network.config.unshuffle
    source = planes_of(random_pixels(21 * side - 1, 27 * side))
    plan = plan_of((8, 16), (5, 11), "disk" if side == 1 else "memory")
    whole, exact = whole_and_exact(network, source, plan, keep_colours=True)
    assert np.abs(exact - whole).max() < ROUNDING


@settings(max_examples=15, deadline=None)
@given(
    config=configurations(),
    height=st.integers(1, 26),
    width=st.integers(1, 26),
    core=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    head_core=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    keeps_colours=st.booleans(),
    padding=st.sampled_from(["none", "window"]),
    backend=st.sampled_from(["auto", "eager"]),
)
def test_any_network_in_any_parts_is_exact(
    config: ESCConfig,
    height: int,
    width: int,
    core: tuple[int, int],
    head_core: tuple[int, int],
    keeps_colours: bool,
    padding: str,
    backend: BackendChoice,
) -> None:
    """Whatever the sizes of the image and the parts."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = shaken(ESC(config))
    source = planes_of(random_pixels(height, width))
    engine = Engine(
        network,
        scale=config.scale,
        device=torch.device("cpu"),
        keep_colours=keeps_colours,
        padding=padding,  # type: ignore[arg-type]
        backend=backend,
    )
    spans = (Span(start=0, stop=height), Span(start=0, stop=width))
    whole = engine.run(source.read(*spans), torch.float32)
    bands = exact_bands(
        source,
        engine,
        plan_of(core, head_core),
        output_size=(width * config.scale, height * config.scale),
        dtype=torch.float32,
        on_share_done=lambda share: None,
    )
    exact = torch.cat(list(bands), dim=2)
    # Random weights may make results of any size; the tolerance is of their range.
    assert (exact - whole).abs().max() <= ROUNDING * max(1.0, float(whole.abs().max()))


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
    whole, exact = whole_and_exact(
        smallest(2), source, plan_of((8, 8), (7, 24), "disk"), keep_colours=True
    )
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
        network, source, plan_of((8, 8), (5, 9)), size=size, keep_colours=True, padding=padding
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
    whole, exact = whole_and_exact(network, source, plan_of((8, 16), (9, 9), "disk"))
    assert np.abs(exact - whole).max() < ROUNDING


def test_broken_weights_are_told_of() -> None:
    """NaN in the statistics, or only in the result."""
    for broken in ("blocks.0.feed_forward.expand.weight", "reconstruction.to_subpixels.weight"):
        network = smallest(2)
        network.get_parameter(broken).data.fill_(float("nan"))
        upscaler = Upscaler(network, device="cpu", tile=8, exact=True)
        with pytest.raises(CheckpointError, match="weights are broken"):
            upscaler(random_pixels(20, 20))


def in_parts(network: ESC, dtype: torch.dtype) -> torch.Tensor:
    """20x20 pixels, twice as large: (1, 3, 40, 40)."""
    bands = exact_bands(
        planes_of(random_pixels(20, 20)),
        Engine(network, scale=2, device=torch.device("cpu")),
        plan_of((8, 8), (8, 8)),
        output_size=(40, 40),
        dtype=dtype,
        on_share_done=lambda share: None,
    )
    return torch.cat(list(bands), dim=2)


@pytest.mark.parametrize(
    "large", ["blocks.0.feed_forward.reduce.weight", "blocks.0.conv_out.weight"]
)
def test_half_precision_goes_on_in_float32_where_it_overflows(large: str) -> None:
    """Statistics tell, or the features after the last of them, before any row is made."""
    network = smallest(2, num_blocks=1)
    with torch.no_grad():
        network.get_parameter(large).mul_(1e6)
    results = [in_parts(network, dtype) for dtype in (torch.float16, torch.float32)]
    assert torch.equal(*results)


def test_half_precision_that_overflows_in_the_upsampler_is_not_called_broken() -> None:
    """Rows may be written by then; what to do is told."""
    network = smallest(2)
    with torch.no_grad():
        network.get_parameter("reconstruction.to_subpixels.weight").mul_(1e8)
    assert in_parts(network, torch.float32).isfinite().all()
    with pytest.raises(
        ConfigurationError, match=r"infinite values in float16.*--precision float32"
    ):
        in_parts(network, torch.float16)
