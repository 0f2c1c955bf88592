"""A layer in one pass by the native kernel against its formulas in float64."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from escsr.inference.native.calls import add_and_normalise, run_layer
from escsr.inference.native.layer_weights import Addition, LayerKind, LayerWeights
from tests.inference.native.formulas import array, hidden_map, largest_error, normalised, random_map
from tests.oracles.convolution import gelu

pytestmark = pytest.mark.usefixtures("kernels")

DIM, HIDDEN, SIDE, ADDED = 32, 48, 16, 16
"""Whole vectors of either kind of processor."""

ROUNDING = 4e-6
"""Of the largest value: float32's 6e-8, through sums of 48 and GELU's 1.5e-7."""

USUAL = LayerKind(normalises=True, has_residual=True, side_is_of_result=False)


def random_weights(*, side_inputs: int) -> LayerWeights:
    """Of a size that keeps values near 1."""
    return LayerWeights(
        expand_weight=random_map(DIM, HIDDEN, seed=1, spread=DIM**-0.5),
        expand_bias=random_map(HIDDEN, seed=2),
        depthwise_weight=random_map(9, HIDDEN, seed=3, spread=1 / 3),
        depthwise_bias=random_map(HIDDEN, seed=4),
        reduce_weight=random_map(HIDDEN, DIM, seed=5, spread=HIDDEN**-0.5),
        reduce_bias=random_map(DIM, seed=6),
        side_weight=random_map(side_inputs, SIDE, seed=7, spread=side_inputs**-0.5),
        side_bias=random_map(SIDE, seed=8),
    )


def random_addition(pixels: int) -> Addition:
    """What a layer before might leave."""
    return Addition(
        values=random_map(pixels, ADDED, seed=20),
        weight=random_map(ADDED, DIM, seed=21, spread=ADDED**-0.5),
        bias=random_map(DIM, seed=22),
    )


def assert_equals_the_formulas(
    size: tuple[int, int], kind: LayerKind, *, has_addition: bool
) -> None:
    """Result, side and sum."""
    pixels = size[0] * size[1]
    features = random_map(pixels, DIM, seed=10)
    addition = random_addition(pixels) if has_addition else None
    weights = random_weights(side_inputs=DIM if kind.side_is_of_result else HIDDEN)
    result, side = torch.full((pixels, DIM), torch.nan), torch.full((pixels, SIDE), torch.nan)
    hidden_sum = run_layer(
        features, weights, size=size, addition=addition, kind=kind, result=result, side=side
    )
    w = {field.name: array(getattr(weights, field.name)) for field in fields(weights)}
    x = array(completed(features, addition))
    hidden = hidden_map(normalised(x) if kind.normalises else x, w, size)
    expected = hidden @ w["reduce_weight"] + w["reduce_bias"] + (x if kind.has_residual else 0)
    of_side = normalised(expected) if kind.side_is_of_result else hidden
    assert largest_error(result, expected) < ROUNDING
    # Normalising divides by a deviation, which makes rounding at most a few times larger.
    assert largest_error(side, of_side @ w["side_weight"] + w["side_bias"]) < 3 * ROUNDING
    assert largest_error(hidden_sum, hidden.sum(axis=0)) < ROUNDING


def completed(features: Tensor, addition: Addition | None) -> Tensor:
    """``features + values @ weight + bias``, float64."""
    if addition is None:
        return features.double()
    added = addition.values.double() @ addition.weight.double() + addition.bias.double()
    return features.double() + added


@pytest.mark.parametrize("has_addition", [False, True])
@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("side_is_of_result", [False, True])
def test_a_layer_is_its_formulas(
    has_addition: bool, normalises: bool, has_residual: bool, side_is_of_result: bool
) -> None:
    """Every way a layer may be; wider than a piece, so that pieces meet."""
    assert_equals_the_formulas(
        (5, 67),
        LayerKind(
            normalises=normalises, has_residual=has_residual, side_is_of_result=side_is_of_result
        ),
        has_addition=has_addition,
    )


@settings(max_examples=10)
@given(height=st.integers(1, 40), width=st.integers(1, 140))
def test_a_layer_is_its_formulas_for_all_sizes(height: int, width: int) -> None:
    """Pieces of 64 columns and whole bands of 16 rows, and what is left of them."""
    assert_equals_the_formulas((height, width), USUAL, has_addition=True)


def test_gelu_is_the_exact_one() -> None:
    """From far below zero to far above; a layer that does nothing else shows it."""
    eye = torch.eye(DIM, HIDDEN)
    weights = LayerWeights(
        expand_weight=eye,
        expand_bias=torch.zeros(HIDDEN),
        depthwise_weight=torch.zeros(9, HIDDEN),
        depthwise_bias=torch.zeros(HIDDEN),
        reduce_weight=eye.t().contiguous(),
        reduce_bias=torch.zeros(DIM),
        side_weight=torch.zeros(HIDDEN, SIDE),
        side_bias=torch.zeros(SIDE),
    )
    values = torch.cat((torch.linspace(-20, 20, 3968), torch.logspace(0, 5, 64)))
    values = torch.cat((values, -values[-64:])).view(-1, DIM)
    result = torch.empty_like(values)
    kind = LayerKind(normalises=False, has_residual=False, side_is_of_result=False)
    run_layer(values, weights, size=(1, 128), addition=None, kind=kind, result=result, side=None)
    # A polynomial of float32 near zero, float32's own steps far from it; GELU(0) comes twice.
    allowed = 2e-6 + 1.2e-7 * np.abs(array(values))
    assert (np.abs(array(result) - gelu(array(values))) < allowed).all()


def test_a_side_that_nobody_wants_is_not_made() -> None:
    """And the result is the same."""
    features, weights = random_map(30, DIM), random_weights(side_inputs=HIDDEN)
    results = [torch.empty(30, DIM) for _ in range(2)]
    for result, side in zip(results, (None, torch.empty(30, SIDE)), strict=True):
        run_layer(
            features, weights, size=(5, 6), addition=None, kind=USUAL, result=result, side=side
        )
    assert torch.equal(*results)


@pytest.mark.parametrize("has_addition", [False, True])
def test_normalising_is_its_formula(has_addition: bool) -> None:
    """More pixels than a piece holds."""
    features, weight, bias = random_map(300, DIM), random_map(DIM, seed=1), random_map(DIM, seed=2)
    addition = random_addition(300) if has_addition else None
    result = torch.full((300, DIM), torch.nan)
    add_and_normalise(features, addition, weight, bias, result=result)
    expected = normalised(array(completed(features, addition))) * array(weight) + array(bias)
    assert largest_error(result, expected) < ROUNDING


def test_a_pixel_of_equal_channels_normalises_to_the_bias() -> None:
    """Its deviation is zero, and only epsilon is left to divide by."""
    result = torch.empty(4, DIM)
    features, bias = torch.full((4, DIM), 3.0), random_map(DIM)
    add_and_normalise(features, None, torch.ones(DIM), bias, result=result)
    assert torch.equal(result, bias.expand(4, DIM))
