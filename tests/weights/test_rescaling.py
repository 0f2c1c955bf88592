"""Conversion of the last convolution from one scale to another."""

import pytest
import torch

from escsr.errors import CheckpointError, ConfigurationError
from escsr.model import ESC
from escsr.weights import convert_scale, convert_scale_of_state, to_ours
from golden_files import GOLDEN_TOLERANCE, read_golden, relative_error


def test_an_x2_state_becomes_the_references_x4_state() -> None:
    """Equal to the recorded conversion but for the rounding of float32 (1 unit of 1.2e-7)."""
    x2 = to_ours(read_golden("esc_tiny_x2").reference_state)
    x4 = to_ours(read_golden("esc_tiny_x2_weights_as_x4").reference_state)
    converted = convert_scale_of_state(x2, scale=4)
    assert converted.keys() == x4.keys()
    for name, tensor in x4.items():
        assert torch.allclose(converted[name], tensor, rtol=2e-7, atol=2e-8)


def test_a_converted_network_answers_as_the_references_did() -> None:
    """The x2 golden's network, converted, gives the x4 golden's output."""
    x2, x4 = read_golden("esc_tiny_x2"), read_golden("esc_tiny_x2_weights_as_x4")
    network = ESC(x2.config).eval()
    network.load_state_dict(to_ours(x2.reference_state))
    converted = convert_scale(network, scale=4)
    assert (converted.scale, converted.config) == (4, x4.config)
    with torch.inference_mode():
        assert relative_error(converted(x4.input), x4.output) <= GOLDEN_TOLERANCE


def test_the_given_network_stays_as_it_is(small_network: ESC) -> None:
    """A copy is converted; training the copy does not touch the original."""
    before = {name: tensor.clone() for name, tensor in small_network.state_dict().items()}
    converted = convert_scale(small_network, scale=3)
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.add_(1)
    assert small_network.scale == 2
    after = small_network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_copy_can_be_trained(small_network: ESC) -> None:
    """Mode and gradients are those of the original."""
    converted = convert_scale(small_network.train(), scale=3)
    converted(torch.rand(1, 3, 8, 8)).mean().backward()
    assert converted.training
    assert all(parameter.grad is not None for parameter in converted.parameters())


def test_the_own_scale_changes_nothing(small_network: ESC) -> None:
    """x2 -> x2 interpolates at the very sub-pixels."""
    same = convert_scale(small_network, scale=2).state_dict()
    assert all(torch.equal(same[k], v) for k, v in small_network.state_dict().items())


def test_a_constant_picture_of_subpixels_stays_constant() -> None:
    """Worked by hand: interpolating between equal values gives that value, also in half."""
    state = {
        "reconstruction.to_subpixels.weight": torch.full((12, 2, 3, 3), 0.25, dtype=torch.float16),
        "reconstruction.to_subpixels.bias": torch.arange(3.0).repeat_interleave(4),
    }
    converted = convert_scale_of_state(state, scale=3)
    assert converted["reconstruction.to_subpixels.weight"].dtype == torch.float16
    assert (converted["reconstruction.to_subpixels.weight"] == 0.25).all()
    assert torch.equal(
        converted["reconstruction.to_subpixels.bias"], torch.arange(3.0).repeat_interleave(9)
    )


def test_a_state_without_a_last_convolution_is_refused(small_network: ESC) -> None:
    """And a scale that cannot be."""
    with pytest.raises(CheckpointError, match="to_ours"):
        convert_scale_of_state({"to_img.weight": torch.zeros(12, 2, 3, 3)}, scale=4)
    with pytest.raises(ConfigurationError, match="scale is 0"):
        convert_scale(small_network, scale=0)
