"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG, twice.

``degrade`` is the whole; its parts follow in their order, and the unsharp mask that comes before.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.model.padding import reflect_pad, reflected_positions
from escsr.shapes import ImageBatch
from escsr.training.recipe import DegradationRecipe, DegradationStageRecipe

Size = tuple[int, int]


@torch.no_grad()
def degrade(
    images: ImageBatch, random: np.random.Generator, settings: DegradationRecipe, *, scale: int
) -> ImageBatch:
    """Make the LR images of a batch, each with its own kernels, noise and JPEG quality.

    One for the whole batch, since it shapes the tensor or the order of work: resizes, the kind of
    noise, whether the second blur takes place, and what comes last.

    Args:
        images: (B, 3, H, W) in [0, 1], sharpened, on any device; sides are multiples of ``scale``.
        random: of every choice: the same state makes the same images on the same device.
        settings: of every stage.
        scale: HR pixels per LR pixel, per side.
    Returns:
        (B, 3, H / scale, W / scale), every value k/255.
    Source: Wang et al., arXiv:2107.10833, section 3; its figures as the ESC paper gives them.
    """
    height, width = (int(side) for side in images.shape[-2:])
    small = (height // scale, width // scale)
    first, second = settings.first, settings.second
    images = _blur(images.contiguous(), random, settings, first)
    images = _resize(images, (height, width), random, first)
    images = add_drawn_noise(images, random, first)
    images = _compress(images, random, first)
    images = _blur(images, random, settings, second)
    images = _resize(images, small, random, second)
    images = add_drawn_noise(images, random, second)
    if random.random() < 0.5:
        images = _finish(images, small, random, settings)
        images = _compress(images, random, second)
    else:
        images = _compress(images, random, second)
        images = _finish(images, small, random, settings)
    return (images.clamp(0, 1) * 255).round() / 255


def _blur(
    images: ImageBatch,
    random: np.random.Generator,
    settings: DegradationRecipe,
    stage: DegradationStageRecipe,
) -> ImageBatch:
    if random.random() >= stage.blur_chance:
        return images
    return blur(images, draw_blur_kernels(random, len(images), settings, stage))


def _resize(
    images: ImageBatch, whole: Size, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    factor = draw_factor(random, stage)
    height, width = (max(1, int(side * factor)) for side in whole)
    return resize(images, (height, width), draw_mode(random))


def _compress(
    images: ImageBatch, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    return jpeg_round_trip(images, random.uniform(*stage.jpeg_quality, len(images)))


def _finish(
    images: ImageBatch, small: Size, random: np.random.Generator, settings: DegradationRecipe
) -> ImageBatch:
    """To the size of LR, then the ringing of a last sharpening."""
    images = resize(images, small, draw_mode(random))
    return blur(images, draw_final_kernels(random, len(images), settings))


def blur(images: ImageBatch, kernels: Tensor) -> ImageBatch:
    """Filter each image with its own kernel; borders are reflected without repeating the edge.

    Args:
        images: (B, C, H, W), any range.
        kernels: (B, K, K) or (1, K, K), K odd, point-symmetric, of any device and precision.
    Returns:
        (B, C, H, W), not clamped.
    """
    reach = kernels.shape[-1] // 2
    padded = reflect_pad(images, reach)
    height, width = padded.shape[-2:]
    # Zeros up to a size that is fast to transform do no harm: what wraps around is cut off.
    size = (_fast_length(height), _fast_length(width))
    spectra = torch.fft.rfft2(kernels.to(images.dtype).to(images.device), s=size)
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * spectra[:, None], s=size)
    return filtered[..., 2 * reach : height, 2 * reach : width]


def _fast_length(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    while not _is_fast(length):
        length += 1
    return length


def _is_fast(length: int) -> bool:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length == 1


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


ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")


def draw_factor(random: np.random.Generator, stage: DegradationStageRecipe) -> float:
    """Draw by how much a stage resizes: up, down or not at all, then how much."""
    lowest, highest = stage.resize_range
    choice = random.choice(3, p=stage.resize_chances)
    bounds = ((1.0, highest), (lowest, 1.0), (1.0, 1.0))[choice]
    return float(random.uniform(*bounds))


def draw_mode(random: np.random.Generator) -> ResizeMode:
    """Draw one of the modes; all are alike likely."""
    return RESIZE_MODES[int(random.integers(len(RESIZE_MODES)))]


def resize(images: ImageBatch, size: tuple[int, int], mode: ResizeMode) -> ImageBatch:
    """Resize as PyTorch does without antialiasing: bilinear and bicubic leave jagged edges.

    Args:
        images: (B, 3, H, W).
        size: height and width of the result, at least 1 each.
        mode: area is the mean of the pixels that a result covers.
    Returns:
        (B, 3, *size); bicubic leaves [0, 1] a little.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode=mode)


def add_drawn_noise(
    images: ImageBatch, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    """Add the noise of a stage: one kind for the batch, strength and colour for each image.

    Args:
        images: (B, 3, H, W) in [0, 1] but for overshoot.
        random: of every choice, the noise itself among them.
        stage: chances, and ranges of the strength.
    Returns:
        (B, 3, H, W) in [0, 1].
    """
    count = len(images)
    is_gaussian = random.random() < stage.gaussian_chance
    strengths = random.uniform(*(stage.noise_sigma if is_gaussian else stage.poisson_scale), count)
    is_grey = random.random(count) < stage.grey_chance
    generator = torch.Generator(images.device).manual_seed(int(random.integers(2**62)))
    add = add_gaussian_noise if is_gaussian else add_poisson_noise
    return add(images, strengths, is_grey, generator)


def add_gaussian_noise(
    images: ImageBatch, sigmas: np.ndarray, is_grey: np.ndarray, generator: torch.Generator
) -> ImageBatch:
    """Add white noise.

    Args:
        images: (B, 3, H, W).
        sigmas: (B,), standard deviation, of a range of 255.
        is_grey: (B,) of bool; all channels of such an image get the same noise.
        generator: on the device of the images.
    Returns:
        (B, 3, H, W), clamped to [0, 1].
    """

    def noise(clean: Tensor) -> Tensor:
        return torch.randn(clean.shape, generator=generator, device=clean.device)

    return _add(images, sigmas / 255, is_grey, noise)


def add_poisson_noise(
    images: ImageBatch, scales: np.ndarray, is_grey: np.ndarray, generator: torch.Generator
) -> ImageBatch:
    """Add the noise of counted light, multiplied by a scale.

    The brightest pixel counts L photons, where L is the number of 8-bit levels that the image
    has, rounded up to a power of 2.

    Args:
        images: (B, 3, H, W).
        scales: (B,); 1 leaves the noise as it is.
        is_grey: (B,) of bool; such an image gets the noise of its luma in all channels.
        generator: on the device of the images.
    Returns:
        (B, 3, H, W), clamped to [0, 1].
    """

    def noise(clean: Tensor) -> Tensor:
        levels = (clean.clamp(0, 1) * 255).round()
        photons = _photons(levels)[:, None, None, None]
        exact = levels / 255
        return torch.poisson(exact * photons, generator=generator) / photons - exact

    return _add(images, scales, is_grey, noise)


def _add(
    images: ImageBatch,
    strengths: np.ndarray,
    is_grey: np.ndarray,
    noise: Callable[[Tensor], Tensor],
) -> ImageBatch:
    """Add noise made of the colours of some images, and of the luma of others."""
    total = torch.empty_like(images)
    luma_weights = torch.tensor(LUMA_WEIGHTS, device=images.device)[:, None, None]
    for chosen, is_luma in ((np.flatnonzero(~is_grey), False), (np.flatnonzero(is_grey), True)):
        if not len(chosen):
            continue
        index = torch.from_numpy(chosen).to(images.device)
        clean = images[index]
        if is_luma:
            clean = (clean * luma_weights).sum(dim=1, keepdim=True)
        total[index] = noise(clean).expand(-1, 3, -1, -1)
    factors = torch.from_numpy(strengths).to(images.dtype).to(images.device)
    return torch.addcmul(images, total, factors[:, None, None, None]).clamp(0, 1)


def _photons(levels: Tensor) -> Tensor:
    """(B, C, H, W) whole numbers of 0 to 255 -> (B,) powers of 2 from the number of them."""
    is_present = torch.zeros(len(levels), 256, dtype=torch.bool, device=levels.device)
    is_present.scatter_(1, levels.flatten(1).long(), value=True)
    return torch.exp2(torch.log2(is_present.sum(dim=1).float()).ceil())


LUMA_WEIGHTS = (0.299, 0.587, 0.114)
_LUMA_TABLE = """
16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
_CHROMA_TABLE = """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
"""Annex K of the standard (ITU-T T.81), row by row: what encoders scale by the quality."""


def jpeg_round_trip(images: ImageBatch, qualities: np.ndarray) -> ImageBatch:
    """Encode and decode as the usual encoder would, with chroma at half size (4:2:0).

    Left out is only what loses nothing: the order of coefficients and their entropy coding.

    Args:
        images: (B, 3, H, W) in [0, 1]; values outside are clamped.
        qualities: (B,), 1 to 100, fractions allowed.
    Returns:
        (B, 3, H, W) in [0, 1], not rounded to 8 bit.
    """
    height, width = images.shape[-2:]
    padding = (0, -width % 16, 0, -height % 16)
    padded = F.pad(images.clamp(0, 1) * 255, padding, mode="replicate")
    to_ycc, to_rgb = (matrix.to(images.dtype).to(images.device) for matrix in _colour_matrices())
    # Encoders work on whole numbers, too.
    ycc = torch.einsum("dc,bchw->bdhw", to_ycc, padded).round()
    luma, chroma = ycc[:, :1] - 128, F.avg_pool2d(ycc[:, 1:], 2)
    luma_tables, chroma_tables = (
        _scaled_tables(table, qualities).to(images.dtype).to(images.device)
        for table in (_LUMA_TABLE, _CHROMA_TABLE)
    )
    luma = _quantise_blocks(luma, luma_tables) + 128
    chroma = _quantise_blocks(chroma, chroma_tables)
    # Decoders smooth the chroma that they enlarge: 3/4 of the nearer sample, 1/4 of the other.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("dc,bchw->bdhw", to_rgb, torch.cat((luma, chroma), dim=1))
    return (rgb[..., :height, :width] / 255).clamp(0, 1)


def _quantise_blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """Round the cosine transform of each block of 8x8 to multiples of the tables.

    Args:
        planes: (B, C, H, W), sides multiples of 8, around 0.
        tables: (B, 64).
    """
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    # One product with a 64x64 matrix is faster than two with 8x8.
    transform = _cosine_transform().to(planes.dtype).to(planes.device)
    coefficients = blocks.reshape(batch, -1, 64) @ transform.T
    steps = tables[:, None]
    restored = ((coefficients / steps).round() * steps) @ transform
    # Decoders store whole numbers within 8 bits.
    restored = restored.round().clamp(-128, 127)
    restored = restored.reshape(batch, channels, height // 8, width // 8, 8, 8).transpose(3, 4)
    return restored.reshape(batch, channels, height, width)


def _scaled_tables(table: str, qualities: np.ndarray) -> Tensor:
    """Scale a table by each quality as the IJG's encoder does; (B, 64) of 1 to 255."""
    base = np.array(table.split(), dtype=np.float64)
    percents = np.where(qualities < 50, 5000 / qualities, 200 - 2 * qualities)
    return torch.from_numpy(np.floor((base * percents[:, None] + 50) / 100).clip(1, 255))


def _cosine_transform() -> Tensor:
    """(64, 64): the orthonormal two-dimensional DCT-II of a block of 8x8, row by row."""
    index = torch.arange(8, dtype=torch.float64)
    rows = torch.cos((2 * index[None] + 1) * index[:, None] * torch.pi / 16) / 2
    rows[0] /= 2**0.5
    return torch.kron(rows, rows)


def _colour_matrices() -> tuple[Tensor, Tensor]:
    """From RGB to luma and the two chroma differences, and back; (3, 3) float64 each."""
    luma = torch.tensor(LUMA_WEIGHTS, dtype=torch.float64)
    red, blue = torch.eye(3, dtype=torch.float64)[[0, 2]]
    differences = ((blue - luma) / (2 * (1 - luma[2])), (red - luma) / (2 * (1 - luma[0])))
    forth = torch.stack((luma, *differences))
    return forth, torch.linalg.inv(forth)


_SIDE_PIXELS = 51
_SIGMA = 0.3 * ((_SIDE_PIXELS - 1) * 0.5 - 1) + 0.8
"""OpenCV's rule for a Gaussian of a given side: here 8 pixels."""


def sharpen(images: ImageBatch, *, weight: float = 0.5, threshold: float = 10.0) -> ImageBatch:
    """Add ``weight`` times what a wide Gaussian takes away, where that is more than noise.

    The mask of places that differ from the blurred image by more than ``threshold`` is blurred
    itself, so that sharpening fades in.

    Args:
        images: (B, 3, H, W) in [0, 1].
        weight: 0 changes nothing.
        threshold: of a range of 255.
    Returns:
        (B, 3, H, W) in [0, 1].
    Source: Real-ESRGAN, arXiv:2107.10833, section 3.4.
    """
    if weight == 0:
        return images
    residual = images - _softened(images)
    mask = _softened((residual.abs() * 255 > threshold).to(images.dtype))
    sharp = (images + weight * residual).clamp(0, 1)
    return torch.lerp(images, sharp, mask).clamp(0, 1)


def usm_weights() -> Tensor:
    """A row of the Gaussian of unsharp masking, (51,) float64, summing to 1."""
    distances = torch.arange(_SIDE_PIXELS, dtype=torch.float64) - _SIDE_PIXELS // 2
    row = torch.exp(-distances.square() / (2 * _SIGMA**2))
    return row / row.sum()


def _softened(images: ImageBatch) -> ImageBatch:
    """Blur columns, then rows, each by one product: for patches faster than any transform."""
    rows, columns = (
        _blur_matrix(int(side)).to(images.dtype).to(images.device) for side in images.shape[-2:]
    )
    return rows @ images @ columns.T


def _blur_matrix(side: int) -> Tensor:
    """(side, side) float64: what each pixel of an axis gives to each, its ends reflected."""
    reach = _SIDE_PIXELS // 2
    positions = torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)
    sources = reflected_positions(positions.abs(), side)
    weights = usm_weights().expand(side, -1)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add(1, sources, weights)
