"""Half precision must not lead training astray: its gradients are float32's, but for rounding."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic_uint8
from escsr.model.attention_backends import AttentionBackend
from escsr.model.network import ESC
from escsr.weights import load_model
from tests.eager_backends import EAGER_BACKENDS

SAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "cat.png"


def gradients(network: ESC, lr_batch: Tensor, hr_batch: Tensor, *, bfloat16: bool) -> Tensor:
    """The gradients of the L1 loss that pass through attention's LayerNorm, in one row."""
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        sr_batch = network(lr_batch)
    F.l1_loss(sr_batch.float(), hr_batch).backward()
    through_attention = (
        parameter.grad.flatten()
        for name, parameter in network.named_parameters()
        if "norm_attention" in name and parameter.grad is not None
    )
    return torch.cat(list(through_attention))


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(
    backend: AttentionBackend,
) -> None:
    """On a trained network, whose attention is nearly uniform: there rounding once drowned them.

    With the whole network in bfloat16 the error was many times the gradient; half of it allows for
    the rounding to 8 bits in all other layers.
    """
    hr_pixels = read_image(SAMPLE).pixels[:288, :384]
    lr_pixels = resize_bicubic_uint8(hr_pixels, scale=0.5)
    lr_batch, hr_batch = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        for pixels in (lr_pixels, hr_pixels)
    )
    network = load_model("esc-tiny", scale=2, attention_backend=backend)
    exact = gradients(network, lr_batch, hr_batch, bfloat16=False)
    rounded = gradients(network, lr_batch, hr_batch, bfloat16=True)
    assert float((exact - rounded).norm() / exact.norm()) < 0.5
