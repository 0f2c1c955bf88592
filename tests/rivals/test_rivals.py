"""Foreign networks: files that spandrel loads, and a user's ``module:callable``."""

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from escsr.engines.opening import open_any_network
from escsr.errors import CheckpointError, ConfigurationError, MissingExtraError
from escsr.rivals.rivals import load_rival
from escsr.upscaling import Upscaler
from escsr.weights.loading import is_module_callable
from tests.networks import batches, smallest

USER_MODULE = """
import torch
from torch import nn

class Nearest(nn.Module):
    def forward(self, image):
        return nn.functional.interpolate(image, scale_factor=3)

class Stated(Nearest):
    scale = 3

class Transposing(nn.Module):
    def forward(self, image):
        return image.transpose(2, 3)

class Failing(nn.Module):
    def forward(self, image):
        raise IndexError("off by one")

def broken():
    raise KeyError("no weights")

def number():
    return 7

constant = 7
"""


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module of the user's in it, forgotten afterwards."""
    (tmp_path / "my_networks.py").write_text(USER_MODULE)
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "half_written.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    for name in ("my_networks", "needs_more", "half_written"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize("name", ["my_networks:Nearest", "my_networks:Stated"])
def test_a_users_network_is_loaded_from_the_current_folder(name: str) -> None:
    """Its factor is what it states, or what it does to a small image; the path is put back."""
    path_before = list(sys.path)
    rival = load_rival(name)
    assert sys.path == path_before
    assert (rival.name, rival.scale, rival.sha256) == (name, 3, None)
    assert not rival.network.training
    assert rival.network(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 15, 21)


@pytest.mark.usefixtures("user_folder")
def test_an_upscaler_takes_what_an_evaluation_takes() -> None:
    """A user's network by its name, with its own factor and no other."""
    opened = open_any_network("my_networks:Stated")
    assert (opened.label, opened.scale, opened.architecture) == ("my_networks:Stated", 3, "Stated")
    assert (opened.path, opened.sha256, opened.config) == (None, None, None)
    image = (batches(1, 5, 7)[0].transpose(1, 2, 0) * 255).astype("uint8")
    upscaler = Upscaler("my_networks:Stated", device="cpu")
    assert (upscaler.scales, upscaler.model_name) == ((3,), "my_networks:Stated")
    assert (upscaler(image) == image.repeat(3, 0).repeat(3, 1)).all()
    with pytest.raises(ConfigurationError, match="is a x3 network, and x2 was asked for"):
        open_any_network("my_networks:Stated", scale=2)


@pytest.mark.parametrize("source", ["my_networks:Nearest", "other.pth"])
def test_a_foreign_network_without_torch_names_the_extra(
    source: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only torch runs says so; a file of ours needs none."""
    torch.save({"w": torch.zeros(1)}, user_folder / "other.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'escsr\[torch\]'"):
        open_any_network(source)
    assert open_any_network(smallest(2)).scale == 2


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:build", "no module 'no_such_module'"),
        ("needs_more:build", "needs a_package_that_nobody_has"),
        ("half_written:build", "SyntaxError"),
        ("my_networks:Near", "no 'Near'; it has Failing, Nearest"),
        ("my_networks:constant", "constant is a int"),
        ("my_networks:number", r"number\(\) returned a int"),
        ("my_networks:broken", "KeyError: 'no weights'"),
        ("my_networks:Failing", "IndexError: off by one"),
        ("my_networks:Transposing", r"\(1, 3, 64, 48\)"),
    ],
)
def test_a_users_network_that_cannot_be_is_named_with_the_reason(name: str, told: str) -> None:
    """Missing, unfinished, failing, or no network."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        load_rival(name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("package.module:Class.build", True),
        ("module:build", True),
        (r"C:\weights.pth", False),
        ("C:/weights.pth", False),
        ("weights.pth", False),
        ("module:", False),
        ("a b:c", False),
    ],
)
def test_what_is_spelled_as_module_callable(text: str, is_one: bool) -> None:
    """Paths are not, with a drive's letter neither."""
    assert is_module_callable(text) is is_one


def test_without_its_packages_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None in sys.modules is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = tmp_path / "other.pth"
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(MissingExtraError, match=r"spandrel: pip install 'escsr\[rivals\]'"):
        load_rival(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything is imported."""
    with pytest.raises(CheckpointError, match=r"gone\.pth cannot be read"):
        load_rival(tmp_path / "gone.pth")


def _spandrel_or_skip() -> None:
    # Its registry imports torchvision, which is no dependency of ours.
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    pytest.importorskip("spandrel", reason="spandrel is not installed (extra: rivals)")


@pytest.fixture(scope="session")
def rivals_folder() -> Path:
    """Trained weights of others, beside the folder that ESCSR_DATA names."""
    _spandrel_or_skip()
    folder = Path(os.environ.get("ESCSR_DATA", "missing")).parent / "rivals"
    if not folder.is_dir():
        pytest.skip("there is no folder `rivals` beside the one that ESCSR_DATA names")
    return folder


# CRAFT builds its grids by torch.meshgrid without saying in which order.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize(
    ("file", "architecture", "parameters"),
    [("craft-x4.pth", "CRAFT", 753_344), ("realesr-general-x4v3.pth", "RealESRGAN Compact", None)],
)
def test_trained_rivals_take_images_of_any_size(
    rivals_folder: Path, file: str, architecture: str, parameters: int | None
) -> None:
    """CRAFT alone takes multiples of 16 pixels only; beyond that it is extended and cropped."""
    rival = load_rival(rivals_folder / file)
    assert rival.scale == 4
    assert rival.architecture == architecture
    assert parameters in (None, rival.parameters)
    assert rival.sha256 is not None
    assert not rival.network.training
    with torch.inference_mode():
        assert rival.network(torch.full((1, 3, 9, 21), 0.5)).shape == (1, 3, 36, 84)


def test_weights_of_an_unknown_architecture_are_refused(tmp_path: Path) -> None:
    """With the way out: a function of the user's."""
    _spandrel_or_skip()
    path = tmp_path / "unknown.pth"
    torch.save(nn.Linear(3, 3).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"no architecture that spandrel .*module:callable"):
        load_rival(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    """The unpickler of spandrel builds tensors and nothing else."""
    _spandrel_or_skip()
    path, proof = tmp_path / "evil.pth", tmp_path / "proof"
    path.write_bytes(pickle.dumps(_Touch(proof)))
    with pytest.raises(CheckpointError, match=r"cannot be loaded by spandrel"):
        load_rival(path)
    assert not proof.exists()


class _Touch:
    """Makes a file when it is unpickled by whoever allows that."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)
