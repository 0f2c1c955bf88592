"""The U-Net that judges pixels: its shape, and kernels that enlarge nothing."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.training.adversarial import SpectralNormConv2d, UNetDiscriminator


@pytest.fixture
def small() -> UNetDiscriminator:
    """With 4 channels, of known weights."""
    torch.manual_seed(0)
    return UNetDiscriminator(4)


def largest_singular_value(kernel: Tensor) -> float:
    """Of a kernel as a matrix of a row per output, by its decomposition in float64."""
    return float(torch.linalg.svdvals(kernel.detach().double().flatten(1))[0])


def kernels_of(discriminator: UNetDiscriminator) -> list[SpectralNormConv2d]:
    """The convolutions whose kernel is divided by its norm."""
    return [part for part in discriminator.modules() if isinstance(part, SpectralNormConv2d)]


def test_the_discriminator_has_the_parameters_of_the_published_one() -> None:
    """4,376,897 with 64 channels: Real-ESRGAN's U-Net with spectral norm.

    By hand: 1,792 + 131,072 + 524,288 + 2,097,152 down, 1,179,648 + 294,912 + 73,728 up,
    2 x 36,864 + 577 at the end.
    """
    parameters = list(UNetDiscriminator().parameters())
    assert sum(parameter.numel() for parameter in parameters) == 4_376_897
    assert [tuple(parameter.shape) for parameter in parameters] == [
        (64, 3, 3, 3),
        (64,),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
        (512, 256, 4, 4),
        (256, 512, 3, 3),
        (128, 256, 3, 3),
        (64, 128, 3, 3),
        (64, 64, 3, 3),
        (64, 64, 3, 3),
        (1, 64, 3, 3),
        (1,),
    ]


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (24, 40), (33, 45), (9, 15)])
def test_every_pixel_is_judged(small: UNetDiscriminator, size: tuple[int, int]) -> None:
    """One number each, at any size from 8 pixels on."""
    assert small(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_the_discriminator_computes_what_its_source_says(small: UNetDiscriminator) -> None:
    """Written again line by line, with exact norms in float64; float32 leaves 6 digits."""
    image = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    kernels = [layer.weight.detach().double() for layer in kernels_of(small)]
    kernels = [kernel / largest_singular_value(kernel) for kernel in kernels]

    def leak(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    def twice(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = leak(F.conv2d(image, small.first.weight.double(), small.first.bias.double(), padding=1))  # pyright: ignore[reportOptionalMemberAccess]
    x1 = leak(F.conv2d(x0, kernels[0], stride=2, padding=1))
    x2 = leak(F.conv2d(x1, kernels[1], stride=2, padding=1))
    x3 = leak(F.conv2d(x2, kernels[2], stride=2, padding=1))
    x4 = leak(F.conv2d(twice(x3), kernels[3], padding=1)) + x2
    x5 = leak(F.conv2d(twice(x4), kernels[4], padding=1)) + x1
    x6 = leak(F.conv2d(twice(x5), kernels[5], padding=1)) + x0
    x7 = leak(F.conv2d(x6, kernels[6], padding=1))
    x8 = leak(F.conv2d(x7, kernels[7], padding=1))
    last = small.last
    expected = F.conv2d(x8, last.weight.double(), last.bias.double(), padding=1)  # pyright: ignore[reportOptionalMemberAccess]
    for layer in kernels_of(small):
        layer.follow_spectral_norm(1000)  # to the end, where singular values lie close together
    torch.testing.assert_close(small(image.float()), expected.float(), rtol=1e-5, atol=1e-6)


def test_the_norms_are_1_at_the_start_and_after_updates() -> None:
    """Within 8 % at the start, where power iteration has just begun, then within 1e-3."""
    torch.manual_seed(0)
    discriminator = UNetDiscriminator(16)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    for tolerance in (0.08, 1e-3):
        for layer in kernels_of(discriminator):
            norm = largest_singular_value(layer.normalised_weight())
            assert norm == pytest.approx(1, abs=tolerance)
        for _ in range(30):
            optimizer.zero_grad()
            discriminator(torch.rand(1, 3, 16, 16)).square().mean().backward()
            optimizer.step()
            discriminator.follow_spectral_norms()


def test_a_norm_that_is_not_followed_goes_astray(small: UNetDiscriminator) -> None:
    """The test above would see it: ten times the weights have ten times the norm until then."""
    layer = kernels_of(small)[-1]
    with torch.no_grad():
        layer.weight[0] *= 10
    assert largest_singular_value(layer.normalised_weight()) > 1.1
    layer.follow_spectral_norm(20)
    assert largest_singular_value(layer.normalised_weight()) == pytest.approx(1, abs=1e-3)


def test_the_gradient_knows_of_the_norm(small: UNetDiscriminator) -> None:
    """A kernel's gradient is orthogonal to it: a longer one is the same kernel of norm 1."""
    layer = kernels_of(small)[0]
    small(torch.rand(1, 3, 16, 16)).sum().backward()
    assert layer.weight.grad is not None
    kernel = layer.weight.detach().flatten()
    cosine = F.cosine_similarity(layer.weight.grad.flatten(), kernel, dim=0)
    assert abs(float(cosine)) < 1e-5


def test_judging_changes_nothing(small: UNetDiscriminator) -> None:
    """Neither in training nor in evaluation, which are the same."""
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(small.train()(image), small.eval()(image))
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_half_precision_leaves_the_norms_exact(small: UNetDiscriminator) -> None:
    """Under autocast the kernels are divided by their norm in float32."""
    layer = kernels_of(small)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer.normalised_weight()
        assert small(torch.rand(1, 3, 16, 16)).dtype == torch.bfloat16
    assert torch.equal(inside, layer.normalised_weight())


def test_the_singular_vectors_are_part_of_the_state(small: UNetDiscriminator) -> None:
    """What is resumed judges as before, bit for bit."""
    torch.manual_seed(1)
    other = UNetDiscriminator(4)
    other.load_state_dict(small.state_dict())
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(small(image), other(image))
    names = set(small.state_dict())
    assert {"down.0.left_vector", "refine.1.right_vector"} <= names
