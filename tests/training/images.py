"""Smooth images with edges and colour, as tensors."""

import numpy as np
import torch
from torch import Tensor


def smooth_images(count: int, *, side: int = 64) -> Tensor:
    """Waves of all colours with a bright square, (count, 3, side, side), each another."""
    rows, columns = np.mgrid[0:side, 0:side]
    images = np.empty((count, 3, side, side), np.float32)
    for number in range(count):
        for channel in range(3):
            phase = number + 2 * channel
            wave = np.sin(rows / (5 + channel) + phase) * np.cos(columns / (7 + number))
            images[number, channel] = 0.45 + 0.25 * wave
        images[number, :, side // 4 : side // 2, side // 3 : side // 2] += 0.25
    return (torch.from_numpy(images) * 255).round() / 255


def psnr_db(first: Tensor, second: Tensor) -> float:
    """Over all channels, of a range of 1."""
    return float(-10 * torch.log10((first - second).square().mean()))
