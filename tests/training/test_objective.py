"""The terms of a loss: their names, their weights, and what each of them looks at."""

import math

import pytest
import torch
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.training.batches import PairBatch
from escsr.training.launching import launch
from escsr.training.perceptual import PerceptualLoss, load_vgg19
from escsr.training.recipe import LossRecipe, Recipe
from escsr.training.step import Objective, fft_loss, l1_loss, l2_loss

FLOAT32 = 1e-6
"""Of a mean of a few hundred numbers, relative."""


@pytest.fixture
def result() -> Tensor:
    """Two pictures of 16 pixels a side."""
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def batch() -> PairBatch:
    """Whose target is not what is real."""
    generator = torch.Generator().manual_seed(2)
    target, real = torch.rand(2, 2, 3, 16, 16, generator=generator)
    return PairBatch(torch.rand(2, 3, 8, 8, generator=generator), target, real)


def objective_of(recipe: Recipe, **loss: float) -> Objective:
    """With these weights, without networks."""
    recipe = recipe.model_copy(update={"loss": LossRecipe(**loss)})
    return Objective(recipe, launch(recipe, device="cpu"), perceptual=None, judge=None)


def test_the_terms_are_multiplied_by_their_weights(
    recipe: Recipe, result: Tensor, batch: PairBatch
) -> None:
    """L1 with 0.05 of the spectrum's, as efficient networks are trained."""
    objective = objective_of(recipe, l1=1.0, fft=0.05)
    assert objective.names == ("l1", "fft")
    expected = [float(l1_loss(result, batch.target)), 0.05 * float(fft_loss(result, batch.target))]
    assert objective(result, batch).tolist() == pytest.approx(expected, rel=FLOAT32)


def test_a_term_of_weight_0_is_not_computed(recipe: Recipe) -> None:
    """An infinite value in it would spoil the sum: 0 x inf is NaN."""
    wild, truth = torch.full((1, 3, 16, 16), 1e30), torch.zeros(1, 3, 16, 16)
    terms = objective_of(recipe, l1=1.0)(wild, PairBatch.of_patches(truth, truth))
    assert math.isfinite(float(terms.sum()))
    assert math.isinf(l2_loss(wild, truth))


def test_a_half_precision_result_is_compared_in_float32(
    recipe: Recipe, result: Tensor, batch: PairBatch
) -> None:
    """The mean is not rounded to 8 bits."""
    half = result.bfloat16()
    terms = objective_of(recipe, l1=1.0)(half, batch)
    assert terms.dtype == torch.float32
    expected = float(l1_loss(half.float(), batch.target))
    assert float(terms.sum()) == pytest.approx(expected, rel=FLOAT32)


def test_each_term_looks_at_what_it_is_for(
    recipe: Recipe, result: Tensor, batch: PairBatch
) -> None:
    """L1 and VGG19 at the (sharpened) target, the discriminator at the result alone."""
    recipe = recipe.model_copy(update={"loss": LossRecipe(l1=1.0, perceptual=0.5, gan=0.1)})
    perceptual = PerceptualLoss(load_vgg19("random", seed=0), {"conv1_2": 1.0})
    seen: list[Tensor] = []

    def judge(sr_batch: Tensor) -> Tensor:
        seen.append(sr_batch)
        return torch.zeros(2, 1, 16, 16)

    objective = Objective(recipe, launch(recipe, device="cpu"), perceptual=perceptual, judge=judge)
    assert objective.names == ("l1", "perceptual", "gan")
    expected = [
        float(l1_loss(result, batch.target)),
        0.5 * float(perceptual(result, batch.target)),
        0.1 * math.log(2),  # undecided
    ]
    assert objective(result, batch).tolist() == pytest.approx(expected, rel=FLOAT32)
    (image,) = seen
    assert torch.equal(image, result)


def test_a_perceptual_loss_without_its_network_is_refused(recipe: Recipe) -> None:
    """Rather than left out."""
    with pytest.raises(ConfigurationError, match=r"No perceptual network .* loss.perceptual is 1;"):
        objective_of(recipe, perceptual=1.0)
