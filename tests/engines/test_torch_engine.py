"""A network of torch's on a device: precision, and what happens when it fails."""

import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from escsr.engines.eager import TorchEngine, engine_of_module
from escsr.engines.engine import EngineOptions, Precision
from escsr.errors import CheckpointError
from escsr.weights import load_model
from tests.networks import batches, smallest, tiny


class Overflowing(nn.Module):
    """Leaves the range of float16 (65504) on the way, as deep activations can."""

    scale = 1

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return image * 60000 * 60000 / 60000 / 60000


class Spoilt(nn.Module):
    """A network with NaN among its weights."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float("nan")))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return image * self.weight


def engine(network: nn.Module, *, scale: int = 2, **options: Any) -> TorchEngine:
    """In torch, on the CPU; options as of ``EngineOptions``."""
    return TorchEngine(network, scale=scale, options=EngineOptions(device="cpu", **options))


def test_a_result_with_nan_is_made_again_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    """Twice, and said once."""
    overflowing = engine(Overflowing(), scale=1)
    image = batches(1, 5, 5)
    with caplog.at_level(logging.WARNING, logger="escsr"):
        for _ in range(2):
            # 1e-6: three roundings in float32.
            assert np.abs(overflowing.run(image, "float16") - image).max() < 1e-6
    assert len(caplog.records) == 1
    assert "float16; such tiles run again in float32" in caplog.text


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_nan_in_float32_means_broken_weights(precision: Precision) -> None:
    """No image is better than a black one."""
    with pytest.raises(CheckpointError, match="weights are broken"):
        engine(Spoilt(), scale=1).run(batches(1, 5, 5), precision)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # Of values near 1: float16 rounds by 2^-11, bfloat16 by 2^-8; some ten layers add up.
    [("float16", 4e-3), ("bfloat16", 4e-2)],
)
def test_half_precision_is_near_float32(precision: Precision, tolerance: float) -> None:
    """In whatever precision, the result is float32 and finite."""
    half = engine(load_model(smallest()))
    image = batches(1, 16, 16)
    exact, rounded = half.run(image), half.run(image, precision)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < tolerance


def test_a_batch_equals_its_images() -> None:
    """Each image gets its own dynamic kernel; on a CPU to the last bit."""
    eager = engine(load_model(tiny(2)), backend="eager")
    images = batches(3, 20, 24)
    for image, result in zip(images, eager.run(images), strict=True):
        assert np.array_equal(eager.run(image[None])[0], result)


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
def test_the_engine_keeps_no_hold_on_the_network(backend: Any) -> None:
    """What is trained afterwards does not change what was taken over, nor copies of it."""
    network = load_model(smallest())
    kept = engine_of_module(network, scale=2, options=EngineOptions(device="cpu", backend=backend))
    image = batches(1, 9, 9)
    before = kept.run(image)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert np.array_equal(kept.run(image), before)
    assert np.array_equal(pickle.loads(pickle.dumps(kept)).run(image), before)


def test_tensors_are_enlarged_where_they_are() -> None:
    """``forward`` is ``run`` for tensors: of any floating type, and the result is not clamped."""
    eager = engine(load_model(smallest()), backend="eager")
    image = batches(2, 12, 10)
    result = eager.forward(torch.from_numpy(image).double())
    assert result.dtype == torch.float32
    assert np.array_equal(result.numpy(), eager.run(image))


def test_the_arrays_given_are_left_as_they_are() -> None:
    """Also those that may not be written to."""
    image = batches(1, 8, 8)
    image.flags.writeable = False
    engine(load_model(smallest()), backend="eager").run(image)
