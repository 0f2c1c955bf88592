"""The model cards in docs/ say what the files in the box say."""

import re
from pathlib import Path

import pytest

from escsr.weights import bundled_models
from escsr.weights.box import BundledModel

ROOT = Path(__file__).parents[1]
NIQE_KEY = "RealSRSet NIQE"
"""What networks for photographs as they are are judged by."""
MODELS = {f"{model.name}-x{model.scale}": model for model in bundled_models()}


@pytest.mark.parametrize("stem", MODELS)
def test_every_network_in_the_box_has_a_card_with_its_figures(stem: str) -> None:
    """Rewrite them with `python docs/models/make_cards.py`."""
    model = MODELS[stem]
    card = (ROOT / "docs" / "models" / f"{stem}.md").read_text(encoding="utf-8")
    assert model.header.sha256[:16] in card
    assert model.header.provenance.licence in card
    assert (ROOT / "docs" / "models" / f"{stem}.png").stat().st_size > 10_000
    if NIQE_KEY in model.header.provenance.quality:
        assert f"| {model.name} | {model.header.provenance.quality[NIQE_KEY]:.2f} |" in card
        return
    for test_set in ("Set5", "Set14", "B100"):
        assert f"| {test_set} | {figures(model, test_set)} |" in card


@pytest.mark.parametrize("stem", MODELS)
def test_the_readme_states_the_figures_of_the_box(stem: str) -> None:
    """One row per network: parameters and PSNR-Y / SSIM-Y, or NIQE."""
    model = MODELS[stem]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{model.name}` x{model.scale} \|.*$", readme, re.MULTILINE)
    assert row is not None
    if NIQE_KEY in model.header.provenance.quality:
        assert f"NIQE {model.header.provenance.quality[NIQE_KEY]:.2f}" in row[0]
        return
    assert [figures(model, name) for name in ("Set5", "Set14", "B100")] == [
        cell.strip() for cell in row[0].split("|")[3:6]
    ]


@pytest.mark.parametrize("stem", MODELS)
def test_every_network_in_the_box_has_its_recipe_and_its_log(stem: str) -> None:
    """`recipes/shipped/NAME.toml`, and the log beside the weights."""
    model = MODELS[stem]
    recipe_name = model.header.provenance.recipe_name
    assert (ROOT / "recipes" / "shipped" / f"{recipe_name}.toml").is_file()
    assert model.path.with_name(f"{stem}.log.csv").is_file()


def figures(model: BundledModel, test_set: str) -> str:
    """PSNR-Y in dB / SSIM-Y as the tables state them."""
    quality = model.header.provenance.quality
    return f"{quality[f'{test_set} PSNR-Y dB']:.2f} / {quality[f'{test_set} SSIM-Y']:.4f}"
