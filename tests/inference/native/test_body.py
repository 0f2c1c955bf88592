"""Networks whose blocks run natively, wholly or in part, against themselves in float64."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from escsr.errors import CheckpointError
from escsr.inference.backends import accelerate
from escsr.inference.engine import Engine
from escsr.inference.folding import fold
from escsr.inference.native.body import NativeBody
from escsr.model import ESC
from escsr.model.attention_backends import FoldedBackend
from tests.model.networks import FEW_PARAMETERS, random_image, small_network

pytestmark = pytest.mark.usefixtures("kernels")

CPU = torch.device("cpu")
TOLERANCE = 2e-5
"""Of the largest value: what every exact back-end keeps in float32."""

WHOLE: dict[str, Any] = {
    "dim": 32,
    "pdim": 8,
    "num_conv_layers": 2,
    "window_size": 16,
    "num_heads": 2,
    "large_kernel_size": 9,
}
"""Runs natively from the first block to the last, but for convolutions of 3x3 over all channels."""

PARTLY: dict[str, dict[str, Any]] = {
    "windows of half a vector": {"window_size": 8},
    "windows of one and a half vectors": {"window_size": 24},
    "heads of 4": {"num_heads": 8},
    "factors and a gate": {"position_bias": "implicit", "attention_gate": True},
    "factors": {"position_bias": "implicit"},
    "a gate": {"attention_gate": True},
}
"""Their attention does not, with vectors of 16."""

NOT: dict[str, dict[str, Any]] = {
    "half a vector of channels": {"dim": 24, "num_heads": 3},
    "attention everywhere": {"layer_mixer": "window"},
    "convolution everywhere": {"first_mixer": "convolution"},
    "no layers": {"num_conv_layers": 0},
    "a very large kernel": {"large_kernel_size": 19},
    "many convolved channels": {"dim": 144, "pdim": 136, "num_heads": 9, "num_blocks": 1},
}
"""They are left as they are, with vectors of 16."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "as ESC": {},
    "as ESC-FP": FEW_PARAMETERS,
    "LayerNorm in layers": {"norm_in_conv_layers": True},
    "no dynamic kernel": {"dynamic_kernel": False},
    "no dynamic kernel, decomposed": {"dynamic_kernel": False, "large_kernel": "decomposed"},
    "kernels of their own": {"share_large_kernel": False},
    "the smallest kernel": {"large_kernel_size": 3},
    "the largest kernel": {"large_kernel_size": 17},
    "one convolved channel": {"pdim": 1},
    "all channels convolved": {"pdim": 32},
    "a hidden map of an odd width": {"expansion": 1.28, "first_expansion": 1.6},
    "pixels as channels": {"unshuffle": 2, "scale": 2, "image_skip": "none"},
}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Kernels may take two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def native_engine(network: ESC, attention: FoldedBackend | None = None) -> Engine:
    """With its attention as asked for."""
    return Engine(
        network, scale=network.scale, device=CPU, backend="native", attention_backend=attention
    )


def error_of(engine: Engine, network: ESC, image: Tensor) -> float:
    """Largest difference from the trainable network in float64, as a share of its largest value."""
    with torch.no_grad():
        expected = network.double()(image.double())
    network.float()
    return ((engine.run(image, torch.float32) - expected).abs().max() / expected.abs().max()).item()


def native_body(network: ESC) -> NativeBody | None:
    """What a folded and accelerated copy has of it."""
    parts = accelerate(fold(network), "native").modules()
    return next((part for part in parts if isinstance(part, NativeBody)), None)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_native_network_is_the_network(name: str) -> None:
    """Whatever a network leaves out or has beside; random weights everywhere."""
    network = small_network(seed=3, **{**WHOLE, **ABLATIONS[name]})
    assert native_body(network) is not None
    assert error_of(native_engine(network), network, random_image(1, 3, 21, 35)) < TOLERANCE


@pytest.mark.parametrize("name", {**PARTLY, **NOT})
def test_a_network_that_runs_natively_in_part_or_not_at_all_is_the_network(name: str) -> None:
    """The rest is PyTorch's work, and the two meet without a seam."""
    network = small_network(seed=4, **{**WHOLE, **{**PARTLY, **NOT}[name]})
    assert error_of(native_engine(network), network, random_image(1, 3, 19, 26)) < TOLERANCE


@settings(max_examples=8)
@given(height=st.integers(1, 80), width=st.integers(1, 80), seed=st.integers(0, 9))
def test_a_native_network_is_the_network_at_all_sizes(height: int, width: int, seed: int) -> None:
    """Windows, pieces and tiles that hang over the end, or hardly begin."""
    network = small_network(seed=seed, **WHOLE)
    image = random_image(1, 3, height, width, seed=seed)
    assert error_of(native_engine(network), network, image) < TOLERANCE


def test_attention_that_somebody_chose_is_left_to_them() -> None:
    """Only "auto" and "sdpa" mean: as fast as can be."""
    network = small_network(**WHOLE)
    image = random_image(1, 3, 20, 20)
    ways: tuple[FoldedBackend, ...] = ("auto", "sdpa", "naive", "chunked")
    auto, sdpa, naive, chunked = (
        native_engine(network, way).run(image, torch.float32) for way in ways
    )
    assert torch.equal(auto, sdpa)
    for other in (naive, chunked):
        assert not torch.equal(auto, other)
        assert (auto - other).abs().max() < TOLERANCE * auto.abs().max()


def test_a_batch_runs_image_by_image() -> None:
    """Each has its own dynamic kernel, so results are those of the images to the last bit."""
    network = small_network(**WHOLE)
    body = native_body(network)
    assert body is not None
    features = random_image(2, 32, 18, 33)
    with torch.inference_mode():
        batch, single = body(features, None), [body(image[None], None) for image in features]
        assert torch.equal(batch, torch.cat(single))
        # Outside the blocks PyTorch convolves a batch in another order than one image.
        images = random_image(2, 3, 18, 33)
        run = accelerate(fold(network), "native")
        alone = torch.cat([run(image[None]) for image in images])
        assert (run(images) - alone).abs().max() < TOLERANCE * alone.abs().max()


def test_the_number_of_threads_changes_no_bit(two_threads: None) -> None:
    """Who computes a piece is left to chance; what is added up, and in which order, is not."""
    network = small_network(**WHOLE)
    body = native_body(network)
    assert body is not None
    # Five pieces of columns, and more bands of rows than threads: sums have much to disagree on.
    features = random_image(1, 32, 70, 270)
    with torch.inference_mode():
        in_two = [body(features, None) for _ in range(3)]
        torch.set_num_threads(1)
        in_one = body(features, None)
    assert all(torch.equal(result, in_one) for result in in_two)


def test_one_engine_serves_several_threads(two_threads: None) -> None:
    """They share weights and spectra and nothing else."""
    engine = native_engine(small_network(**WHOLE))
    images = [random_image(1, 3, 20 + 3 * n, 30 - 2 * n, seed=n) for n in range(4)]
    alone = [engine.run(image, torch.float32) for image in images]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda image: engine.run(image, torch.float32), images))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_what_torch_makes_by_default_does_not_matter() -> None:
    """The kernels' own maps are float32 on the CPU, whatever a user has set."""
    network, image = small_network(**WHOLE), random_image(1, 3, 17, 17)
    usual = native_engine(network).run(image, torch.float32)
    torch.set_default_dtype(torch.float64)
    try:
        unusual = native_engine(network).run(image, torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(usual, unusual)


def test_the_image_stays_as_it_is() -> None:
    """Also where it comes in channels_last, which the kernels read without a copy."""
    image = random_image(1, 3, 17, 20).contiguous(memory_format=torch.channels_last)
    before = image.clone()
    native_engine(small_network(**WHOLE)).run(image, torch.float32)
    assert torch.equal(image, before)


def test_half_precision_runs_without_the_kernels() -> None:
    """They know float32 alone; in bfloat16 "native" is "eager" to the last bit."""
    network, image = small_network(**WHOLE), random_image(1, 3, 17, 20)
    eager = Engine(network, scale=2, device=CPU, backend="eager")
    native = native_engine(network)
    assert torch.equal(native.run(image, torch.bfloat16), eager.run(image, torch.bfloat16))
    assert not torch.equal(native.run(image, torch.float32), eager.run(image, torch.float32))


def test_every_weight_that_is_nan_is_found_out() -> None:
    """As with PyTorch's operations: an error, not a picture that is a little wrong."""
    config = {**WHOLE, "dim": 16, "pdim": 4, "num_blocks": 1, "norm_in_conv_layers": True}
    names = [name for name, _ in small_network(**config).named_parameters()]
    image = random_image(1, 3, 16, 16)
    for name in names:
        network = small_network(**config)
        with torch.no_grad():
            network.get_parameter(name).flatten()[-1] = torch.nan
        with pytest.raises(CheckpointError, match="weights are broken"):
            native_engine(network).run(image, torch.float32)
            pytest.fail(f"NaN in {name} was not found out")
