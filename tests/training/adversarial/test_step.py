"""A step against a discriminator: both networks learn, each from what is its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from escsr.training.adversarial import fake_loss, generator_loss, real_loss
from escsr.training.batches import PairBatch
from escsr.training.launching import launch
from escsr.training.recipe import GanKind, Recipe
from escsr.training.recipe_file import check_recipe
from escsr.training.state import TrainingState
from escsr.training.step import TrainingStep, l1_loss
from tests.training.adversarial.runs import GAN_RECIPE, adversary_of, perceptual_of
from tests.training.runs import changed, open_source, start_state


@pytest.fixture
def recipe() -> Recipe:
    """The smallest GAN's, of four pairs."""
    return changed(check_recipe(GAN_RECIPE, origin="the tests"), data={"batch_size": 4})


@pytest.fixture
def batch(recipe: Recipe, photographs: Path) -> PairBatch:
    """The first of the recipe, with a target that is not what is real."""
    lr_image, hr_image, _ = open_source(recipe, photographs).batch(0).tensors
    return PairBatch(lr_image, (1.1 * hr_image - 0.05).clamp(0, 1), hr_image)


def step_on(
    recipe: Recipe, batch: PairBatch, *, steps: int = 1, fabric: Fabric | None = None
) -> tuple[TrainingState, list[dict[str, float]]]:
    """Train on one batch again and again; the state and the losses of each step by name."""
    state = start_state(recipe)
    fabric = fabric or launch(recipe, device="cpu")
    perceptual = perceptual_of(recipe) if recipe.loss.perceptual else None
    step = TrainingStep(recipe, state, fabric, perceptual=perceptual)
    names = ("loss", *step.loss_names)
    rows = [step(batch).tolist() for _ in range(steps)]
    return state, [dict(zip(names, row, strict=True)) for row in rows]


def gradients_of(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Of all parameters, in one row per network."""
    return [
        torch.cat(
            [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
        )
        for network in networks
    ]


def networks_of(state: TrainingState) -> tuple[nn.Module, nn.Module]:
    """The two that are trained."""
    return state.network, adversary_of(state).discriminator


def in_float64(batch: PairBatch) -> PairBatch:
    """The batch, widened."""
    return PairBatch(batch.lr_image.double(), batch.target.double(), batch.real.double())


def assert_near(one: Tensor, other: Tensor, *, error: float) -> None:
    """By the norm of the difference; Adam's first step shows the sign of rounding, too."""
    assert float((one - other).norm() / other.norm()) < error


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge"])
def test_each_network_gets_the_gradient_of_its_own_loss(
    recipe: Recipe, batch: PairBatch, exact_fabric: Fabric, kind: GanKind
) -> None:
    """Written again by the formulas, from the weights before the step.

    The network learns from L1 + perceptual + 0.1 GAN against the target; the discriminator from
    what is real and from the results before the network's step, and from nothing else.
    """
    recipe, batch = changed(recipe, gan={"kind": kind}), in_float64(batch)
    network, discriminator = networks_of(start_state(recipe))
    sr_batch = network(batch.lr_image)
    terms = {
        "l1": l1_loss(sr_batch, batch.target),
        "perceptual": perceptual_of(recipe)(sr_batch, batch.target),
        "gan": 0.1 * generator_loss(kind, discriminator(sr_batch)),
    }
    sum(terms.values(), torch.zeros(())).backward()
    discriminator.zero_grad()
    own_terms = {
        "discriminator_real": real_loss(kind, discriminator(batch.real)),
        "discriminator_fake": fake_loss(kind, discriminator(sr_batch.detach())),
    }
    sum(own_terms.values(), torch.zeros(())).backward()

    state, (losses,) = step_on(recipe, batch, fabric=exact_fabric)
    expected = {name: float(term.detach()) for name, term in (terms | own_terms).items()}
    assert losses.pop("loss") == pytest.approx(sum(list(expected.values())[:3]))
    assert losses == pytest.approx(expected)
    pairs = zip(
        gradients_of(networks_of(state)), gradients_of((network, discriminator)), strict=True
    )
    for gradient, by_hand in pairs:
        assert_near(gradient, by_hand, error=1e-9)


def test_micro_batches_make_the_step_of_the_whole_batch_against_a_discriminator(
    recipe: Recipe, batch: PairBatch, exact_fabric: Fabric
) -> None:
    """Gradients, losses and singular vectors are those of one pass, but for the order of sums."""
    batch, divided = in_float64(batch), changed(recipe, optimizer={"micro_batches": 4})
    whole, (losses,) = step_on(recipe, batch, fabric=exact_fabric)
    parts, (parts_losses,) = step_on(divided, batch, fabric=exact_fabric)
    assert parts_losses == pytest.approx(losses)
    pairs = zip(gradients_of(networks_of(parts)), gradients_of(networks_of(whole)), strict=True)
    for gradient, expected in pairs:
        assert_near(gradient, expected, error=1e-9)
    buffers = dict(adversary_of(parts).discriminator.named_buffers())
    for name, vector in adversary_of(whole).discriminator.named_buffers():
        torch.testing.assert_close(buffers[name], vector, rtol=0, atol=1e-9)


def test_the_first_step_moves_both_networks_by_their_rates(
    recipe: Recipe, batch: PairBatch
) -> None:
    """Adam's first step is the sign of the gradient times the rate; here 1e-3 and 2e-4.

    The discriminator's follows the schedule: in the first of two steps of warm-up it is half 4e-4.
    """
    recipe = changed(
        recipe,
        optimizer={"learning_rate": 2e-3},
        gan={"learning_rate": 4e-4},
        schedule={"warmup_steps": 2},
    )
    state, _ = step_on(recipe, batch)
    before = networks_of(start_state(recipe))
    for network, start, rate in zip(networks_of(state), before, (1e-3, 2e-4), strict=True):
        moved = [
            (weight - old).abs().max()
            for weight, old in zip(network.parameters(), start.parameters(), strict=True)
        ]
        # A weight of size 1 is rounded to 6e-8.
        assert float(torch.stack(moved).max().detach()) == pytest.approx(rate, abs=1e-7)


def test_both_gradients_are_clipped_each_by_its_own_norm(recipe: Recipe, batch: PairBatch) -> None:
    """0.01 and 0.002; without clipping both are larger."""
    clipped = changed(recipe, optimizer={"clip_norm": 0.01}, gan={"clip_norm": 0.002})
    for chosen, expected in ((recipe, None), (clipped, (0.01, 0.002))):
        state, _ = step_on(chosen, batch)
        norms = [float(gradient.norm()) for gradient in gradients_of(networks_of(state))]
        if expected is None:
            assert norms[0] > 0.01
            assert norms[1] > 0.002
        else:
            assert norms == pytest.approx(expected, rel=1e-3)


def test_a_discriminator_learns_to_tell_results_from_photographs(
    recipe: Recipe, batch: PairBatch
) -> None:
    """Where the network hardly moves: both its losses fall below those of tossing a coin."""
    slow = changed(
        recipe,
        loss={"perceptual": 0.0},
        optimizer={"learning_rate": 1e-6},
        gan={"learning_rate": 1e-2},
    )
    _, rows = step_on(slow, batch, steps=30)
    assert rows[-1]["discriminator_real"] < 0.9 * rows[0]["discriminator_real"]
    assert rows[-1]["discriminator_fake"] < 0.9 * rows[0]["discriminator_fake"]


def test_bfloat16_steps_stay_near_float32_ones_against_a_discriminator(
    recipe: Recipe, batch: PairBatch
) -> None:
    """Three digits in both networks and in VGG19 leave each loss within some hundredths."""
    _, exact = step_on(recipe, batch, steps=3)
    state, rounded = step_on(changed(recipe, precision="bfloat16"), batch, steps=3)
    for row, expected in zip(rounded, exact, strict=True):
        assert row == pytest.approx(expected, rel=0.05)
        assert row != expected
    assert all(weight.dtype == torch.float32 for weight in networks_of(state)[1].parameters())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_float16_steps_move_both_networks(
    recipe: Recipe, batch: PairBatch, clip_norm: float | None
) -> None:
    """They share one scale of the loss; the scaler of a CPU does what a GPU's does."""
    chosen = changed(
        recipe,
        precision="float16",
        loss={"perceptual": 0.0},
        optimizer={"clip_norm": clip_norm},
        gan={"clip_norm": clip_norm},
    )
    fabric = Fabric(
        accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", device="cpu")]
    )
    state, rows = step_on(chosen, batch, steps=12, fabric=fabric)
    assert rows[-1]["loss"] < rows[0]["loss"]
    for network, start in zip(networks_of(state), networks_of(start_state(chosen)), strict=True):
        for weight, old in zip(network.parameters(), start.parameters(), strict=True):
            assert torch.isfinite(weight).all()
            assert not torch.equal(weight, old)


def test_a_loss_of_one_term_has_no_names(recipe: Recipe, batch: PairBatch) -> None:
    """A classic recipe's log has the columns that it always had."""
    classic = recipe.model_copy(
        update={"loss": recipe.loss.model_copy(update={"perceptual": 0.0, "gan": 0.0})}
    )
    state, (losses,) = step_on(classic, batch)
    assert list(losses) == ["loss"]
    assert state.adversary is None
