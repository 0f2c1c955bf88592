"""The weights that come with the package."""

from pathlib import Path

import numpy as np
import pytest
from tests.networks import random_weights

import escsr
from escsr.errors import CheckpointError
from escsr.family import VARIANTS, ESCConfig, variant
from escsr.family.weight_shapes import count_weights
from escsr.weights import BundledModel, Provenance, bundled_models, save_state


@pytest.fixture
def shipped() -> list[BundledModel]:
    """What is in the package's own box; skips while it is empty."""
    models = bundled_models()
    if not models:
        pytest.skip("no trained weights are in the package yet")
    return models


def test_a_folder_is_listed_by_name_and_scale(
    tmp_path: Path, small_config: ESCConfig, provenance: Provenance
) -> None:
    """Files whose names say no scale are not part of the box."""
    weights = random_weights(small_config)
    for name in ("esc-tiny-x4", "esc-tiny-x2", "esc-a-x3", "notes"):
        path = tmp_path / f"{name}.safetensors"
        save_state(path, small_config, weights, provenance=provenance)
    models = bundled_models(tmp_path)
    assert [(model.name, model.scale) for model in models] == [
        ("esc-a", 3),
        ("esc-tiny", 2),
        ("esc-tiny", 4),
    ]
    assert models[0].header.provenance == provenance
    assert models[0].size_bytes == models[0].path.stat().st_size


def test_an_empty_box_lists_nothing(tmp_path: Path) -> None:
    """Also where there is no folder."""
    assert bundled_models(tmp_path) == bundled_models(tmp_path / "missing") == []


def test_a_damaged_file_in_the_box_is_an_error(tmp_path: Path) -> None:
    """Not silently left out."""
    (tmp_path / "esc-tiny-x2.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="esc-tiny-x2"):
        bundled_models(tmp_path)


def test_the_box_is_small(shipped: list[BundledModel]) -> None:
    """At most 4 MB in all; esc-tiny of at most 150 K parameters, esc-small of 350 K."""
    assert sum(model.size_bytes for model in shipped) <= 4_000_000
    for model in shipped:
        largest = 350_000 if model.name == "esc-small" else 150_000
        assert count_weights(model.header.config) <= largest


def test_every_shipped_file_is_what_its_name_says(shipped: list[BundledModel]) -> None:
    """Name and scale agree with the header, and the named variant with the configuration."""
    for model in shipped:
        stated = model.header.provenance.variant
        assert stated in VARIANTS
        assert model.name in (stated, f"{stated}-real")
        assert model.header.config == variant(stated, scale=model.scale)


def test_every_shipped_file_states_where_it_comes_from(shipped: list[BundledModel]) -> None:
    """Licence, data, recipe and measured quality; nothing of the machine it was trained on."""
    for model in shipped:
        provenance = model.header.provenance
        assert provenance.licence
        assert provenance.training_data
        assert provenance.recipe
        assert provenance.quality
        assert "/home/" not in str(model.header)


def test_every_shipped_network_enlarges_without_changing_colours(
    shipped: list[BundledModel],
) -> None:
    """A flat grey stays grey within 2 of 255 levels, away from the borders."""
    for model in shipped:
        network = escsr.open_network(model.name, scale=model.scale)
        image = network(np.full((1, 3, 32, 32), 0.5, np.float32))
        assert image.shape == (1, 3, 32 * model.scale, 32 * model.scale)
        border = 8 * model.scale
        inside = image[..., border:-border, border:-border]
        assert np.abs(inside - 0.5).max() <= 2 / 255
