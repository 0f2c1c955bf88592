"""The perceptual network of a run: opened once, before anything is trained."""

import logging
from pathlib import Path

import torch
from lightning_fabric import Fabric

from escsr.errors import ConfigurationError
from escsr.training.adversarial.perceptual import PerceptualLoss
from escsr.training.adversarial.perceptual_weights import load_vgg19
from escsr.training.recipe import Recipe

_log = logging.getLogger("escsr")


def open_perceptual(
    recipe: Recipe, file: Path | None, fabric: Fabric, *, is_rehearsal: bool
) -> PerceptualLoss | None:
    """What ``loss.perceptual`` of a recipe looks with; None where it has no weight.

    Args:
        recipe: says which weights.
        file: VGG19's; None lets torchvision bring them, once per machine.
        fabric: launched.
        is_rehearsal: do with random weights where no file is given: nothing is downloaded.
    Raises:
        ConfigurationError: a file was given and the recipe asks for random weights.
        MissingExtraError, CheckpointError: there are no weights; see ``load_vgg19``.
    """
    weights = recipe.perceptual.weights
    if not recipe.loss.perceptual:
        if file is not None:
            _log.warning("%s is left aside: loss.perceptual has no weight.", file)
        return None
    if weights == "random" and file is not None:
        raise ConfigurationError(
            f'{file} was given, but the recipe says perceptual.weights = "random"; leave out '
            '--perceptual-weights, or set perceptual.weights to "imagenet".'
        )
    if weights == "imagenet" and file is None and is_rehearsal:
        _log.warning(
            "a real run needs the weights of VGG19, which torchvision brings, or "
            "--perceptual-weights FILE; this one does with random ones"
        )
        weights = "random"
    with fabric.rank_zero_first(local=True):
        features = load_vgg19(weights, file, seed=recipe.seed)
    loss = PerceptualLoss(features, recipe.perceptual.layers)
    return loss.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
