"""Exact results by the native kernels, whatever is set around them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from escsr.inference.backends import Backend
from escsr.inference.engine import Engine
from escsr.inference.exact.native_steps import NativeSteps
from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.exact.run import exact_bands
from escsr.inference.folding import fold
from escsr.inference.native.calls import add_and_normalise
from escsr.inference.native.convolution import NativeConvolution
from escsr.inference.native.maps import as_matrix
from escsr.inference.planes import planes_of
from escsr.model import ESC
from tests.inference.exact_runs import plan_of, random_pixels
from tests.model.networks import random_image, small_network

pytestmark = pytest.mark.usefixtures("kernels")

CPU = torch.device("cpu")
SIZE = (21, 27)


def native_network(**overrides: Any) -> ESC:
    """One whose blocks run natively from the first to the last, unless told otherwise."""
    return small_network(
        seed=3,
        dim=32,
        pdim=8,
        num_conv_layers=2,
        window_size=16,
        num_heads=2,
        large_kernel_size=9,
        **overrides,
    )


def in_parts(network: ESC, backend: Backend) -> Tensor:
    """An engine made, and an image enlarged: (1, 3, H', W')."""
    engine = Engine(network, scale=network.scale, device=CPU, backend=backend, keep_colours=True)
    height, width = (network.scale * side for side in SIZE)
    bands = exact_bands(
        planes_of(random_pixels(*SIZE)),
        engine,
        plan_of((16, 16), (9, 11), "disk" if backend == "native" else "memory"),
        output_size=(width, height),
        dtype=torch.float32,
        on_share_done=lambda share: None,
    )
    return torch.cat(list(bands), dim=2)


def in_one_piece(network: ESC, backend: Backend) -> Tensor:
    """The same without parts."""
    engine = Engine(network, scale=network.scale, device=CPU, backend=backend, keep_colours=True)
    return engine.run(random_image(1, 3, *SIZE), torch.float32)


@pytest.mark.parametrize("backend", ["native", "eager"])
def test_what_torch_makes_by_default_does_not_matter_to_parts(backend: Backend) -> None:
    """Neither of what type nor where; on "meta" numbers would be nowhere."""
    network = native_network()
    usual = in_parts(network, backend)
    torch.set_default_dtype(torch.float64)
    try:
        of_other_type = in_parts(network, backend)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(usual, of_other_type)
    with torch.device("meta"):
        elsewhere = in_parts(network, backend)
    assert torch.equal(usual, elsewhere)


@pytest.mark.parametrize("position_bias", ["table", "implicit"])
@pytest.mark.parametrize("backend", ["native", "eager"])
def test_automatic_precision_around_changes_no_bit(backend: Backend, position_bias: str) -> None:
    """Under autocast PyTorch would hand bfloat16 to kernels that read float32, and fold in it."""
    network = native_network(position_bias=position_bias)
    usual = (in_parts(network, backend), in_one_piece(network, backend))
    with torch.autocast("cpu", torch.bfloat16):
        within = (in_parts(network, backend), in_one_piece(network, backend))
    assert all(torch.equal(one, other) for one, other in zip(usual, within, strict=True))


def test_the_last_convolution_of_a_block_is_native_in_parts_too() -> None:
    """To the last bit what the same block's is in one piece."""
    folded = fold(native_network())
    assert isinstance(folded, ESC)
    steps = NativeSteps(folded)
    block = steps.block(0)
    features = random_image(1, 32, 9, 12)
    place = Rectangle(top=0, bottom=9, left=0, right=12)
    with torch.inference_mode():
        left = steps.leave(0, Patch(features=features, place=place, size=(9, 12)), None)
        normed = torch.empty(9 * 12, 32)
        norm = block.norm_out
        add_and_normalise(as_matrix(features), None, norm.weight, norm.bias, result=normed)
        expected = NativeConvolution(block.conv_out).of_matrix(normed, (9, 12))
    assert torch.equal(as_matrix(left.features), expected)
