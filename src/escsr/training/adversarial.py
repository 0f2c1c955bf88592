"""Training against a discriminator, the second stage of ESC-Real."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn
from torch.func import functional_call

from escsr.model.autocast import at_least_float32
from escsr.shapes import ImageBatch
from escsr.training.optimisation import (
    fill_optimizer,
    learning_rate_at,
    set_learning_rate,
    start_optimizer,
    take_step,
)
from escsr.training.recipe import GanKind, Recipe

DISCRIMINATOR_LOSSES = ("discriminator_real", "discriminator_fake")
"""Names of its losses in the log."""


class DiscriminatorStep:
    """Trains the discriminator of a state, on the device and with the processes of a fabric.

    Args:
        recipe: what to do.
        adversary: its network and optimiser move to the device.
        fabric: launched.
    """

    def __init__(self, recipe: Recipe, adversary: "Adversary", fabric: Fabric) -> None:
        self._recipe, self._adversary, self._fabric = recipe, adversary, fabric
        self._discriminator: _FabricModule
        self._optimizer: _FabricOptimizer
        self._discriminator, self._optimizer = fabric.setup(
            adversary.discriminator, adversary.optimizer
        )

    def judge(self, sr_batch: ImageBatch) -> Tensor:
        """The judgement of results, by weights that take no gradient.

        It goes around what exchanges the gradients of processes, which would wait for some.

        Args:
            sr_batch: (B, 3, H, W) on the device; the gradient reaches it.
        Returns:
            (B, 1, H, W).
        """
        discriminator = self._adversary.discriminator
        frozen = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        with self._fabric.autocast():
            return functional_call(discriminator, frozen, (sr_batch,))

    def __call__(
        self,
        real_parts: Sequence[ImageBatch],
        fake_parts: Sequence[ImageBatch],
        step: int,
    ) -> Tensor:
        """Train on this process's part of a batch.

        Args:
            real_parts: photographs, a tensor (B, 3, H, W) on the device for each micro-batch.
            fake_parts: results of the same shapes, without gradient.
            step: counted from 0; gives the learning rate.
        Returns:
            The losses on photographs and on results, (2,), without gradient.
        """
        recipe = self._recipe
        share = learning_rate_at(recipe, step) / recipe.optimizer.learning_rate
        set_learning_rate(self._adversary.optimizer, recipe.gan.learning_rate * share)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate_gradients(real_parts, fake_parts)
        clip_norm = recipe.gan.clip_norm
        take_step(self._fabric, self._discriminator, self._optimizer, clip_norm=clip_norm)
        self._adversary.discriminator.follow_spectral_norms()
        return losses

    def _accumulate_gradients(
        self, real_parts: Sequence[ImageBatch], fake_parts: Sequence[ImageBatch]
    ) -> Tensor:
        kind, count = self._recipe.gan.kind, len(real_parts)
        losses = torch.zeros(2, device=self._fabric.device)
        for number, (real, fake) in enumerate(zip(real_parts, fake_parts, strict=True), start=1):
            # One after the other: both at once would need twice the memory.
            with self._fabric.no_backward_sync(self._discriminator):
                loss_on_real = real_loss(kind, self._discriminator(real)) / count
                self._fabric.backward(loss_on_real)
            with self._fabric.no_backward_sync(self._discriminator, enabled=number < count):
                loss_on_fake = fake_loss(kind, self._discriminator(fake)) / count
                self._fabric.backward(loss_on_fake)
            losses += torch.stack((loss_on_real, loss_on_fake)).detach()
        return losses


@dataclass(frozen=True, slots=True)
class Adversary:
    """The discriminator, which has no moving average, and its optimiser."""

    discriminator: "UNetDiscriminator"
    optimizer: torch.optim.Optimizer

    @classmethod
    def start(cls, recipe: Recipe, memory_format: torch.memory_format) -> Self:
        """As it is before the first step, of random weights."""
        discriminator = UNetDiscriminator(recipe.gan.channels)
        discriminator = discriminator.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        parameters = discriminator.parameters()
        optimizer = start_optimizer(parameters, recipe.gan, precision=recipe.precision)
        return cls(discriminator, optimizer)

    def to_dict(self) -> dict[str, Any]:
        """Everything, the singular vectors of the discriminator's kernels among it."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def fill(self, content: dict[str, Any]) -> None:
        """The inverse of ``to_dict``.

        Raises:
            RuntimeError, KeyError, ValueError: as torch does where the content is of another one.
        """
        self.discriminator.load_state_dict(content["discriminator"])
        fill_optimizer(self.optimizer, content["optimizer"])


_LEAK = 0.2
_FIRST_POWER_ITERATIONS = 15
_POWER_ITERATIONS = 3
"""Per update: as many as the reference makes, which iterates in each of its three passes."""


class UNetDiscriminator(nn.Module):
    """A U-Net that judges every pixel by what is around it.

    Down three times by half while the channels double, up again with what was there before added,
    and two more convolutions. The kernels of all but the first and the last convolution are divided
    by their largest singular value, which bounds how steeply the judgement changes.

    Differs: the singular values are followed once per update (``follow_spectral_norms``) instead of
    in each forward pass, which so changes nothing, and micro-batches make the step of the whole
    batch (``test_micro_batches_make_the_step_of_the_whole_batch_against_a_discriminator``).

    Args:
        channels: of the features at full size.
    Source: Real-ESRGAN, arXiv:2107.10833, section 3.4; with 64 channels 4,376,897 parameters.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        C = channels
        self.first = nn.Conv2d(3, C, 3, padding=1)
        self.down = nn.ModuleList(
            SpectralNormConv2d(inputs, 2 * inputs, 4, stride=2) for inputs in (C, 2 * C, 4 * C)
        )
        self.up = nn.ModuleList(
            SpectralNormConv2d(inputs, inputs // 2, 3) for inputs in (8 * C, 4 * C, 2 * C)
        )
        self.refine = nn.ModuleList(SpectralNormConv2d(C, C, 3) for _ in range(2))
        self.last = nn.Conv2d(C, 1, 3, padding=1)

    def forward(self, image: ImageBatch) -> Tensor:
        """Judge images.

        Args:
            image: (B, 3, H, W), at least 8 pixels a side; of multiples of 8 each enlargement is by
                exactly 2.
        Returns:
            (B, 1, H, W), the higher, the more like a photograph; 0 is undecided.
        """
        features = [_leak(self.first(image))]
        for down in self.down:
            features.append(_leak(down(features[-1])))
        result = features.pop()
        for up in self.up:
            before = features.pop()
            result = _leak(up(_enlarge_to(before, result))) + before
        for refine in self.refine:
            result = _leak(refine(result))
        return self.last(result)

    def follow_spectral_norms(self) -> None:
        """Follow the weights' largest singular values; call it after each change of the weights."""
        for module in self.modules():
            if isinstance(module, SpectralNormConv2d):
                module.follow_spectral_norm(_POWER_ITERATIONS)


class SpectralNormConv2d(nn.Conv2d):
    """A convolution without bias whose kernel, as a matrix of a row per output, has the norm 1.

    The norm is the largest singular value, as far as power iteration has found it; its two singular
    vectors are buffers, and stay what they are in ``forward``.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.
    """

    left_vector: Tensor
    right_vector: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel_size, stride=stride, padding=1, bias=False)
        rows = self.weight.flatten(1)
        self.register_buffer("left_vector", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("right_vector", F.normalize(torch.randn(rows.shape[1]), dim=0))
        self.follow_spectral_norm(_FIRST_POWER_ITERATIONS)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve with the kernel of norm 1."""
        return F.conv2d(input, self.normalised_weight(), None, self.stride, self.padding)

    def normalised_weight(self) -> Tensor:
        """The kernel divided by its norm, (outputs, inputs, k, k), in float32."""
        # Half precision would leave the norm three digits.
        with torch.autocast(self.weight.device.type, enabled=False):
            norm = self.left_vector @ (self.weight.flatten(1) @ self.right_vector)
            return self.weight / norm

    @torch.no_grad()
    def follow_spectral_norm(self, iterations: int) -> None:
        """Turn the singular vectors towards those of the kernel as it is now."""
        rows = self.weight.flatten(1)
        for _ in range(iterations):
            self.right_vector.copy_(F.normalize(rows.T @ self.left_vector, dim=0))
            self.left_vector.copy_(F.normalize(rows @ self.right_vector, dim=0))


def _leak(features: Tensor) -> Tensor:
    return F.leaky_relu(features, _LEAK)


def _enlarge_to(larger: Tensor, features: Tensor) -> Tensor:
    """Bilinearly, with half-pixel centres."""
    return F.interpolate(features, size=larger.shape[2:], mode="bilinear", align_corners=False)


def generator_loss(kind: GanKind, fake_logits: Tensor) -> Tensor:
    """How far a discriminator is from taking results for photographs.

    Args:
        kind: of the GAN.
        fake_logits: the judgement of results, of any shape; half precision is widened first.
    Returns:
        A scalar. With "hinge" there is no lower bound: it is minus the mean.
    """
    fake_logits = at_least_float32(fake_logits)
    if kind == "vanilla":
        return F.softplus(-fake_logits).mean()
    if kind == "lsgan":
        return (fake_logits - 1).square().mean()
    return -fake_logits.mean()


def real_loss(kind: GanKind, real_logits: Tensor) -> Tensor:
    """How far the discriminator is from knowing photographs as such; as ``generator_loss``."""
    if kind == "hinge":
        return F.relu(1 - at_least_float32(real_logits)).mean()
    return generator_loss(kind, real_logits)  # both ask for "real"


def fake_loss(kind: GanKind, fake_logits: Tensor) -> Tensor:
    """How far the discriminator is from knowing results as such; as ``generator_loss``.

    Sources: Goodfellow et al., arXiv:1406.2661 (vanilla, with the generator's part that does not
    fade); Mao et al., arXiv:1611.04076 (LSGAN); Lim and Ye, arXiv:1705.02894 (hinge).
    """
    fake_logits = at_least_float32(fake_logits)
    if kind == "vanilla":
        return F.softplus(fake_logits).mean()
    if kind == "lsgan":
        return fake_logits.square().mean()
    return F.relu(1 + fake_logits).mean()
