"""The network that tells photographs from results, pixel by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.shapes import ImageBatch

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
