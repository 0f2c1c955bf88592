"""What may stand in a table: ours, foreign ones, and bicubic."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from escsr.engines.engine import Engine
from escsr.engines.opening import OpenedNetwork
from escsr.errors import CheckpointError, ConfigurationError, MissingExtraError, UnknownModelError
from escsr.evaluation.contenders import MatlabBicubic, distinguished, open_contender
from escsr.weights import bundled_models


@pytest.mark.parametrize("source", ["esc-tiny", "ESC_tiny", "esc-tiny-x2"])
def test_a_name_in_the_box_brings_its_licence_and_hash(source: str) -> None:
    """However it is spelled."""
    contender = open_contender(source, scale=2)
    assert (contender.label, contender.scale, contender.licence) == ("esc-tiny", 2, "MIT")
    assert contender.padding_multiple("window") == 16
    assert contender.sha256 is not None
    assert contender.parameters == 101_136


def test_a_file_of_ours_is_labelled_by_its_stem() -> None:
    """And is the same network as by its name."""
    (path,) = (model.path for model in bundled_models() if model.scale == 2)
    by_path, by_name = open_contender(str(path)), open_contender("esc-tiny", scale=2)
    assert by_path.label == "esc-tiny-x2"
    assert by_path.sha256 == by_name.sha256


def test_bicubic_takes_any_scale_but_must_be_told_one() -> None:
    """The word, in any case."""
    contender = open_contender("Bicubic", scale=3)
    assert (contender.label, contender.scale) == ("bicubic", 3)
    assert contender.prepared(padding="window", self_ensemble=False, device="cpu")(
        np.zeros((2, 3, 4, 5), np.float32)
    ).shape == (2, 3, 12, 15)
    with pytest.raises(ConfigurationError, match="any scale"):
        open_contender("bicubic")


def test_the_window_padding_is_for_networks_that_have_windows() -> None:
    """Others are given the image, extended only where they need it."""
    ours, bicubic = open_contender("esc-tiny", scale=2), open_contender("bicubic", scale=2)
    assert ours.padding_multiple("window") == 16
    assert ours.padding_multiple("none") == 1
    assert bicubic.padding_multiple("window") == 1
    foreign = OpenedNetwork(
        label="f",
        scale=2,
        architecture="f",
        parameters=1,
        module=torch.nn.Identity(),
        size_multiple=8,
    )
    assert replace(bicubic, network=foreign).padding_multiple("window") == 8


def test_the_baseline_takes_no_part_in_self_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures are those that everyone publishes; networks are asked eight times."""
    runs: list[tuple[int, ...]] = []
    run = Engine.run
    monkeypatch.setattr(
        Engine, "run", lambda self, *given: (runs.append(given[0].shape), run(self, *given))[1]
    )
    lr_image = np.random.default_rng(0).integers(0, 256, (1, 3, 10, 12)).astype(np.float32) / 255
    results = [
        open_contender(source, scale=2).prepared(
            padding="window", self_ensemble=True, device="cpu"
        )(lr_image)
        for source in ("esc-tiny", "bicubic")
    ]
    assert [result.shape for result in results] == [(1, 3, 20, 24)] * 2
    assert runs == [(1, 3, 10, 12)] * 4 + [(1, 3, 12, 10)] * 4
    assert np.array_equal(results[1], MatlabBicubic(2)(lr_image))


def test_contenders_of_one_label_are_told_apart() -> None:
    """By their whole source, and where that is one too, by their place."""
    first = open_contender("bicubic", scale=2)
    others = [replace(first, source=source) for source in ("a/x.pth", "b/x.pth", "b/x.pth")]
    alone = replace(first, label="alone")
    labels = [contender.label for contender in distinguished([*others, alone])]
    assert labels == ["a/x.pth", "b/x.pth #2", "b/x.pth #3", "alone"]


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """A mistyped name, a missing file, a file that is no weights, a wrong scale."""
    text = tmp_path / "notes.pth"
    text.write_text("no weights")
    (path,) = (str(model.path) for model in bundled_models() if model.scale == 2)
    with pytest.raises(UnknownModelError, match="esc-tiny"):
        open_contender("esc-tny", scale=2)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_contender(str(tmp_path / "gone.pth"))
    with pytest.raises(CheckpointError, match="neither a safetensors nor a PyTorch file"):
        open_contender(str(text))
    with pytest.raises(CheckpointError, match="x2 network, and x4"):
        open_contender(path, scale=4)


def test_weights_of_another_architecture_go_to_the_rivals_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says what it needs where spandrel is missing."""
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3, 3, 3, 3)}, path)
    with pytest.raises(MissingExtraError, match=r"escsr\[rivals\]"):
        open_contender(str(path))


def test_bicubic_keeps_each_image_of_a_batch_apart() -> None:
    """And gives the levels of an 8-bit file."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 7)).astype(np.float32) / 255
    network = MatlabBicubic(2)
    result = network(images)
    assert np.array_equal(result, np.concatenate([network(images[:1]), network(images[1:])]))
    assert np.allclose(result * 255, (result * 255).round(), atol=1e-4)
