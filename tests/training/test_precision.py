"""Half precision must not lead training astray: attention's gradients are float32's."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic_uint8
from escsr.model.attention.backends import AttentionBackend
from escsr.model.network import ESC
from escsr.model.position_bias import TablePositionBias
from escsr.model.window_attention import WindowAttention
from escsr.weights import load_model
from tests.eager_backends import EAGER_BACKENDS

SAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "cat.png"
NAMES = ("q", "k", "v", "bias", "features")
Gradients = dict[str, Tensor]


@dataclass
class Step:
    """The window attentions of a trained network, and what each meets in one training step."""

    attentions: list[WindowAttention]
    features: list[Tensor]
    """(B, C, H, W) each, float64."""
    upstream: list[Tensor]
    """The gradients of the loss by their results, of the same shapes."""

    def gradients(self, *, given: torch.dtype, computed: torch.dtype) -> Gradients:
        """By q, k, v, the tables of the bias, and the features: of all attentions in one row each.

        Args:
            given: dtype of the features, and so of the gradient that goes back to them.
            computed: "bfloat16" is autocast around float32 weights, as in training.
        """
        is_mixed = computed == torch.bfloat16
        rows: list[tuple[Tensor, ...]] = []
        for attention, features, upstream in zip(
            self.attentions, self.features, self.upstream, strict=True
        ):
            attention.to(torch.float32 if is_mixed else computed).zero_grad()
            features = features.detach().to(given).requires_grad_()
            entering = features if is_mixed else features.to(computed)
            rows.append(_gradients(attention, features, entering, upstream))
        return {
            name: torch.cat([part.flatten().double() for part in parts])
            for name, parts in zip(NAMES, zip(*rows, strict=True), strict=True)
        }


def _gradients(
    attention: WindowAttention, features: Tensor, entering: Tensor, upstream: Tensor
) -> tuple[Tensor, ...]:
    by_qkv: list[Tensor] = []

    def keep(_part: object, _inputs: object, outputs: tuple[Tensor, ...] | Tensor) -> None:
        by_qkv.append(outputs[0])

    with attention.query_key_value.register_full_backward_hook(keep):
        with torch.autocast("cpu", torch.bfloat16, enabled=entering.dtype == torch.bfloat16):
            result = attention(entering)
        result.backward(upstream.to(result.dtype))
    assert isinstance(attention.position_bias, TablePositionBias)
    by_table = attention.position_bias.table.grad
    assert by_table is not None
    assert features.grad is not None
    return (*by_qkv[0].chunk(3, 1), by_table, features.grad)


@pytest.fixture(scope="module")
def step() -> Step:
    """Of the box's x2, whose attention is nearly uniform: there rounding once drowned gradients.

    The target is the mirrored photograph: at its own target a trained network has hardly any
    gradient left.
    """
    hr_pixels = read_image(SAMPLE).pixels[:64, :96]
    lr_pixels = resize_bicubic_uint8(hr_pixels, scale=0.5)
    lr_batch, hr_batch = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
        for pixels in (lr_pixels, hr_pixels)
    )
    network = load_model("esc-tiny", scale=2, attention_backend="naive").double()
    assert isinstance(network, ESC)
    met: list[tuple[WindowAttention, Tensor, Tensor]] = []

    def keep(part: WindowAttention, inputs: tuple[Tensor], result: Tensor) -> None:
        result.retain_grad()
        met.append((part, inputs[0].detach(), result))

    attentions = [part for part in network.modules() if isinstance(part, WindowAttention)]
    hooks = [part.register_forward_hook(keep) for part in attentions]
    F.l1_loss(network(lr_batch), hr_batch.flip(-1)).backward()
    for hook in hooks:
        hook.remove()
    upstream = [result.grad for _, _, result in met if result.grad is not None]
    return Step([part for part, _, _ in met], [features for _, features, _ in met], upstream)


@pytest.fixture(scope="module")
def unavoidable(step: Step) -> dict[str, float]:
    """The errors that rounding the features to bfloat16 alone makes: all else is exact."""
    return errors(step, step.gradients(given=torch.bfloat16, computed=torch.float64))


def errors_of_training(step: Step) -> dict[str, float]:
    """In bfloat16, of features in bfloat16 as other layers hand them over."""
    return errors(step, step.gradients(given=torch.bfloat16, computed=torch.bfloat16))


def errors(step: Step, found: Gradients) -> dict[str, float]:
    """Distances to the gradients of features in float64, computed in float64."""
    exact = step.gradients(given=torch.float64, computed=torch.float64)
    return {name: float((found[name] - exact[name]).norm()) for name in NAMES}


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_gradients_of_attention_in_bfloat16_training_are_as_exact_as_its_inputs(
    step: Step,
    unavoidable: dict[str, float],
    backend: AttentionBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No further from float64's than rounding the features to bfloat16 alone makes them.

    A hundredth of bfloat16's rounding is left to float32's, which is 65,536 times finer.
    """
    for attention in step.attentions:
        monkeypatch.setattr(attention, "backend", backend)
    for name, error in errors_of_training(step).items():
        assert error <= 1.01 * unavoidable[name], name


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_attention_within_autocast_would_be_further_off_than_its_inputs(
    step: Step,
    unavoidable: dict[str, float],
    backend: AttentionBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the test above guards against, and that it would see it: each back-end has the fault."""
    monkeypatch.setattr(WindowAttention, "forward", WindowAttention._mix)
    for attention in step.attentions:
        monkeypatch.setattr(attention, "backend", backend)
    for name, error in errors_of_training(step).items():
        assert error > 1.01 * unavoidable[name], name


def test_attention_hands_back_a_gradient_of_the_precision_of_its_features(step: Step) -> None:
    """In bfloat16 training the layers before it get bfloat16, and the ones behind it float32."""
    features = step.features[0].to(torch.bfloat16).requires_grad_()
    attention = step.attentions[0].float()
    with torch.autocast("cpu", torch.bfloat16):
        result = attention(features)
    result.sum().backward()
    assert result.dtype == torch.float32
    assert features.grad is not None
    assert features.grad.dtype == torch.bfloat16
