"""Compiled attention: the reference's answers, one compilation for all images, nothing stale."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from escsr.errors import ConfigurationError
from escsr.model import ESC
from escsr.model.attention.backends import attend
from escsr.model.attention.flex import attend_compiled, flex_obstacle
from escsr.weights.official import to_ours
from tests.golden_files import ATTENTION_GOLDEN, read_golden, relative_error
from tests.model.attention.test_backends import TOLERANCE
from tests.model.networks import random_image, randomise
from tests.model.test_golden import answer, tolerance

pytestmark = [
    pytest.mark.slow,
    # PyTorch's own, when its compiler is imported.
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
]
needs_flex = pytest.mark.skipif(
    flex_obstacle("cpu") is not None, reason=f"no flex attention: {flex_obstacle('cpu')}"
)
needs_cuda = pytest.mark.skipif(
    flex_obstacle("cuda") is not None, reason=f"no flex attention: {flex_obstacle('cuda')}"
)

SIX_SIZES = [(9, 13), (16, 16), (17, 40), (33, 48), (64, 31), (50, 70)]
"""One window of 16 pixels to twenty of them."""


def graphs() -> int:
    """Graphs that were compiled in this process so far."""
    return counters["stats"]["unique_graphs"]


def network_as(backend: str) -> ESC:
    """The network of a golden file, whose windows have 256 tokens, with random weights."""
    config = read_golden("esc_tiny_x2").config
    network = ESC(config, attention_backend=backend).eval()  # pyright: ignore[reportArgumentType]
    randomise(network, seed=0)
    return network


@needs_flex
def test_six_sizes_compile_once_and_agree_with_naive() -> None:
    """Also a batch of three, and one image that is a single window."""
    flex, naive = network_as("flex"), network_as("naive")
    with torch.no_grad():
        flex(random_image(1, 3, 20, 20))
        before = graphs()
        for height, width in SIX_SIZES:
            image = random_image(1, 3, height, width)
            assert relative_error(flex(image), naive(image)) < TOLERANCE[torch.float32]
        batch = random_image(3, 3, 20, 30)
        assert relative_error(flex(batch), naive(batch)) < TOLERANCE[torch.float32]
    assert graphs() == before


@needs_flex
def test_a_copy_with_other_weights_computes_with_its_own() -> None:
    """The bias is an argument: neither a deep copy nor weights put in its place are stale."""
    flex, naive = network_as("flex"), network_as("naive")
    image = random_image(1, 3, 20, 30)
    with torch.no_grad():
        before = flex(image)
        changed = copy.deepcopy(flex)
        randomise(naive, seed=1)
        changed.load_state_dict(naive.state_dict(), assign=True)
        assert relative_error(changed(image), naive(image)) < TOLERANCE[torch.float32]
        assert torch.equal(flex(image), before)


@needs_flex
@pytest.mark.parametrize("name", ATTENTION_GOLDEN)
def test_the_network_answers_as_the_reference_did(name: str) -> None:
    """A golden file of each shape of attention, which is all that is compiled."""
    golden = read_golden(name)
    network = ESC(golden.config, attention_backend="flex").eval()
    network.load_state_dict(to_ours(golden.reference_state))
    with torch.no_grad():
        ours = answer(network, golden)
    assert relative_error(ours, golden.output) < tolerance(golden)


@needs_flex
def test_what_flex_cannot_do_on_a_cpu_is_refused() -> None:
    """Gradients and float64, each with a way out."""
    q = torch.randn(2, 1, 4, 4, requires_grad=True)
    with pytest.raises(ConfigurationError, match=r"no gradients.*chunked.*Use another"):
        attend(q, q, q, None, backend="flex")
    with pytest.raises(ConfigurationError, match=r"torch\.float64"):
        q = q.detach().double()
        attend_compiled(q, q, q, None, scale=1.0)


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("window_size", [8, 16, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_results_and_gradients_on_cuda(window_size: int, dtype: torch.dtype) -> None:
    """Heads of 16 and of 8 channels, which get zeros; the bias's gradient among them."""
    tokens = window_size**2
    for dim in (16, 8):
        shapes = [(3, 2, tokens, dim)] * 3 + [(2, tokens, tokens)]
        given = [torch.randn(s, device="cuda", dtype=dtype, requires_grad=True) for s in shapes]
        exact = [part.detach().double().requires_grad_() for part in given]
        (q, k, v, bias), (q64, k64, v64, bias64) = given, exact
        ours = attend(q, k, v, bias, backend="flex")
        right = attend(q64, k64, v64, bias64, backend="naive")
        assert relative_error(ours, right) < TOLERANCE[dtype]
        pairs = zip(
            torch.autograd.grad(ours.sum(), given),
            torch.autograd.grad(right.sum(), exact),
            strict=True,
        )
        for gradient, right_gradient in pairs:
            assert (gradient - right_gradient).norm() <= 0.1 * right_gradient.norm()
