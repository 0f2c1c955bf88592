"""Building, copying, storing and loading a network."""

import copy
import io
import pickle

import pytest
import torch

from escsr.model import ESC, VARIANTS, position_bias, variant
from tests.model.networks import (
    FEW_PARAMETERS,
    random_image,
    randomise,
    small_config,
    small_network,
)

FORMS = [pytest.param({}, id="dense"), pytest.param(FEW_PARAMETERS, id="decomposed")]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_built_without_memory(name):
    """On the meta device nothing is allocated, and a forward pass tells the shape."""
    with torch.device("meta"):
        network = ESC(variant(name, scale=3))
        image = torch.empty(2, 3, 100, 50)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert network(image).shape == (2, 3, 300, 150)


def test_a_meta_network_comes_alive_with_weights():
    """Built on meta, loaded by assignment, it answers as the network whose weights it got."""
    network = small_network()
    with torch.device("meta"):
        loaded = ESC(network.config)
    loaded.load_state_dict(network.state_dict(), assign=True)
    image = random_image(1, 3, 6, 7)
    assert torch.equal(loaded(image), network(image))


def test_nothing_but_parameters_is_stored():
    """No buffer and no index table: what is derived is derived when it is used."""
    network = ESC(small_config())
    assert list(network.buffers()) == []
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]
    for module in network.modules():
        plain = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
        assert plain == []


def test_building_does_not_walk_over_the_window(monkeypatch):
    """The index of the bias is made by one expression, and only when attention runs."""
    calls = []
    original = position_bias.expand_bias

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(position_bias, "expand_bias", counted)
    with torch.device("meta"):
        # A loop over the pairs of tokens would take 2 * 512^4 = 137 thousand million steps.
        network = ESC(small_config(window_size=512))
    assert calls == []
    network(torch.empty(1, 3, 5, 5, device="meta"))
    assert len(calls) == network.config.num_blocks


@pytest.mark.parametrize("fields", FORMS)
def test_a_copy_is_a_network_of_its_own(fields):
    """Changing every weight of a copy changes the copy's answer, and not the original's."""
    network, image = small_network(**fields), random_image(1, 3, 6, 7)
    before = network(image)
    other = copy.deepcopy(network)
    assert torch.equal(other(image), before)
    for (name, changed), (_, kept) in zip(
        other.named_parameters(), network.named_parameters(), strict=True
    ):
        assert changed is not kept, name
    randomise(other, seed=5)
    fresh = small_network(seed=5, **fields)
    assert torch.equal(network(image), before)
    assert torch.equal(other(image), fresh(image))
    assert not torch.allclose(other(image), before)


def test_a_copy_uses_its_own_position_bias():
    """Only the bias of the copy changes, and it is seen."""
    network, image = small_network(), random_image(1, 3, 6, 7)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for block in other.blocks:
            block.attention.position_bias.table.mul_(-3)
    assert not torch.allclose(other(image), network(image))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("fields", FORMS)
def test_loaded_weights_take_effect(fields, assign):
    """After loading, by copy or by assignment, every weight in use is the loaded one."""
    network, other = small_network(**fields), small_network(seed=7, **fields)
    image = random_image(1, 3, 6, 7)
    network(image)  # whatever could be captured has been captured now
    network.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
    assert torch.equal(network(image), other(image))


@pytest.mark.parametrize("fields", FORMS)
def test_a_network_can_be_pickled_and_saved(fields):
    """Pickle and torch.save bring back the same network; workers get it this way."""
    network, image = small_network(**fields), random_image(1, 3, 6, 7)
    other = pickle.loads(pickle.dumps(network))
    assert other.config == network.config
    assert torch.equal(other(image), network(image))
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(image), network(image))


def test_a_seed_makes_a_network():
    """Two networks built after the same seed are equal; the next one is not."""
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(ESC(small_config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["shallow.weight"], states[2]["shallow.weight"])


def test_a_network_moves_to_another_type_and_back():
    """`.to(dtype)` takes everything along."""
    network, image = small_network(), random_image(1, 3, 6, 7)
    before = network(image)
    assert network.double()(image.double()).dtype == torch.float64
    assert torch.equal(network.float()(image), before)


def test_a_new_network_enlarges_sensibly():
    """Before training, the result is finite and on average near the enlarged input."""
    torch.manual_seed(0)
    network = ESC(variant("esc-tiny", scale=2)).eval()
    image = random_image(1, 3, 20, 24)
    with torch.no_grad():
        enlarged = network(image)
    nearest = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert enlarged.isfinite().all()
    assert (enlarged - nearest).abs().mean() < 1
