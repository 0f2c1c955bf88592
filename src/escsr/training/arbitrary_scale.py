"""Training a network for any scale, on pixels drawn from crops of random scale."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.shapes import ImageBatch
from escsr.training.batches import BatchSource, PhotographBatch, QueryBatch
from escsr.training.patches import (
    Pixels,
    RandomStream,
    positions_of_rank,
    shrink_by_pillow,
    to_float,
)
from escsr.training.recipe import Recipe


class QuerySource:
    """Draws a scale, a crop and pixels from each photograph of another source's batch.

    A ``BatchSource`` itself: a batch depends on the seed, the step and the photographs alone.

    Differs: the reference crops anywhere in an image, here in a square of the largest crop's side
    that was drawn from it; so pixels within that side of a border are seen a little less often.

    Args:
        photographs: its batches hold squares of ``recipe.hr_patch_pixels``.
        recipe: says what to draw.
    """

    def __init__(self, photographs: BatchSource, recipe: Recipe) -> None:
        self._photographs, self._recipe = photographs, recipe

    @property
    def image_count(self) -> int:
        """Images in use, as far as is known."""
        return self._photographs.image_count

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> QueryBatch:
        """The LR patches and queries of a step, or one process's share, as ``BatchSource`` says."""
        batch = self._photographs.batch(step, rank=rank, world_size=world_size)
        assert isinstance(batch, PhotographBatch)
        positions = positions_of_rank(self._recipe.data.batch_size, rank, world_size)
        drawn = [
            draw_queries(_as_pixels(photograph), self._generator(step, position), self._recipe)
            for photograph, position in zip(batch.photographs, positions, strict=True)
        ]
        lr_patches, queries = zip(*drawn, strict=True)
        places, sizes, colours = np.split(np.stack(queries), (2, 4), axis=-1)
        return QueryBatch(
            to_float(lr_patches),
            torch.from_numpy(places),
            torch.from_numpy(sizes[:, 0]),
            torch.from_numpy(colours * 2 - 1),
        )

    def close(self) -> None:
        """Let go of what is in memory; there are no batches after this."""
        self._photographs.close()

    def _generator(self, step: int, position: int) -> np.random.Generator:
        return np.random.default_rng((self._recipe.seed, step, position, 0, RandomStream.QUERY))


def _as_pixels(photograph: Tensor) -> Pixels:
    """(3, S, S) with every value k/255 -> (S, S, 3) uint8."""
    return np.rint(photograph.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


QUERY_VALUES = 7
"""Numbers per query: row and column of its centre, height and width of its pixel, R, G, B."""


def draw_queries(
    photograph: Pixels, generator: np.random.Generator, recipe: Recipe
) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """Crop at random, shrink the crop to an LR patch, and choose pixels of the crop.

    The side of the crop is ``round(patch_pixels * s)`` with s drawn evenly from 1 to the recipe's
    scale; LR is made of it by Pillow's bicubic filter. Of each crop ``query_pixels`` are drawn, or,
    from crops of all scales alike, as many as the smallest has.

    Args:
        photograph: (S, S, 3) uint8, S at least ``recipe.hr_patch_pixels``.
        generator: gives the same sequence of draws in every version: runs depend on it.
        recipe: its scale, ``patch_pixels`` and ``query_pixels``.
    Returns:
        LR (h, h, 3) uint8, and (queries, ``QUERY_VALUES``): places and sizes in the coordinates of
        the Local Texture Estimator, [-1, 1] from edge to edge; colours in [0, 1].
    Raises:
        MissingExtraError: Pillow is not installed.
    Source: the training of ESC+LTE, arXiv:2503.06671.
    """
    patch_pixels = recipe.data.patch_pixels
    count = min(recipe.data.query_pixels, patch_pixels**2)
    side = round(patch_pixels * generator.uniform(1, recipe.scale))
    top = int(generator.integers(photograph.shape[0] - side + 1))
    left = int(generator.integers(photograph.shape[1] - side + 1))
    crop = np.ascontiguousarray(photograph[top : top + side, left : left + side])
    chosen = generator.choice(side * side, count, replace=False)
    queries = np.empty((count, QUERY_VALUES), np.float32)
    centres = (2 * np.arange(side) + 1) / side - 1
    queries[:, 0] = centres[chosen // side]
    queries[:, 1] = centres[chosen % side]
    queries[:, 2:4] = 2 / side
    queries[:, 4:] = crop.reshape(-1, 3)[chosen] / np.float32(255)
    return shrink_by_pillow(crop, patch_pixels), queries


class QueryNetwork(nn.Module):
    """Predicts single pixels with the weights of an ESC+LTE; it has none of its own.

    Args:
        network: whose ``upsampler`` is "lte".
    """

    def __init__(self, network: ESC) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr_image: ImageBatch, coordinates: Tensor, cell: Tensor) -> Tensor:
        """Predict pixels.

        Args:
            lr_image: (B, 3, h, h) in [0, 1].
            coordinates: (B, Q, 2) in [-1, 1].
            cell: (B, 2).
        Returns:
            (B, Q, 3), normalised to [-1, 1].
        """
        head = self.network.reconstruction
        assert isinstance(head, LocalTextureHead)
        pixels = head.query(self.network.features(lr_image), lr_image, coordinates, cell)
        return pixels * 2 - 1


def trained_module(recipe: Recipe, network: nn.Module) -> nn.Module:
    """What a step of training calls: the network, or for any scale, what predicts its pixels."""
    if recipe.data.kind != "queries":
        return network
    assert isinstance(network, ESC)
    return QueryNetwork(network)
