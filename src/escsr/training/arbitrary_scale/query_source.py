"""Batches of queries from any source of photographs."""

import numpy as np
import torch
from torch import Tensor

from escsr.training.arbitrary_scale.queries import QuerySettings, draw_queries
from escsr.training.data.pairs import PairSource
from escsr.training.data.patches import Pixels, positions_of_rank
from escsr.training.data.sample_settings import RandomStream


class QuerySource:
    """Draws a scale, a crop and pixels from each photograph of another source's batch.

    A ``PairSource`` itself: a batch depends on the seed, the step and the photographs alone.

    Differs: the reference crops anywhere in an image, here in a square of the largest crop's side
    that was drawn from it; so pixels within that side of a border are seen a little less often.

    Args:
        photographs: its batches hold squares of ``settings.largest_crop_pixels`` as HR.
        settings: what to draw.
        batch_size: photographs per step, of all processes together.
        seed: of every choice.
    """

    def __init__(
        self, photographs: PairSource, settings: QuerySettings, *, batch_size: int, seed: int
    ) -> None:
        self._photographs, self._settings = photographs, settings
        self._batch_size, self._seed = batch_size, seed

    @property
    def image_count(self) -> int:
        """Images in use, as far as is known."""
        return self._photographs.image_count

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """The LR patches and queries of a step, or one process's share of them.

        Args:
            step: counted from 0.
            rank: which of the processes this is.
            world_size: number of processes; must divide the batch size.
        Returns:
            LR (B / world_size, 3, h, h) in [0, 1], channels_last, and queries (B / world_size, Q,
            7), as ``QueryBatch.of_pairs`` takes them; float32, on the CPU.
        Raises:
            TrainingError: a file is gone or has changed, or the batch cannot be shared evenly.
        """
        _, photographs = self._photographs.batch(step, rank=rank, world_size=world_size)
        positions = positions_of_rank(self._batch_size, rank, world_size)
        drawn = [
            draw_queries(_as_pixels(photograph), self._generator(step, position), self._settings)
            for photograph, position in zip(photographs, positions, strict=True)
        ]
        lr_patches, queries = zip(*drawn, strict=True)
        lr_batch = torch.from_numpy(np.stack(lr_patches).astype(np.float32) / np.float32(255))
        return lr_batch.permute(0, 3, 1, 2), torch.from_numpy(np.stack(queries))

    def close(self) -> None:
        """Let go of what is in memory; there are no batches after this."""
        self._photographs.close()

    def _generator(self, step: int, position: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step, position, 0, RandomStream.QUERY))


def _as_pixels(photograph: Tensor) -> Pixels:
    """(3, S, S) with every value k/255 -> (S, S, 3) uint8."""
    return np.rint(photograph.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
