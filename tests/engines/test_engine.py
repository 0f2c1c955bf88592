"""One network on a device: precision, and what happens when it fails."""

import logging

import pytest
import torch
from torch import Tensor, nn

from escsr.engines.eager import Engine
from escsr.errors import CheckpointError
from tests.upscaling.networks import smallest, tiny

CPU = torch.device("cpu")


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


def test_a_result_with_nan_is_made_again_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    """Twice, and said once."""
    engine = Engine(Overflowing(), scale=1, device=CPU)
    image = torch.rand(1, 3, 5, 5)
    with caplog.at_level(logging.WARNING, logger="escsr"):
        for _ in range(2):
            result = engine.run(image, torch.float16)
            # 1e-6: three roundings in float32.
            assert torch.allclose(result, image, atol=1e-6)
    assert len(caplog.records) == 1
    assert "float16; such tiles run again in float32" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_in_float32_means_broken_weights(dtype: torch.dtype) -> None:
    """No image is better than a black one."""
    engine = Engine(Spoilt(), scale=1, device=CPU)
    with pytest.raises(CheckpointError, match="weights are broken"):
        engine.run(torch.rand(1, 3, 5, 5), dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Of values near 1: float16 rounds by 2^-11, bfloat16 by 2^-8; some ten layers add up.
    [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)],
)
def test_half_precision_is_near_float32(dtype: torch.dtype, tolerance: float) -> None:
    """In whatever precision, the result is float32 and finite."""
    engine = Engine(smallest(), scale=2, device=CPU)
    image = torch.rand(1, 3, 16, 16)
    exact, rounded = engine.run(image, torch.float32), engine.run(image, dtype)
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < tolerance


def test_a_batch_equals_its_images() -> None:
    """Each image gets its own dynamic kernel; on a CPU to the last bit."""
    engine = Engine(tiny(2), scale=2, device=CPU)
    images = torch.rand(3, 3, 20, 24)
    batch = engine.run(images, torch.float32)
    for image, result in zip(images, batch, strict=True):
        assert torch.equal(engine.run(image[None], torch.float32)[0], result)


def test_the_engine_keeps_no_hold_on_the_network() -> None:
    """What is trained afterwards does not change what was taken over."""
    network = smallest()
    engine = Engine(network, scale=2, device=CPU)
    image = torch.rand(1, 3, 9, 9)
    before = engine.run(image, torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(engine.run(image, torch.float32), before)
