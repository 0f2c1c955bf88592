"""Short runs against a discriminator for the tests: the smallest recipe, made a GAN's."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from escsr.training.adversarial import Adversary
from escsr.training.batches import BatchSource
from escsr.training.perceptual import PerceptualLoss, VGG19Features, load_vgg19
from escsr.training.recipe import Recipe
from escsr.training.state import TrainingState
from tests.training.runs import RECIPE
from tests.training.runs import train as train_classic

GAN_RECIPE: dict[str, Any] = RECIPE | {
    "name": "smallest-gan",
    "scale": 4,
    "data": {"batch_size": 2, "patch_pixels": 8},
    "loss": {"l1": 1.0, "perceptual": 1.0, "gan": 0.1},
    "optimizer": {"kind": "adam", "learning_rate": 1e-3, "betas": (0.9, 0.99)},
    "schedule": {"kind": "constant"},
    "perceptual": {"weights": "random", "layers": {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0}},
    "gan": {"channels": 4, "learning_rate": 1e-3},
}
"""Six steps x4 on patches of 8 pixels, a discriminator of 4 channels, a few layers of VGG19."""


def adversary_of(state: TrainingState) -> Adversary:
    """Of a state that has one."""
    assert state.adversary is not None
    return state.adversary


def perceptual_of(recipe: Recipe) -> PerceptualLoss:
    """The recipe's, on random weights, of torch's default dtype."""
    features = _random_vgg19(recipe.seed, torch.get_default_dtype())
    return PerceptualLoss(features, recipe.perceptual.layers)


@cache
def _random_vgg19(seed: int, dtype: torch.dtype) -> VGG19Features:
    return load_vgg19("random", seed=seed).to(dtype)


def train(
    recipe: Recipe,
    photographs: Path | BatchSource,
    out: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    state: TrainingState | None = None,
) -> TrainingState:
    """Train as ``tests.training.runs`` does, looking with random weights of VGG19."""
    return train_classic(
        recipe,
        photographs,
        out,
        resume=resume,
        stop_after=stop_after,
        state=state,
        perceptual=perceptual_of(recipe),
    )
