"""torch.compile and torch.export take the network as it is."""

import io
import shutil

import pytest
import torch
from torch.export import Dim

from tests.golden_files import relative_error
from tests.model.networks import FEW_PARAMETERS, random_image, small_network

FORMS = [pytest.param({}, id="dense"), pytest.param(FEW_PARAMETERS, id="decomposed")]
SIZES = [(2, 5, 6), (1, 4, 4), (3, 8, 12), (1, 2, 3), (1, 1, 7), (2, 9, 1), (1, 1, 1), (4, 17, 10)]
"""(batch, height, width) for windows of 4: with and without padding, below a window, sides of 1."""
FLOAT32 = 16 * 2**-23
"""Sums in another order, through some forty layers."""


@pytest.fixture(autouse=True)
def forget_compiled_code():
    """Compiled code of one test is none of the next one's business."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("fields", FORMS)
def test_compile_sees_one_whole_graph(fields):
    """With fullgraph=True, no Python stands in between, forwards or backwards."""
    network = small_network(num_blocks=1, num_conv_layers=1, **fields)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = random_image(2, 3, 5, 6)
    assert relative_error(compiled(image), network(image)) < FLOAT32
    gradients = []
    for run in (network, compiled):
        network.zero_grad()
        run(image).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for ours, right in zip(gradients[1], gradients[0], strict=True):
        assert relative_error(ours, right) < 64 * FLOAT32  # sums over all pixels, back again


def test_compile_can_keep_sizes_dynamic():
    """One graph serves several sizes."""
    network = small_network(num_blocks=1, num_conv_layers=1)
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=True)
    for batch, height, width in [(2, 5, 6), (3, 8, 12), (2, 2, 3), (4, 17, 10)]:
        image = random_image(batch, 3, height, width)
        assert relative_error(compiled(image), network(image)) < FLOAT32


@pytest.mark.slow
# torch's own compiler uses what torch itself deprecates, and 2.6 talks about its cache.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles:UserWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_computes_the_same():
    """The default compiler's code agrees."""
    network = small_network(num_blocks=1, num_conv_layers=1)
    image = random_image(1, 3, 6, 5)
    with torch.no_grad():
        assert relative_error(torch.compile(network)(image), network(image)) < FLOAT32


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@pytest.mark.parametrize("fields", FORMS)
def test_one_exported_program_serves_every_size(fields, strict):
    """Batch, height and width stay free, from one image of one pixel on."""
    network = small_network(num_blocks=1, num_conv_layers=1, **fields)
    program = torch.export.export(
        network,
        (random_image(2, 3, 7, 9),),
        dynamic_shapes={
            "lr_image": {
                0: Dim("batch", min=1, max=64),
                2: Dim("height", min=1, max=4096),
                3: Dim("width", min=1, max=4096),
            }
        },
        strict=strict,
    )
    run = program.module()
    for batch, height, width in SIZES:
        image = random_image(batch, 3, height, width)
        enlarged = run(image)
        assert enlarged.shape == (batch, 3, 2 * height, 2 * width)
        assert relative_error(enlarged, network(image)) < FLOAT32


def test_an_example_without_padding_exports_the_padding_too():
    """An example whose sides are multiples of the window does not fix the graph to such sizes."""
    network = small_network(num_blocks=1, num_conv_layers=1)
    program = torch.export.export(
        network,
        (random_image(2, 3, 8, 8),),
        dynamic_shapes={"lr_image": {2: Dim("height", max=4096), 3: Dim("width", max=4096)}},
        strict=False,
    )
    for _, height, width in SIZES:
        image = random_image(2, 3, height, width)
        assert relative_error(program.module()(image), network(image)) < FLOAT32


def test_an_exported_program_survives_its_file():
    """Saved and loaded, it answers the same."""
    network = small_network(num_blocks=1, num_conv_layers=1)
    image = random_image(2, 3, 5, 6)
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (image,), strict=False), file)
    file.seek(0)
    assert relative_error(torch.export.load(file).module()(image), network(image)) < FLOAT32
