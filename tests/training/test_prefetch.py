"""Batches made ahead: the same ones in the same order, and nothing is left behind."""

import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from escsr.errors import TrainingError
from escsr.training import data as data_module
from escsr.training.batches import PairBatch
from escsr.training.data import Prefetcher
from tests.training.data_sets import open_data, write_shards
from tests.training.pictures import write_pictures


class CountingSource:
    """The batch of a step holds its number, rank and world size; some steps take long or fail."""

    image_count = 1

    def __init__(self, *, slow: tuple[int, ...] = (), broken: int | None = None) -> None:
        self.made: list[int] = []
        self._slow, self._broken = slow, broken

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> PairBatch:
        """What was asked for, as numbers."""
        if step == self._broken:
            raise TrainingError(f"photo-{step}.jpg is gone")
        if step in self._slow:
            time.sleep(0.02)
        self.made.append(step)
        return PairBatch.of_patches(torch.tensor([step]), torch.tensor([step, rank, world_size]))

    def close(self) -> None:
        """Nothing to let go of."""


def steps_of(batches: Prefetcher) -> list[int]:
    """The step that each batch was made for."""
    return [int(batch.tensors[0]) for batch in batches]


@given(
    first_step=st.integers(0, 50),
    number=st.integers(0, 12),
    workers=st.sampled_from([1, 2, 4]),
    ahead=st.integers(0, 6),
    slow=st.frozensets(st.integers(0, 60), max_size=4),
)
def test_batches_come_in_order_whatever_the_number_of_workers(
    first_step: int, number: int, workers: int, ahead: int, slow: frozenset[int]
) -> None:
    """A slow step is waited for and not overtaken; the last step itself is not made."""
    source = CountingSource(slow=tuple(slow))
    last_step = first_step + number
    with closing(
        Prefetcher(source, first_step=first_step, last_step=last_step, workers=workers, ahead=ahead)
    ) as batches:
        assert steps_of(batches) == list(range(first_step, last_step))
    assert sorted(source.made) == list(range(first_step, last_step))


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_real_batches_are_the_same_from_many_threads(tmp_path: Path, kind: str) -> None:
    """Threads that decode, evict and read shards at once make what one alone makes."""
    data = write_pictures(tmp_path / "pictures")
    if kind == "shards":
        write_shards(sorted(data.iterdir()), tmp_path / "shards", images_per_shard=2)
        data = tmp_path / "shards"
    with closing(open_data(data, patch_pixels=12, cache_bytes=0)) as source:
        expected = [source.batch(step).tensors[1] for step in range(12)]
        with closing(Prefetcher(source, first_step=0, last_step=12, workers=4, ahead=8)) as batches:
            for batch, alone in zip(batches, expected, strict=True):
                assert torch.equal(batch.tensors[1], alone)


def test_rank_and_world_size_reach_the_source() -> None:
    """Each process prefetches its own share."""
    with closing(
        Prefetcher(CountingSource(), first_step=3, last_step=4, rank=1, world_size=2)
    ) as batches:
        assert next(batches).tensors[1].tolist() == [3, 1, 2]


def test_no_more_than_asked_for_is_made_ahead() -> None:
    """Memory holds a few batches, not the run."""
    source = CountingSource()
    with closing(Prefetcher(source, first_step=0, last_step=1000, ahead=3)) as batches:
        next(batches)
        time.sleep(0.05)
        assert max(source.made) == 3


def test_an_error_comes_with_the_batch_that_it_concerns() -> None:
    """The batches before it are used first, so the run can be saved at the step it reached."""
    with closing(
        Prefetcher(CountingSource(broken=3), first_step=0, last_step=9, workers=4, ahead=8)
    ) as batches:
        assert [int(next(batches).tensors[0]) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TrainingError, match=r"photo-3\.jpg is gone"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_waiting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the network had no data counts; time in which data had no network does not.

    By a clock of our own: it goes on by a second while a batch is made that was asked for.
    """
    readings, asked = [0.0], threading.Event()

    def read() -> float:
        readings.append(readings[-1])
        if len(readings) % 2 == 0:  # the first of the two readings of a batch
            asked.set()
        return readings[-1]

    class Slow(CountingSource):
        def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> PairBatch:
            """Made while somebody waits."""
            asked.wait()
            asked.clear()
            readings[-1] += 1
            return super().batch(step, rank=rank, world_size=world_size)

    monkeypatch.setattr(data_module, "time", SimpleNamespace(perf_counter=read))
    with closing(Prefetcher(Slow(), first_step=0, last_step=6)) as batches:
        assert steps_of(batches) == [0, 1, 2, 3, 4, 5]
        assert batches.waited_seconds == 6
    with closing(Prefetcher(CountingSource(), first_step=0, last_step=4)) as batches:
        for _ in range(4):
            readings[-1] += 1  # the network works
            next(batches)
        assert batches.waited_seconds == 0


def test_closing_ends_the_threads_without_making_what_is_queued() -> None:
    """A stopped run stops now, whatever was to be made ahead."""
    source = CountingSource(slow=tuple(range(1000)))
    batches = Prefetcher(source, first_step=0, last_step=1000, workers=2, ahead=500)
    batches.close()
    assert len(source.made) < 250  # of 500, which take 5 seconds; on a machine that hardly runs too
    assert not [thread for thread in threading.enumerate() if "escsr-data" in thread.name]
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.gpu
def test_pinned_batches_stay_channels_last() -> None:
    """Page-locked memory changes where they lie, not how."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    class Images(CountingSource):
        def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> PairBatch:
            """Pixels as they come from files."""
            image = torch.rand(2, 8, 8, 3).permute(0, 3, 1, 2)
            return PairBatch.of_patches(image, image)

    with closing(Prefetcher(Images(), first_step=0, last_step=1, pin_memory=True)) as batches:
        for images in next(batches).tensors:
            assert images.is_pinned()
            assert images.is_contiguous(memory_format=torch.channels_last)
