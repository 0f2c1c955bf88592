"""The folded copy: the same function, faster, and never stale."""

import copy

import pytest
import torch
from torch import nn

from escsr.engines.folding import (
    FoldedConvAttention,
    FoldedLargeKernel,
    FoldedPositionBias,
    FoldedPositionFactors,
    fold,
)
from escsr.model import ESC
from escsr.model.convolutional_attention import SharedLargeKernel
from escsr.model.window_attention import WindowAttention
from escsr.weights import load_model
from tests import networks

# Another order of summation in float32, over one output: the tolerance of the golden files.
TOLERANCE = 2e-5

FP_STYLE = {
    "large_kernel": "decomposed",
    "image_skip": "bicubic",
    "norm_in_conv_layers": True,
    "norm_before_last_conv": True,
}


def smallest(**overrides: object) -> ESC:
    """A network of one block and one layer whose every part does something."""
    return load_model(networks.smallest(**overrides))


def assert_equal(result: "torch.Tensor", expected: "torch.Tensor") -> None:
    """Equal as the golden files mean it."""
    assert (result - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("overrides", [{}, FP_STYLE], ids=["dense", "decomposed"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_folded_copy_computes_the_same(overrides: dict[str, object], batch: int) -> None:
    """For both kinds of large kernel, one image and several, sides off the window grid."""
    network = smallest(**overrides)
    image = torch.rand(batch, 3, 19, 30)
    with torch.no_grad():
        assert_equal(fold(network)(image), network(image))


def test_the_shipped_architecture_folds_in_channels_last_too() -> None:
    """As the engine runs it."""
    network = load_model(networks.tiny(3))
    image = torch.rand(1, 3, 40, 33)
    folded = fold(network).to(memory_format=torch.channels_last)
    with torch.no_grad():
        result = folded(image.contiguous(memory_format=torch.channels_last))
        assert_equal(result, network(image))


def test_both_kernels_work_in_the_test_network() -> None:
    """Else the tests above would pass with either of them left out."""
    network = smallest()
    image = torch.rand(1, 3, 16, 16)
    without = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in without.named_parameters():
            if "to_kernel" in name:
                parameter.zero_()
        assert (without(image) - network(image)).abs().max() > 1e-4


def test_a_network_trained_further_folds_anew() -> None:
    """One step of training: the earlier copy keeps the earlier weights, a new one has the new."""
    network = smallest().train()
    image = torch.rand(1, 3, 16, 16)
    before = network(image).detach()
    early = fold(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(image).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        after = network(image)
        assert (after - before).abs().max() > 1e-3
        assert_equal(early(image), before)
        assert_equal(fold(network)(image), after)


def test_folding_leaves_the_network_as_it_was() -> None:
    """Same weights, still trainable, still in training mode, no part replaced."""
    network = smallest().train()
    state = copy.deepcopy(network.state_dict())
    fold(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    folded_kinds = (FoldedConvAttention, FoldedLargeKernel, FoldedPositionBias)
    assert not any(isinstance(module, folded_kinds) for module in network.modules())


def test_folding_draws_no_random_numbers() -> None:
    """A training run that looks at samples now and then goes on as if it had not."""
    network = smallest()
    before = torch.get_rng_state()
    fold(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_esc_inside_another_module_is_folded() -> None:
    """A wrapper keeps its place; what it holds is folded."""
    wrapped = nn.Sequential(smallest(), nn.Identity())
    folded = fold(wrapped)
    assert sum(isinstance(m, FoldedLargeKernel) for m in folded.modules()) == 1
    image = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert_equal(folded(image), wrapped(image))


def test_a_foreign_network_is_copied_unchanged() -> None:
    """Nothing to fold is no error."""
    image = torch.rand(1, 3, 4, 4)
    foreign = nn.Sequential(nn.Conv2d(3, 12, 3), nn.PixelShuffle(2))
    assert torch.equal(fold(foreign)(image), foreign(image))


def test_the_attention_backend_can_be_replaced() -> None:
    """And computes the same."""
    network = smallest()
    image = torch.rand(1, 3, 16, 16)
    naive = fold(network, attention_backend="naive")
    assert {m.backend for m in naive.modules() if isinstance(m, WindowAttention)} == {"naive"}
    with torch.no_grad():
        assert_equal(naive(image), network(image))


def test_kernels_that_no_layers_share_are_averaged_too() -> None:
    """Of that ablation each layer has its own; none is averaged again at every call."""
    network = smallest(share_large_kernel=False, num_conv_layers=2)
    folded = fold(network)
    assert sum(isinstance(m, FoldedLargeKernel) for m in folded.modules()) == 2
    assert not any(isinstance(m, SharedLargeKernel) for m in folded.modules())
    image = torch.rand(1, 3, 19, 30)
    with torch.no_grad():
        assert_equal(folded(image), network(image))


def test_position_factors_are_computed_once() -> None:
    """ESC-RIB's: the small network that makes them is gone from the copy, which answers alike."""
    network = smallest(position_bias="implicit")
    folded = fold(network)
    assert sum(isinstance(m, FoldedPositionFactors) for m in folded.modules()) == 1
    assert not any("position_bias" in name for name, _ in folded.named_parameters())
    image = torch.rand(1, 3, 19, 30)
    with torch.no_grad():
        assert_equal(folded(image), network(image))
