"""CUDA graphs: a network's launches, recorded once per input shape and replayed."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from escsr import machine

logger = logging.getLogger("escsr")

LARGEST_PIXELS = 512 * 512
"""Pixels of input, over the batch, beyond which nothing is recorded: the largest tile that is
chosen on its own. Where launches stop to matter is not measured yet."""
_MOST_GRAPHS = 8
"""Each holds its input and its result; the memory of the work between is shared by all."""
_WARM_UP_RUNS = 2
"""So that libraries choose their algorithms, and Triton compiles, before anything is recorded."""
_RUNS_BEFORE_RECORDING = 1
"""Shapes seen only once, as in a folder of photographs, are not worth recording."""
_MOST_SHAPES_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded forward."""

    run: Callable[[], None]
    """Starts the recorded work on the current stream."""
    given: Tensor
    """Where it reads its input."""
    made: Tensor
    """Where it leaves its result."""


MemoryPool: TypeAlias = Any
"""Where CUDA graphs work: what ``torch.cuda.graph_pool_handle`` gives, or None."""

Recorder: TypeAlias = Callable[[nn.Module, Tensor, MemoryPool], Recording]
"""Makes a recording, as ``record_cuda_graph`` does."""


class GraphedNetwork(nn.Module):
    """A network whose launches are replayed on CUDA where it has seen an input's shape before.

    The first input of a shape runs as it would without; the second is recorded. The least
    recently used recording goes when there are too many. Where recording fails, the network runs
    as it would without from then on, and the log says so. May be called from several threads,
    which take turns. Inference only.

    All recordings work in one pool of memory, as large as the largest needs. That is safe though
    they overlap, since one runs at a time and each result is copied before the next.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        most_graphs: int = _MOST_GRAPHS,
        largest_pixels: int = LARGEST_PIXELS,
        record: Recorder | None = None,
    ) -> None:
        """Wrap a folded network that lies on a CUDA device and will stay as it is.

        Args:
            network: (B, C, H, W) -> a tensor; reads nothing of the device on the host.
            most_graphs: recordings held at once.
            largest_pixels: of an input, over the batch, that is still recorded.
            record: makes a recording; ``record_cuda_graph`` unless given.
        """
        super().__init__()
        self.network = network
        self._most_graphs = most_graphs
        self._largest_pixels = largest_pixels
        self._record = record or record_cuda_graph
        self._recordings: OrderedDict[_Shape, Recording] = OrderedDict()
        self._seen: OrderedDict[_Shape, int] = OrderedDict()
        self._pool: MemoryPool = None
        self._done: torch.cuda.Event | None = None
        self._failed = False
        self._lock = threading.Lock()

    @torch.inference_mode()
    def forward(self, lr_image: Tensor) -> Tensor:
        """As ``network``; the result is the caller's own."""
        if self._failed or lr_image.numel() // lr_image.shape[1] > self._largest_pixels:
            return self.network(lr_image)
        with self._lock:
            recording = self._recording_for(lr_image)
            if recording is not None:
                return self._replay(recording, lr_image)
        return self.network(lr_image)

    def _replay(self, recording: Recording, lr_image: Tensor) -> Tensor:
        """Copy in, run, copy out; nothing waits on the host."""
        if lr_image.is_cuda and self._done is not None:
            # The last replay, in the same memory, may have been on another thread's stream.
            torch.cuda.current_stream(lr_image.device).wait_event(self._done)
        recording.given.copy_(lr_image)
        recording.run()
        result = recording.made.clone()
        if lr_image.is_cuda:
            self._done = self._done or torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(lr_image.device))
        return result

    def _recording_for(self, lr_image: Tensor) -> Recording | None:
        """The recording for an input; None where it is to run without one."""
        shape = _Shape(tuple(lr_image.shape), lr_image.dtype)
        if shape in self._recordings:
            self._recordings.move_to_end(shape)
            return self._recordings[shape]
        if self._times_seen(shape) < _RUNS_BEFORE_RECORDING or self._failed:
            return None
        while len(self._recordings) >= self._most_graphs:
            self._recordings.popitem(last=False)
        recording = self._try_to_record(lr_image)
        if recording is not None:
            self._recordings[shape] = recording
        return recording

    def _times_seen(self, shape: "_Shape") -> int:
        """How often a shape came before; counts this time."""
        before = self._seen.pop(shape, 0)
        self._seen[shape] = before + 1
        if len(self._seen) > _MOST_SHAPES_REMEMBERED:
            self._seen.popitem(last=False)
        return before

    def _try_to_record(self, lr_image: Tensor) -> Recording | None:
        try:
            if lr_image.is_cuda and self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            return self._record(self.network, lr_image, self._pool)
        # What CUDA and its libraries refuse while recording, they report as RuntimeError.
        except RuntimeError as error:
            self._failed = True
            self._recordings.clear()
            memory = machine.is_out_of_memory(error)
            reason = "memory ran out" if memory else str(error).strip().split("\n", maxsplit=1)[0]
            logger.warning(
                "The network could not be recorded as a CUDA graph (%s); it runs without.", reason
            )
            return None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a recording is good for."""

    size: tuple[int, ...]
    dtype: torch.dtype


def record_cuda_graph(network: nn.Module, lr_image: Tensor, pool: MemoryPool) -> Recording:
    """Run a network on a stream aside until it is warm, then record one forward.

    Args:
        network: on a CUDA device.
        lr_image: an input of the shape to record, there too; left as it is.
        pool: the memory to work in; its own unless given.
    Returns:
        The recording. Its memory layout is that of this input.
    Raises:
        RuntimeError: it cannot be recorded: a wait on the host within, no memory.
    """
    with torch.cuda.device(lr_image.device):
        given = lr_image.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_RUNS):
                network(given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which decode and encode images, may call CUDA meanwhile.
        with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
            made = network(given)
    return Recording(graph.replay, given, made)
