"""``[gan]`` and ``[perceptual]`` of a recipe: ESC-Real's second stage, with its figures.

Source: ESC, arXiv:2503.06671; Wang et al., "Real-ESRGAN", arXiv:2107.10833.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from escsr.training.adversarial.gan_losses import GanKind
from escsr.training.adversarial.perceptual import VGG19_CONVOLUTIONS
from escsr.training.adversarial.perceptual_weights import PerceptualWeights
from escsr.training.recipe_section import Decays, RecipeSection


def _known_layers(weights: dict[str, float]) -> dict[str, float]:
    unknown = [name for name in weights if name not in VGG19_CONVOLUTIONS]
    if unknown:
        raise ValueError(
            f"there is no {', '.join(unknown)} in VGG19; it has {', '.join(VGG19_CONVOLUTIONS)}"
        )
    if not any(weights.values()):
        raise ValueError("all weights are 0; give at least one layer, such as conv5_4 = 1")
    return weights


class GanRecipe(RecipeSection):
    """``[gan]``: the discriminator, used where ``loss.gan`` has a weight."""

    kind: GanKind = "vanilla"
    """What both networks make small: cross entropy, squared distance, or distance from a margin."""
    channels: int = Field(default=64, ge=1)
    """Of the discriminator at full size."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of the discriminator at its highest; it follows ``[schedule]`` as the network's does."""
    betas: Decays = (0.9, 0.99)
    """Of its optimiser, which is Adam."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Its gradients are shrunk to this norm; leave it out for no clipping."""


class PerceptualRecipe(RecipeSection):
    """``[perceptual]``: VGG19's features, used where ``loss.perceptual`` has a weight."""

    weights: PerceptualWeights = "imagenet"
    """Of VGG19: trained on ImageNet, from torchvision or ``--perceptual-weights``; or random, which
    is for tests alone."""
    layers: Annotated[dict[str, Annotated[float, Field(ge=0)]], AfterValidator(_known_layers)] = (
        Field(
            default={"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
        )
    )
    """Weight of each convolution's features, taken before ReLU. Those of a base recipe stay: set
    them to 0."""
