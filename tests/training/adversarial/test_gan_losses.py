"""The losses of a GAN, worked by hand."""

import math

import pytest
import torch

from escsr.training.adversarial import fake_loss, generator_loss, real_loss
from escsr.training.recipe import GanKind

JUDGEMENTS = (-2.0, 0.0, 0.5, 3.0)


def cross_entropy(logit: float, *, is_real: bool) -> float:
    """Of the probability that the logit gives to what is."""
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if is_real else 1 - probability)


EXPECTED = {
    "vanilla": (
        [cross_entropy(logit, is_real=True) for logit in JUDGEMENTS],
        [cross_entropy(logit, is_real=True) for logit in JUDGEMENTS],
        [cross_entropy(logit, is_real=False) for logit in JUDGEMENTS],
    ),
    "lsgan": ([9, 1, 0.25, 4], [9, 1, 0.25, 4], [4, 0, 0.25, 9]),
    "hinge": ([2, 0, -0.5, -3], [3, 1, 0.5, 0], [0, 1, 1.5, 4]),
}
"""Of the generator, of the discriminator on photographs, and of it on results."""


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge"])
def test_the_losses_equal_those_worked_by_hand(kind: GanKind) -> None:
    """For each judgement alone, and their mean; float32 leaves 6 digits."""
    for loss, expected in zip((generator_loss, real_loss, fake_loss), EXPECTED[kind], strict=True):
        for logit, value in zip(JUDGEMENTS, expected, strict=True):
            assert float(loss(kind, torch.tensor([[logit]]))) == pytest.approx(value, rel=1e-6)
        together = torch.tensor(JUDGEMENTS).reshape(2, 1, 1, 2)
        assert float(loss(kind, together)) == pytest.approx(sum(expected) / 4, rel=1e-6)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge"])
def test_the_two_sides_pull_apart(kind: GanKind) -> None:
    """On a result of judgement 0 the generator wants more and the discriminator less."""
    logits = torch.zeros(1, requires_grad=True)
    (of_generator,) = torch.autograd.grad(generator_loss(kind, logits), logits)
    (of_real,) = torch.autograd.grad(real_loss(kind, logits), logits)
    (of_fake,) = torch.autograd.grad(fake_loss(kind, logits), logits)
    assert of_generator < 0
    assert of_real < 0
    assert of_fake >= 0
    if kind != "lsgan":  # for which 0 is what it wants
        assert of_fake > 0


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_a_sure_judgement_has_a_finite_loss(logit: float) -> None:
    """The logarithm of a probability of 0 is never taken."""
    for loss in (generator_loss, real_loss, fake_loss):
        value = float(loss("vanilla", torch.tensor([logit])))
        assert value == pytest.approx(0, abs=1e-6) or value == pytest.approx(100)


def test_half_precision_is_widened_first() -> None:
    """The mean of many judgements is not rounded to three digits."""
    logits = torch.linspace(-3, 3, 1000).bfloat16()
    for loss in (generator_loss, real_loss, fake_loss):
        assert loss("vanilla", logits).dtype == torch.float32
