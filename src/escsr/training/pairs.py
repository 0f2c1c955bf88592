"""Pairs of LR and HR patches, cut at random from photographs that are kept decoded in memory."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ImageError, TrainingError
from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.resize import resize_bicubic_uint8

_log = logging.getLogger("escsr")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImagePair:
    """One photograph and its small version."""

    hr_pixels: Pixels
    """(scale*H, scale*W, 3)."""
    lr_pixels: Pixels
    """(H, W, 3), by MATLAB's uint8 bicubic rule."""


class PatchSampler:
    """Batches of random, flipped and rotated patches; batch n depends on the seed and n alone."""

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        *,
        scale: int,
        patch_pixels: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._pairs = pairs
        self._scale = scale
        self._patch = patch_pixels
        self._batch_size = batch_size
        self._seed = seed
        areas = np.array([pair.lr_pixels[..., 0].size for pair in pairs], dtype=np.float64)
        self._chances = areas / areas.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The pairs of a step.

        Returns:
            LR (B, 3, h, h) and HR (B, 3, scale*h, scale*h), float32 in [0, 1], channels_last.
        """
        generator = np.random.default_rng((self._seed, step))
        chosen = generator.choice(len(self._pairs), size=self._batch_size, p=self._chances)
        patches = [self._patch_pair(self._pairs[int(index)], generator) for index in chosen]
        lr_batch, hr_batch = (np.stack(side) for side in zip(*patches, strict=True))
        return _to_float(lr_batch), _to_float(hr_batch)

    def _patch_pair(self, pair: ImagePair, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
        size, scale = self._patch, self._scale
        height, width = pair.lr_pixels.shape[:2]
        top = int(generator.integers(height - size + 1))
        left = int(generator.integers(width - size + 1))
        lr_patch = pair.lr_pixels[top : top + size, left : left + size]
        hr_patch = pair.hr_pixels[
            top * scale : (top + size) * scale, left * scale : (left + size) * scale
        ]
        turns, mirrored = int(generator.integers(4)), bool(generator.integers(2))
        return _orient(lr_patch, turns, mirrored), _orient(hr_patch, turns, mirrored)


def load_pairs(folder: Path, *, scale: int, smallest_lr_pixels: int) -> list[ImagePair]:
    """Decode every image below a folder and make its LR version, on all cores.

    Images that cannot be read or that are smaller than a patch are reported in the log and left
    out.

    Args:
        folder: searched with its sub-folders.
        scale: shrinking factor per side.
        smallest_lr_pixels: both LR sides need at least this many pixels.
    Raises:
        TrainingError: no usable image is left.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder; give one that holds the training images.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in READABLE_SUFFIXES)
    with ThreadPoolExecutor(max_workers=2) as pool:
        loaded = list(pool.map(lambda path: _load_pair(path, scale, smallest_lr_pixels), paths))
    pairs = [pair for pair in loaded if pair is not None]
    if not pairs:
        raise TrainingError(
            f"None of the {len(paths)} images below {folder} can be used; each needs at least "
            f"{smallest_lr_pixels * scale} pixels per side. The log names the broken ones."
        )
    _log.info("%d of %d images in memory", len(pairs), len(paths))
    return pairs


def _load_pair(path: Path, scale: int, smallest_lr_pixels: int) -> ImagePair | None:
    try:
        pixels = read_image(path).pixels
    except ImageError as error:
        _log.warning("left out: %s", error)
        return None
    if pixels.dtype != np.uint8:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    hr_pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    height, width = (side // scale * scale for side in hr_pixels.shape[:2])
    if min(height, width) < smallest_lr_pixels * scale:
        _log.warning("left out: %s is only %dx%d pixels", path, width, height)
        return None
    hr_pixels = np.ascontiguousarray(hr_pixels[:height, :width])
    return ImagePair(hr_pixels, resize_bicubic_uint8(hr_pixels, scale=1 / scale))


def _orient(pixels: Pixels, turns: int, mirrored: bool) -> Pixels:
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def _to_float(pixels: Pixels) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32; the memory stays as it lies: channels_last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
