"""One optimiser step: what it computes does not depend on how it is worked through."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from escsr.errors import TrainingError
from escsr.model.network import ESC
from escsr.training.batches import PairBatch
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from escsr.training.state import TrainingState
from escsr.training.step import TrainingStep
from tests.training.runs import changed, open_source, start_state


@pytest.fixture
def batch(recipe: Recipe, photographs: Path) -> PairBatch:
    """The first batch of the smallest recipe."""
    batch = open_source(recipe, photographs).batch(0)
    assert isinstance(batch, PairBatch)
    return batch


def step_on(
    recipe: Recipe, batch: PairBatch, *, steps: int = 1, fabric: Fabric | None = None
) -> tuple[TrainingState, list[float]]:
    """Train on one batch again and again; the state and the loss of each step."""
    state = start_state(recipe)
    step = TrainingStep(recipe, state, fabric or launch(recipe, device="cpu"))
    return state, [float(step(batch)) for _ in range(steps)]


def weights_of(network: torch.nn.Module) -> Tensor:
    """All parameters in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def gradient_of(network: torch.nn.Module) -> Tensor:
    """Of all parameters, in one row."""
    gradients = [parameter.grad for parameter in network.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def shallow_of(network: torch.nn.Module) -> Tensor:
    """The kernels of the first convolution, (C, 3, 3, 3)."""
    assert isinstance(network, ESC)
    return network.shallow.weight


def test_training_on_one_batch_lowers_its_loss(recipe: Recipe, batch: PairBatch) -> None:
    """Real steps on real patches learn: the loss falls by a quarter at least."""
    learning = changed(recipe, steps=60, optimizer={"learning_rate": 3e-3})
    _, losses = step_on(learning, batch, steps=40)
    assert losses[-1] < 0.75 * losses[0]


def test_micro_batches_make_the_step_of_the_whole_batch(
    recipe: Recipe, batch: PairBatch, exact_fabric: Fabric
) -> None:
    """Gradients and loss are those of one pass, but for the order of sums.

    Gradients are compared, not weights: Adam's first step shows the sign of each alone, which
    turns where the gradient is mere rounding.
    """
    batch = PairBatch.of_patches(batch.lr_image.double(), batch.target.double())
    gradients, losses = [], []
    for count in (1, 2, 4):
        divided = changed(recipe, optimizer={"micro_batches": count})
        state, (loss,) = step_on(divided, batch, fabric=exact_fabric)
        gradients.append(gradient_of(state.network))
        losses.append(loss)
    assert losses == pytest.approx([losses[0]] * 3)
    for gradient in gradients[1:]:
        assert float((gradient - gradients[0]).norm() / gradients[0].norm()) < 1e-9


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_step_moves_the_weights_by_the_learning_rate(
    recipe: Recipe, batch: PairBatch, kind: str
) -> None:
    """Adam's first step is the sign of the gradient times the rate: here half of 1e-3."""
    chosen = changed(recipe, optimizer={"kind": kind})
    state, _ = step_on(chosen, batch)
    moved = (weights_of(state.network) - weights_of(start_state(chosen).network)).abs()
    # A weight of size 1 is rounded to 6e-8; where the gradient is small, epsilon 1e-8 shows.
    assert float(moved.max()) == pytest.approx(5e-4, abs=1e-7)
    assert float(moved.median()) == pytest.approx(5e-4, abs=1e-5)


def test_weight_decay_shrinks_the_weights(recipe: Recipe, batch: PairBatch) -> None:
    """AdamW takes rate x decay x weight away, beside the step itself."""
    plain, _ = step_on(recipe, batch)
    decayed, _ = step_on(changed(recipe, optimizer={"weight_decay": 10.0}), batch)
    before = weights_of(start_state(recipe).network)
    taken = weights_of(plain.network) - weights_of(decayed.network)
    torch.testing.assert_close(taken, 5e-4 * 10.0 * before, rtol=1e-3, atol=2e-7)


def test_clipping_bounds_the_norm_of_the_gradient(recipe: Recipe, batch: PairBatch) -> None:
    """A larger one is shrunk to it; without clipping it is larger."""

    def norm(chosen: Recipe) -> float:
        state, _ = step_on(chosen, batch)
        return float(gradient_of(state.network).norm())

    assert norm(recipe) > 0.01
    assert norm(changed(recipe, optimizer={"clip_norm": 0.01})) == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_the_textbooks(recipe: Recipe) -> None:
    """Late in a run with decay 0.9: average 1 and weight 2 become 1.1."""
    state = start_state(recipe)
    state.step = 10**6
    average, weight = shallow_of(state.averaged_network), shallow_of(state.network)
    with torch.no_grad():
        average.fill_(1.0)
        weight.fill_(2.0)
    state.average(0.9)
    torch.testing.assert_close(average, torch.full_like(average, 1.1))


def test_a_young_average_forgets_its_random_start(recipe: Recipe) -> None:
    """After the first step the decay is 1/10, not 0.999: average 1 and weight 2 become 1.9."""
    state = start_state(recipe)
    average, weight = shallow_of(state.averaged_network), shallow_of(state.network)
    with torch.no_grad():
        average.fill_(1.0)
        weight.fill_(2.0)
    state.average(0.999)
    torch.testing.assert_close(average, torch.full_like(average, 1.9))


def test_the_average_follows_every_step(recipe: Recipe, batch: PairBatch) -> None:
    """It is neither the start nor the end, and takes no gradient."""
    state, _ = step_on(recipe, batch, steps=3)
    average = shallow_of(state.averaged_network)
    assert not average.requires_grad
    assert not torch.equal(average, shallow_of(state.network))
    assert not torch.equal(average, shallow_of(start_state(recipe).network))


def test_the_network_lies_in_memory_as_channels_last(recipe: Recipe, batch: PairBatch) -> None:
    """Weights, average and batches: the layout in which convolutions are fastest."""
    state, _ = step_on(recipe, batch)
    tensors = (*batch.tensors, shallow_of(state.network), shallow_of(state.averaged_network))
    for tensor in tensors:
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_steps_stay_near_float32_ones(recipe: Recipe, batch: PairBatch) -> None:
    """Three significant digits of bfloat16 leave the loss within a hundredth."""
    _, exact = step_on(recipe, batch, steps=3)
    state, rounded = step_on(changed(recipe, precision="bfloat16"), batch, steps=3)
    assert rounded == pytest.approx(exact, rel=0.01)
    assert rounded != exact
    assert shallow_of(state.network).dtype == torch.float32


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_float16_steps_learn_with_and_without_clipping(
    recipe: Recipe, batch: PairBatch, clip_norm: float | None
) -> None:
    """Its first steps overflow by design, until the scale of the loss fits; they are skipped.

    The scaler is a GPU's; that of a CPU does the same, which is what tests can run everywhere.
    """
    chosen = changed(recipe, precision="float16", optimizer={"clip_norm": clip_norm})
    state = start_state(chosen)
    fabric = Fabric(
        accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", device="cpu")]
    )
    step = TrainingStep(chosen, state, fabric)
    losses = [float(step(batch)) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]
    assert state.precision is not None
    assert state.precision.state_dict()["scale"] > 0


def test_a_batch_that_cannot_be_divided_is_refused(recipe: Recipe) -> None:
    """Checked recipes pass here; under torchrun the processes count, too."""
    uneven = changed(recipe, optimizer={"micro_batches": 3})
    with pytest.raises(TrainingError, match=r"A batch of 4 cannot be divided .* data.batch_size"):
        TrainingStep(uneven, start_state(recipe), launch(recipe, device="cpu"))
