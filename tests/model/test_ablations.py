"""The paper's ablations are configurations: built, run, trained, recognised, stored."""

from dataclasses import replace

import pytest
import torch

import escsr
from escsr.model import ESC, ESCConfig, count_parameters, variant
from escsr.weights import Provenance, save_weights
from escsr.weights.recognition import recognise
from tests.golden_files import relative_error
from tests.model.configurations import SMALL
from tests.model.networks import (
    FEW_PARAMETERS,
    ROUNDING_FLOAT64,
    random_image,
    small_config,
    small_network,
    weights_as_arrays,
)
from tests.oracles.network import Oracle

ABLATIONS = {
    "attention everywhere": {"layer_mixer": "window"},
    "ConvAttn only": {"first_mixer": "convolution"},
    "kernel 9": {"large_kernel_size": 9},
    "kernel 17": {"large_kernel_size": 17},
    "kernel 1": {"large_kernel_size": 1},
    "kernel 1, decomposed": {**FEW_PARAMETERS, "large_kernel_size": 1},
    "no dynamic kernel": {"dynamic_kernel": False},
    "unshared kernels without dynamic kernels": {
        "dynamic_kernel": False,
        "share_large_kernel": False,
    },
    "unshared kernels": {"share_large_kernel": False},
    "window 16 with more layers": {"window_size": 16, "num_conv_layers": 3},
    "no dynamic kernel, decomposed": {**FEW_PARAMETERS, "dynamic_kernel": False},
    "unshared kernels, decomposed": {**FEW_PARAMETERS, "share_large_kernel": False},
    "ESC-RIB's attention everywhere": {
        "layer_mixer": "window",
        "position_bias": "implicit",
        "attention_gate": True,
    },
}
FIELDS = pytest.mark.parametrize("fields", ABLATIONS.values(), ids=ABLATIONS)


@FIELDS
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9)])
def test_an_ablation_is_the_formula_without_what_it_leaves_out(fields, height, width):
    """Equal to the oracle."""
    network = small_network(**fields).double()
    image = random_image(1, 3, height, width, dtype=torch.float64)
    right = Oracle(network.config, weights_as_arrays(network)).enlarge(image[0].numpy())
    assert relative_error(network(image)[0], torch.from_numpy(right)) < ROUNDING_FLOAT64


@FIELDS
def test_an_ablation_trains(fields):
    """A step changes every parameter, and the loss falls: none is left over, none is cut off."""
    torch.manual_seed(0)
    network = small_network(**fields).train()
    image, target = random_image(2, 3, 6, 9), random_image(2, 3, 12, 18, seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss = (network(image) - target).square().mean()
    loss.backward()
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert not torch.equal(parameter, before[name]), name
    assert (network(image) - target).square().mean() < loss


@FIELDS
def test_an_ablation_is_recognised_from_its_weights(fields):
    """By names and shapes alone, also where a file holds no header."""
    config = small_config(**fields)
    found = recognise(ESC(config).state_dict())
    told = {name: getattr(config, name) for name in found.assumed}
    assert replace(found.config, **told) == config


@pytest.mark.parametrize(
    ("fields", "assumed"),
    [
        (
            {"layer_mixer": "window"},
            {"pdim", "large_kernel_size", "large_kernel", "share_large_kernel", "dynamic_kernel"},
        ),
        (
            {"first_mixer": "convolution"},
            {"window_size", "num_heads", "position_bias", "attention_gate"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("dim", [3, 6, 8, 16, 64])
def test_only_what_an_ablation_leaves_out_is_assumed(fields, assumed, dim):
    """Whatever is taken for it, the network is buildable and the same."""
    config = ESCConfig(**{**SMALL, "dim": dim, "pdim": 2, "num_heads": 1, **fields})
    state = ESC(config).state_dict()
    found = recognise(state)
    assert set(found.assumed) == assumed
    ESC(found.config).load_state_dict(state)


@FIELDS
def test_an_ablation_is_stored_and_loaded(fields, tmp_path):
    """Bit for bit, with its configuration."""
    network, path = small_network(**fields), tmp_path / "ablation.safetensors"
    provenance = Provenance(licence="CC0-1.0", training_data="none", date="2025-11-20")
    save_weights(path, network, provenance=provenance)
    loaded, image = escsr.load_model(path), random_image(1, 3, 6, 7)
    assert loaded.config == network.config
    assert torch.equal(loaded(image), network(image))


def test_a_network_of_attention_alone_holds_no_large_kernel():
    """What nothing uses would never learn."""
    network = ESC(small_config(layer_mixer="window"))
    assert not [name for name, _ in network.named_parameters() if "large_kernel" in name]


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        # Per layer: 16*16*13*13 of its own; minus the shared one.
        ({"share_large_kernel": False}, (25 - 1) * 16 * 16 * 13 * 13),
        # Per layer: 16 -> 8 -> 144.
        ({"dynamic_kernel": False}, -25 * (16 * 8 + 8 + 8 * 144 + 144)),
        ({"large_kernel_size": 17}, 16 * 16 * (17 * 17 - 13 * 13)),
        ({"large_kernel_size": 9}, 16 * 16 * (9 * 9 - 13 * 13)),
        # Per block: table, four 1x1 instead of one, against one 1x1 and the dynamic kernel.
        (
            {"first_mixer": "convolution"},
            5 * (-4 * 63**2 - 3 * (64 * 64 + 64) + 16 * 8 + 8 + 8 * 144 + 144),
        ),
    ],
    ids=str,
)
def test_an_ablation_costs_what_it_changes(fields, more):
    """Worked by hand for ESC x2."""
    with torch.device("meta"):
        ours, plain = (ESC(variant("esc", scale=2, **given)) for given in (fields, {}))
    assert count_parameters(ours) - count_parameters(plain) == more


def test_unshared_kernels_differ_from_layer_to_layer():
    """Each ConvAttention draws its own."""
    network = ESC(ESCConfig(dim=8, pdim=4, num_heads=2, num_blocks=2, share_large_kernel=False))
    kernels = [value for name, value in network.named_parameters() if ".own_kernel." in name]
    assert len(kernels) == 10
    assert not any(torch.equal(kernels[0], other) for other in kernels[1:])
