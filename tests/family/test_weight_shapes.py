"""What arrays a network is made of, without building it."""

import pytest
from hypothesis import given, settings

from escsr.family.configuration import ESCConfig
from escsr.family.variants import VARIANTS
from escsr.family.weight_shapes import count_weights, weight_shapes
from escsr.model import count_parameters
from escsr.weights.building import empty_network
from tests.model.configurations import configurations


def assert_is_the_modules(config: ESCConfig) -> None:
    """The names, in their order, and the shapes of torch's module."""
    network = empty_network(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert list(weight_shapes(config).items()) == list(shapes.items())
    assert count_weights(config) == count_parameters(network)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_arrays_of_every_named_network_are_the_modules(name: str) -> None:
    """Worked out from the configuration alone."""
    assert_is_the_modules(VARIANTS[name])


@settings(max_examples=60)
@given(config=configurations())
def test_the_arrays_of_any_network_are_the_modules(config: ESCConfig) -> None:
    """Also of ablations, and of what lies between the published networks."""
    assert_is_the_modules(config)
