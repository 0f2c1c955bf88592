"""Blur kernels of real photographs, drawn at random: Gaussian, generalised, plateau and sinc.

All are point-symmetric, so that convolution and correlation with them are the same.
"""

import math

import numpy as np
import torch
from torch import Tensor

from escsr.training.degradation.degradation_recipe import DegradationRecipe, DegradationStageRecipe

_SMALL_SIDE = 13
"""Sinc kernels below this side ring less: their cut-off starts at pi/3 instead of pi/5."""


def draw_blur_kernels(
    random: np.random.Generator,
    count: int,
    settings: DegradationRecipe,
    stage: DegradationStageRecipe,
) -> Tensor:
    """Draw the kernels of a stage, one per image: their kind, then its parameters.

    Args:
        random: of every choice.
        count: B, the number of kernels.
        settings: the sides that kernels have.
        stage: chances of each kind, and ranges of their parameters.
    Returns:
        (B, K, K) float64 on the CPU, each summing to 1, with K the largest side; smaller kernels
        stand in the middle of zeros.
    Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 3.2; the figures are the ESC
        paper's, arXiv:2503.06671.
    """
    sides = _draw_sides(random, count, settings)
    mixed = _draw_mixed(random, sides, settings, stage)
    lowest = torch.where(sides < _SMALL_SIDE, math.pi / 3, math.pi / 5)
    cut_offs = lowest + (math.pi - lowest) * _uniform(random, count, (0, 1))
    sincs = sinc_kernels(cut_offs, sides, side_pixels=settings.kernel_pixels[1])
    is_sinc = torch.from_numpy(random.random(count) < stage.sinc_chance)
    return torch.where(is_sinc[:, None, None], sincs, mixed)


def draw_final_kernels(
    random: np.random.Generator, count: int, settings: DegradationRecipe
) -> Tensor:
    """Draw the kernels of the last filter: a sinc with a cut-off of pi/3 to pi, or none at all.

    Returns:
        (B, K, K) as ``draw_blur_kernels``; "none" is a 1 in the middle.
    """
    sides = _draw_sides(random, count, settings)
    largest = settings.kernel_pixels[1]
    cut_offs = _uniform(random, count, (math.pi / 3, math.pi))
    sincs = sinc_kernels(cut_offs, sides, side_pixels=largest)
    identity = torch.zeros_like(sincs)
    identity[:, largest // 2, largest // 2] = 1
    is_sinc = torch.from_numpy(random.random(count) < settings.final_sinc_chance)
    return torch.where(is_sinc[:, None, None], sincs, identity)


def gaussian_kernels(
    sigmas: Tensor, angles: Tensor, betas: Tensor, sides: Tensor, *, side_pixels: int
) -> Tensor:
    """Generalised Gaussians exp(-q^beta / 2), with q the squared distance in units of sigma.

    Args:
        sigmas: (B, 2), along the two axes, in pixels; equal ones make a round kernel.
        angles: (B,), of the first axis to the right, in radians, clockwise.
        betas: (B,); 1 is the plain Gaussian, below it the peak is sharper, above flatter.
        sides: (B,), odd; outside so many pixels a kernel is zero.
        side_pixels: K, odd, of the result.
    Returns:
        (B, K, K) float64, each summing to 1.
    Source: Liu et al., "Estimating generalized Gaussian blur kernels", ICIP 2020.
    """
    squares = _squared_distances(sigmas, angles, side_pixels)
    return _normalised(torch.exp(-(squares ** betas[:, None, None]) / 2), sides)


def plateau_kernels(
    sigmas: Tensor, angles: Tensor, betas: Tensor, sides: Tensor, *, side_pixels: int
) -> Tensor:
    """Plateaus 1 / (1 + q^beta); arguments and result as ``gaussian_kernels``."""
    squares = _squared_distances(sigmas, angles, side_pixels)
    return _normalised(1 / (1 + squares ** betas[:, None, None]), sides)


def sinc_kernels(cut_offs: Tensor, sides: Tensor, *, side_pixels: int) -> Tensor:
    """Circular low-pass filters: w J1(w r) / (2 pi r), which ring as sharpened images do.

    Args:
        cut_offs: (B,), w in radians per pixel, up to pi.
        sides: (B,), odd; outside so many pixels a kernel is zero.
        side_pixels: K, odd, of the result.
    Returns:
        (B, K, K) float64, each summing to 1.
    """
    rows, columns = _offsets(side_pixels)
    radii = torch.hypot(rows, columns)
    cut_offs = cut_offs.double()[:, None, None]
    away = cut_offs * torch.special.bessel_j1(cut_offs * radii) / (2 * math.pi * radii)
    middle = cut_offs.square() / (4 * math.pi)  # the limit at r = 0
    return _normalised(torch.where(radii == 0, middle, away), sides)


def _draw_mixed(
    random: np.random.Generator,
    sides: Tensor,
    settings: DegradationRecipe,
    stage: DegradationStageRecipe,
) -> Tensor:
    """Kernels of the six kinds of ``kernel_chances``, (B, K, K)."""
    count, largest = len(sides), settings.kernel_pixels[1]
    kinds = torch.from_numpy(random.choice(6, count, p=stage.kernel_chances))
    is_round, is_generalised, is_plateau = kinds % 2 == 0, kinds // 2 == 1, kinds // 2 == 2
    first, second = _uniform(random, count, stage.sigma), _uniform(random, count, stage.sigma)
    sigmas = torch.stack((first, torch.where(is_round, first, second)), dim=1)
    angles = _uniform(random, count, (-math.pi, math.pi))
    generalised_betas = _draw_betas(random, count, stage.generalised_beta)
    plateau_betas = _draw_betas(random, count, stage.plateau_beta)
    betas = torch.where(is_generalised, generalised_betas, torch.ones_like(generalised_betas))
    gaussians = gaussian_kernels(sigmas, angles, betas, sides, side_pixels=largest)
    plateaus = plateau_kernels(sigmas, angles, plateau_betas, sides, side_pixels=largest)
    return torch.where(is_plateau[:, None, None], plateaus, gaussians)


def _draw_sides(random: np.random.Generator, count: int, settings: DegradationRecipe) -> Tensor:
    smallest, largest = settings.kernel_pixels
    return torch.from_numpy(
        smallest + 2 * random.integers((largest - smallest) // 2 + 1, size=count)
    )


def _draw_betas(random: np.random.Generator, count: int, beta: tuple[float, float]) -> Tensor:
    """Half of the draws below 1, half above; where a range starts at 1, half of them are 1."""
    below, above = _uniform(random, count, (beta[0], 1)), _uniform(random, count, (1, beta[1]))
    return torch.where(torch.from_numpy(random.random(count) < 0.5), below, above)


def _uniform(random: np.random.Generator, count: int, bounds: tuple[float, float]) -> Tensor:
    return torch.from_numpy(random.uniform(*bounds, size=count))


def _offsets(side_pixels: int) -> tuple[Tensor, Tensor]:
    """(K, 1) and (1, K): distance of each row and column from the middle, in pixels."""
    steps = torch.arange(side_pixels, dtype=torch.float64) - side_pixels // 2
    return steps[:, None], steps[None, :]


def _squared_distances(sigmas: Tensor, angles: Tensor, side_pixels: int) -> Tensor:
    """(B, K, K): x^T S^-1 x, where S has the squares of sigma along axes turned by the angle."""
    rows, columns = _offsets(side_pixels)
    cosine, sine = (f(angles.double())[:, None, None] for f in (torch.cos, torch.sin))
    along = (columns * cosine + rows * sine) / sigmas[:, 0, None, None]
    across = (rows * cosine - columns * sine) / sigmas[:, 1, None, None]
    return along.square() + across.square()


def _normalised(kernels: Tensor, sides: Tensor) -> Tensor:
    rows, columns = _offsets(kernels.shape[-1])
    is_inside = torch.maximum(rows.abs(), columns.abs()) <= (sides // 2)[:, None, None]
    kernels = torch.where(is_inside, kernels, torch.zeros_like(kernels))
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)
