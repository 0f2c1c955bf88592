"""Recorded launches: when they are recorded, replayed, dropped and done without."""

import logging

import pytest
import torch
from torch import Tensor, nn

from escsr.engines.folding import fold
from escsr.model.attention.cuda_graphs import GraphedNetwork, MemoryPool, Recording
from tests.model.networks import random_image, small_network


class Recorder:
    """Records as CUDA does, but that a replay computes again, so that it runs anywhere."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, network: nn.Module, lr_image: Tensor, pool: MemoryPool) -> Recording:
        """Make a recording, and note its shape."""
        self.shapes.append(tuple(lr_image.shape))
        given = lr_image.clone()
        made = network(given)

        def run() -> None:
            self.replays += 1
            made.copy_(network(given))

        return Recording(run, given, made)


def test_the_second_image_of_a_shape_is_recorded_and_the_third_replayed() -> None:
    """Every result is the network's, and none changes when the next comes."""
    network, recorder = fold(small_network()), Recorder()
    graphed = GraphedNetwork(network, record=recorder)
    images = [random_image(1, 3, 9, 7, seed=seed) for seed in range(4)]
    results = [graphed(image) for image in images]
    assert recorder.shapes == [(1, 3, 9, 7)]
    assert recorder.replays == 3
    for image, result in zip(images, results, strict=True):
        assert torch.equal(result, network(image))


def test_shapes_and_types_are_told_apart_and_the_least_used_goes() -> None:
    """Two recordings at most: the one not replayed lately is recorded anew."""
    recorder = Recorder()
    graphed = GraphedNetwork(nn.Conv2d(3, 3, 1), most_graphs=2, record=recorder)
    first, second, third = (torch.rand(1, 3, 4, width) for width in (4, 5, 6))
    for image in (first, first, second, second, first, third, third):
        graphed(image)
    assert len(graphed._recordings) == 2
    assert recorder.shapes == [first.shape, second.shape, third.shape]
    graphed(first)
    assert len(recorder.shapes) == 3
    graphed(second)
    assert recorder.shapes[-1] == second.shape
    assert len(graphed._recordings) == 2


def test_large_images_and_shapes_seen_once_are_not_recorded() -> None:
    """Their launches do not matter, or would be recorded for nothing."""
    recorder = Recorder()
    graphed = GraphedNetwork(nn.Identity(), largest_pixels=32, record=recorder)
    for width in (1, 2, 3, 9, 9, 9):
        graphed(torch.rand(1, 3, 4, width))
    assert recorder.shapes == []


def test_a_network_that_cannot_be_recorded_runs_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is tried once, and the log says why not."""
    tries: list[int] = []

    def refuse(network: nn.Module, lr_image: Tensor, pool: MemoryPool) -> Recording:
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    graphed = GraphedNetwork(nn.Identity(), record=refuse)
    image = torch.rand(1, 3, 4, 4)
    with caplog.at_level(logging.WARNING, logger="escsr"):
        results = [graphed(image) for _ in range(4)]
    assert all(torch.equal(result, image) for result in results)
    assert len(tries) == 1
    assert "not permitted when stream is capturing); it runs without" in caplog.text
    assert "and more" not in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_replays_what_it_recorded() -> None:
    """Two shapes in turn, in memory that both share; no wait on the host in between."""
    network = fold(small_network()).cuda()
    graphed = GraphedNetwork(network)
    images = [random_image(1, 3, 20, 10 + seed % 2, seed=seed).cuda() for seed in range(8)]
    results = [graphed(image) for image in images]
    assert len(graphed._recordings) == 2
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(result, network(image), rtol=1e-4, atol=1e-5)
