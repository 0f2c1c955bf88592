"""What comes out of a run: averaged weights, judged, with their recipe and licence in the file."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch
from torch import nn

from escsr.evaluation.protocol import evaluate_officially, mean_quality
from escsr.evaluation.test_sets import TestPair
from escsr.model.network import ESC
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import recipe_text
from escsr.weights import Provenance, save_weights


def measured_quality(
    network: nn.Module, test_sets: Mapping[str, Sequence[TestPair]]
) -> dict[str, float]:
    """PSNR-Y in dB and SSIM-Y of a network on the CPU, by the official tester's protocol."""
    assert isinstance(network, ESC)
    quality: dict[str, float] = {}
    for name, pairs in test_sets.items():
        psnr_y_db, ssim_y = mean_quality(evaluate_officially(network, pairs))
        quality |= {psnr_key(name): round(psnr_y_db, 3), f"{name} SSIM-Y": round(ssim_y, 4)}
    return quality


def psnr_key(test_set: str) -> str:
    """The name under which a file of weights states its PSNR-Y on a test set."""
    return f"{test_set} PSNR-Y dB"


def save_trained(
    path: Path, network: nn.Module, recipe: Recipe, quality: Mapping[str, float]
) -> None:
    """Write weights in float16, with recipe, licence, data and figures in the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    assert isinstance(network, ESC)
    provenance = Provenance(
        licence=recipe.licence,
        training_data=recipe.training_data,
        date=date.today().isoformat(),
        variant=recipe.model,
        recipe_name=recipe.name,
        recipe=recipe_text(recipe),
        source="trained with escsr",
        quality=dict(quality),
    )
    save_weights(path, network, provenance=provenance, dtype=torch.float16)
