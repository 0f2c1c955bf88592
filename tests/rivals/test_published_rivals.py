"""Rivals by name: what is built is what their papers describe."""

import copy
import importlib.util

import pytest
import torch
from torch import Tensor, nn

from escsr.errors import ConfigurationError, MissingExtraError
from escsr.rivals.published import (
    LEFT_OUT,
    PUBLISHED_RIVALS,
    PublishedRival,
    RememberedMask,
    build_rival,
    rival_key,
)
from escsr.rivals.rivals import Rival

HEIGHT, WIDTH = 20, 28

# spandrel's own, of how it calls torch.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def _built(name: str, scale: int) -> Rival:
    for package in ("spandrel", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return build_rival(name, scale=scale, height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize("name", [name for name in PUBLISHED_RIVALS if name != "hat"])
def test_a_rival_has_its_published_parameters_and_factor(name: str) -> None:
    """On a size that is a multiple of nothing; the number is checked when it is built."""
    rival = _built(name, 4)
    with torch.inference_mode():
        result = rival.network(torch.rand(1, 3, HEIGHT, WIDTH))
    assert result.shape == (1, 3, 4 * HEIGHT, 4 * WIDTH)
    assert rival.parameters == sum(p.numel() for p in rival.network.parameters())


@pytest.mark.parametrize("name", ["swinir-light", "atd-light"])
def test_masks_of_shifted_windows_are_made_once(name: str) -> None:
    """None is computed in a forward pass of a copy, and results are those of one that does."""
    rival = _built(name, 2)
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    own = [part for part in rival.network.modules() if "calculate_mask" in vars(type(part))]
    assert own
    copied = copy.deepcopy(rival.network)
    with torch.inference_mode():
        expected = rival.network(image)
        for part in copied.modules():
            if "calculate_mask" in vars(type(part)) and not hasattr(part, "remembered_mask"):
                vars(part)["calculate_mask"] = _refuse
        assert torch.equal(copied(image), expected)


def _refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("a mask was computed in a forward pass")


def test_a_remembered_mask_moves_and_is_copied_with_its_network() -> None:
    """A copy in another precision recalls its own."""
    network = nn.Module()
    network.remembered = RememberedMask(torch.ones(2))
    vars(network)["calculate_mask"] = network.remembered.recall
    copied = copy.deepcopy(network).half()
    assert vars(copied)["calculate_mask"]((8, 8)).dtype == torch.float16
    assert vars(network)["calculate_mask"]((8, 8), dtype=None).dtype == torch.float32


def test_another_number_of_parameters_is_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is refused: 12 parameters for a published 13 thousand."""
    rival = PublishedRival(
        architecture="Linear", build=lambda *_: nn.Linear(3, 3), thousands={2: 13}, source="-"
    )
    monkeypatch.setitem(PUBLISHED_RIVALS, "linear", rival)
    with pytest.raises(ConfigurationError, match="12 parameters"):
        build_rival("Linear", scale=2, height=8, width=8)
    with pytest.raises(ConfigurationError, match="known at x2, not at x3"):
        build_rival("linear", scale=3, height=8, width=8)


def test_who_is_left_out_is_told_why() -> None:
    """And whoever is unknown, who is known."""
    for name, reason in LEFT_OUT.items():
        with pytest.raises(ConfigurationError, match=reason.split(";")[0]):
            rival_key(name)
    with pytest.raises(ConfigurationError, match="swinir-light"):
        rival_key("swinir")
    assert rival_key("SwinIR_light") == "swinir-light"


def test_a_missing_spandrel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""

    def build(*_: int) -> nn.Module:
        raise ModuleNotFoundError("No module named 'spandrel'", name="spandrel")

    rival = PublishedRival(architecture="-", build=build, source="-")
    monkeypatch.setitem(PUBLISHED_RIVALS, "absent", rival)
    with pytest.raises(MissingExtraError, match=r"escsr\[rivals\]"):
        build_rival("absent", scale=2, height=8, width=8)
