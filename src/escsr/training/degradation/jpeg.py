"""What JPEG does to images, batched and on any device: a quality per image, chroma halved."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.shapes import ImageBatch

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
