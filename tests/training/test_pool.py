"""The pool mixes pairs, loses none, and can be made again."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from escsr.training.degraded_batches import PairPool


def pair_of(step: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Pairs with numbers of their own: LR of 1 pixel, HR of 4, all the same value."""
    values = (torch.arange(batch_size) + step * batch_size) / 255
    lr_batch = values[:, None, None, None].expand(-1, 3, 1, 1)
    return lr_batch, lr_batch.expand(-1, -1, 2, 2)


def numbers_of(images: Tensor) -> list[int]:
    """Which pairs these are."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def run(pool: PairPool, steps: range, batch_size: int) -> list[list[int]]:
    """The numbers of the pairs that come out, step by step."""
    taken = []
    for step in steps:
        lr_batch, hr_batch = pool.exchange(step, *pair_of(step, batch_size))
        assert numbers_of(lr_batch) == numbers_of(hr_batch)
        taken.append(numbers_of(lr_batch))
    return taken


def test_while_a_pool_is_filled_a_batch_goes_right_through() -> None:
    """Twelve places, batches of four: three steps."""
    pool = PairPool(12, 4, seed=0, rank=0)
    assert run(pool, range(3), 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_full_pool_mixes_the_pairs_of_several_steps() -> None:
    """Nothing is used twice but by those that filled it, and what is in the pool is never lost."""
    pool = PairPool(12, 4, seed=0, rank=0)
    taken = run(pool, range(40), 4)
    later = [number for batch in taken[3:] for number in batch]
    assert max(Counter(later).values()) == 1
    from_several = [len({number // 4 for number in batch}) for batch in taken[3:]]
    assert sum(from_several) / len(from_several) > 2
    # A pair stays three steps on average; none stays for a hundred.
    assert len(set(range(160)) - set(later)) == 12


def test_values_of_8_bit_pass_a_pool_unchanged() -> None:
    """It keeps bytes: an eighth of the memory."""
    pool = PairPool(2, 2, seed=0, rank=0)
    values = (torch.arange(256) / 255).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
    pool.exchange(0, values, values)
    lr_batch, hr_batch = pool.exchange(1, values, values)
    assert torch.equal(lr_batch, values)
    assert torch.equal(hr_batch, values)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 25])
def test_a_pool_is_made_again_from_where_its_pairs_stem(step: int) -> None:
    """In the midst of filling it, just full, and long after: what comes out is the same."""
    going_on = PairPool(12, 4, seed=5, rank=1)
    run(going_on, range(step), 4)
    again = PairPool(12, 4, seed=5, rank=1)
    for earlier, origins in again.origins(step).items():
        positions, places = (list(column) for column in zip(*origins, strict=True))
        lr_batch, hr_batch = pair_of(earlier, 4)
        again.put(places, lr_batch[positions], hr_batch[positions])
    steps = range(step, step + 10)
    assert run(again, steps, 4) == run(going_on, steps, 4)


def test_processes_mix_differently() -> None:
    """Rank and seed are part of every choice."""
    places = [PairPool(90, 9, seed=s, rank=r).places_of(20) for s, r in ((0, 0), (0, 1), (1, 0))]
    assert places[0] != places[1]
    assert places[0] != places[2]


def test_without_a_pool_a_batch_goes_right_through() -> None:
    """pool_pairs = 0."""
    assert run(PairPool(0, 4, seed=0, rank=0), range(2), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_pool_that_batches_cannot_fill_is_rounded_up() -> None:
    """Nine places, batches of four: as a pool of twelve."""
    rounded, whole = (PairPool(pairs, 4, seed=0, rank=0) for pairs in (9, 12))
    assert run(rounded, range(20), 4) == run(whole, range(20), 4)
