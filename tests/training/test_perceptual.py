"""The perceptual loss: its network, where its weights come from, and where gradients go."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from escsr.errors import CheckpointError, MissingExtraError
from escsr.training.perceptual import PerceptualLoss, VGG19Features, load_vgg19
from escsr.training.recipe import VGG19_CONVOLUTIONS

PAPERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
INDEX = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
"""Of these convolutions in torchvision's ``vgg19().features``."""


@pytest.fixture(scope="module")
def vgg19() -> VGG19Features:
    """With random weights."""
    return load_vgg19("random", seed=0)


@pytest.fixture
def loss(vgg19: VGG19Features) -> PerceptualLoss:
    """The paper's, on random weights."""
    return PerceptualLoss(vgg19, PAPERS)


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)


@pytest.fixture
def without_internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torchvision that cannot reach its server."""

    class Weights:
        url = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"

        @staticmethod
        def get_state_dict(**_: object) -> dict[str, Tensor]:
            raise OSError("<urlopen error [Errno -2] Name or service not known>")

    models = ModuleType("torchvision.models")
    models.VGG19_Weights = type("VGG19_Weights", (), {"IMAGENET1K_V1": Weights})  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    yield


def pictures(*, size: int = 32) -> tuple[Tensor, Tensor]:
    """A result and a truth."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(2, 3, size, size, generator=generator)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)), truth


def test_the_convolutions_lie_where_torchvision_has_them(vgg19: VGG19Features) -> None:
    """16 of them, 20,024,384 parameters, and those that count at torchvision's places."""
    assert len(VGG19_CONVOLUTIONS) == 16
    assert VGG19_CONVOLUTIONS[-1] == "conv5_4"
    # torchvision's 143,667,240 without the three linear layers.
    linear = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert sum(part.numel() for part in vgg19.parameters()) == 143_667_240 - linear
    names = set(vgg19.state_dict())
    assert {f"features.{index}.weight" for index in INDEX.values()} <= names
    assert vgg19.features[16].weight.shape == (256, 256, 3, 3)


def test_the_features_are_those_before_relu(vgg19: VGG19Features) -> None:
    """As computed layer by layer; below 0 there is something, and later layers change nothing."""
    image = pictures()[0]
    with torch.no_grad():
        outputs = vgg19(image, PAPERS)
        for name, index in INDEX.items():
            expected = vgg19.features[: index + 1](image)
            torch.testing.assert_close(outputs[name], expected, rtol=0, atol=0)
            assert float(outputs[name].min()) < 0
    assert list(outputs) == list(PAPERS)
    assert outputs["conv5_4"].shape == (2, 512, 2, 2)


def test_the_loss_of_equal_images_is_0(loss: PerceptualLoss) -> None:
    """Exactly."""
    image = pictures()[0]
    assert float(loss(image, image)) == 0.0


def test_the_loss_is_the_weighted_sum_of_mean_differences(
    loss: PerceptualLoss, vgg19: VGG19Features
) -> None:
    """After ImageNet's normalisation, written here by hand; the order of sums leaves 5 digits."""
    result, truth = pictures()
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    with torch.no_grad():
        seen = [vgg19((image - mean) / deviation, PAPERS) for image in (result, truth)]
        expected = sum(
            weight * float(F.l1_loss(seen[0][name], seen[1][name]))
            for name, weight in PAPERS.items()
        )
        assert float(loss(result, truth)) == pytest.approx(expected, rel=1e-5)


def test_a_layer_of_weight_0_is_not_computed(vgg19: VGG19Features) -> None:
    """So 8 pixels suffice where conv5_4, behind four poolings, has none."""
    loss = PerceptualLoss(vgg19, {"conv1_2": 1.0, "conv5_4": 0.0})
    assert float(loss(*pictures(size=8))) > 0


def test_gradients_reach_the_result_and_nothing_else(
    loss: PerceptualLoss, vgg19: VGG19Features
) -> None:
    """Neither the truth nor the network's weights."""
    result, truth = pictures()
    result.requires_grad_()
    truth.requires_grad_()
    loss(result, truth).backward()
    assert result.grad is not None
    assert float(result.grad.abs().sum()) > 0
    assert truth.grad is None
    assert all(weight.grad is None for weight in vgg19.parameters())


def test_random_weights_are_those_of_their_seed(vgg19: VGG19Features) -> None:
    """A resumed run sees the same; the random numbers of the run are not touched."""
    before = torch.get_rng_state()
    again, other = load_vgg19("random", seed=0), load_vgg19("random", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [network.state_dict()["features.34.weight"] for network in (vgg19, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("name", "prefix"), [("vgg19.pth", "features."), ("a.safetensors", "")])
def test_a_given_file_is_used(vgg19: VGG19Features, tmp_path: Path, name: str, prefix: str) -> None:
    """Torchvision's state dict, of which the linear layers are left aside; or the features alone.

    In half precision here, to write less.
    """
    tensors = {
        f"{prefix}{key.removeprefix('features.')}": tensor.bfloat16()
        for key, tensor in vgg19.state_dict().items()
    }
    tensors["classifier.6.bias"] = torch.zeros(1000)
    path = tmp_path / name
    (torch.save if path.suffix == ".pth" else save_file)(tensors, path)
    read = load_vgg19("imagenet", path, seed=0).state_dict()
    for key, tensor in vgg19.state_dict().items():
        assert torch.equal(read[key], tensor.bfloat16().float())


def test_missing_torchvision_is_told_with_what_to_do(without_torchvision: None) -> None:
    """Install it, or give the file."""
    with pytest.raises(MissingExtraError, match=r"pip install 'escsr\[perceptual\]'; or give .*"):
        load_vgg19("imagenet", seed=0)


def test_a_failed_download_is_told_with_the_address_and_the_option(without_internet: None) -> None:
    """Fetched elsewhere, the file can be given."""
    with pytest.raises(CheckpointError) as caught:
        load_vgg19("imagenet", seed=0)
    message = str(caught.value)
    assert "could not be downloaded (<urlopen error" in message
    assert "Fetch https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message
    assert "--perceptual-weights FILE" in message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(CheckpointError, match=r"none.pth does not exist"):
        load_vgg19("imagenet", tmp_path / "none.pth", seed=0)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"conv.weight": torch.zeros(1)}, "features.0.weight is missing"),
        (
            {"features.0.weight": torch.zeros(64, 3, 5, 5)},
            r"features.0.weight has the shape \(64, 3, 5, 5\), needed is \(64, 3, 3, 3\)",
        ),
    ],
)
def test_a_file_of_another_network_is_told_with_what_it_lacks(
    tmp_path: Path, tensors: dict[str, Tensor], reason: str
) -> None:
    """The first tensor that does not fit, and what to give instead."""
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=rf"(?s)other.*{reason}.*torchvision's vgg19 state"):
        load_vgg19("imagenet", path, seed=0)
