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
from escsr.model.window_attention import WindowAttention
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


def rounding(backend: AttentionBackend) -> float:
    """What bfloat16 changes in the gradients of the box's x2, as a share of their size.

    The target is the mirrored photograph: at its own target a trained network has hardly any
    gradient left, and the share would say how well it is trained.
    """
    hr_pixels = read_image(SAMPLE).pixels[:288, :384]
    lr_pixels = resize_bicubic_uint8(hr_pixels, scale=0.5)
    lr_batch, hr_batch = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        for pixels in (lr_pixels, hr_pixels)
    )
    network = load_model("esc-tiny", scale=2, attention_backend=backend)
    exact = gradients(network, lr_batch, hr_batch.flip(-1), bfloat16=False)
    rounded = gradients(network, lr_batch, hr_batch.flip(-1), bfloat16=True)
    return float((exact - rounded).norm() / exact.norm())


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(
    backend: AttentionBackend,
) -> None:
    """On a trained network, whose attention is nearly uniform: there rounding once drowned them.

    Back-ends that leave autocast keep 0.23 of rounding, from all other layers; chunked works in
    bfloat16, which costs it up to 0.85, less than the gradient itself.
    """
    assert rounding(backend) < (1.0 if backend == "chunked" else 0.5)


def test_attention_within_autocast_would_drown_its_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the test above guards against: without leaving autocast the error is 3.4 gradients."""
    monkeypatch.setattr(WindowAttention, "forward", WindowAttention._mix)
    assert rounding("naive") > 2
