"""A network that the core runs: numpy arrays in, numpy arrays out."""

import ctypes
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import byref, c_void_p
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeGuard

import numpy as np
import numpy.typing as npt

from escsr.core import library as c
from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    DeviceMemoryError,
    EscsrError,
    ImageValueError,
)
from escsr.family.configuration import ESCConfig
from escsr.family.inputs import require_image_batch, two_whole_numbers

Floats = npt.NDArray[np.float32]
OnProgress = Callable[[float], None]
"""Told the share of the work that is done, 0 to 1, at least every half second; what it raises ends
the work, and is raised by the call."""
ReadRows = Callable[[int, int], Floats]
"""Rows from ``top`` to ``bottom`` of an image: (3, rows, width) in [0, 1]."""

_TYPES = {"<f4": b"F32", "<f2": b"F16", "<f8": b"F64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis of a part of an image whose result may have any size."""

    length: int
    """Of the whole image, in pixels."""
    output_length: int
    """Of the whole result."""
    start: int = 0
    """Pixel of the image that the given part begins with."""
    output_start: int = 0
    """Pixel of the result that the one to make begins with."""


Axes = tuple[Axis, Axis]
"""Of rows and of columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a job takes, beside the network and the rows of the result that its user holds."""

    memory_bytes: int
    """At most."""
    storage_bytes: int
    """Of ``Storage``; 0 where features are kept in memory."""
    band_rows: int
    """Rows of the result that are best made at a time."""


class Storage(Protocol):
    """Where features are kept that memory has no room for."""

    def read(self, offset: int, values: memoryview) -> None:
        """Fill ``values`` with what was written there."""
        ...

    def write(self, offset: int, values: memoryview) -> None:
        """Keep ``values``."""
        ...


class Network:
    """A network of the family, ready to run; it may be used from many threads at once.

    While it runs, other threads of Python run too, and Ctrl-C ends it within half a second. It can
    be pickled, and used in a process that was forked from the one that opened it.

    Args:
        config: of the network.
        state: its arrays, under the names that ``escsr.model.ESC`` gives them; of float32, float16
            or float64. They must not be changed afterwards.
    Raises:
        CheckpointError: an array is missing, unknown, of another shape or not finite.
        ConfigurationError: the core cannot be loaded or compiled here.
        DeviceMemoryError: memory ran out.
    """

    def __init__(self, config: ESCConfig, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._handle = c_void_p()
        self.config = config
        self._state = {name: _as_array(values) for name, values in state.items()}
        self._library = c.core_library()
        self._open()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Network":
        """Open the content of one of our files, which the core reads itself.

        Raises:
            CheckpointError: it is no such file, or is damaged.
        """
        network = cls.__new__(cls)
        network._handle, network._library = c_void_p(), c.core_library()
        error = c.Error()
        status = network._library.escsr_open(
            content, len(content), byref(network._handle), byref(error)
        )
        _raise_if_failed(status, error)
        network._content = content
        text = network._description.configuration
        network.config = ESCConfig.from_dict(json.loads(text))
        return network

    _content: bytes | None = None
    """What it was opened from where that were no arrays."""

    def _open(self) -> None:
        arrays = (c.Array * len(self._state))()
        shapes: list[Any] = []
        for array, (name, values) in zip(arrays, self._state.items(), strict=True):
            shapes.append((ctypes.c_int64 * max(1, values.ndim))(*values.shape))
            array.name, array.data = name.encode(), values.ctypes.data
            array.type, array.num_dimensions = _TYPES[values.dtype.str], values.ndim
            array.shape = shapes[-1]
        error = c.Error()
        configuration = json.dumps(self.config.to_dict()).encode()
        status = self._library.escsr_open_arrays(
            configuration, arrays, len(arrays), byref(self._handle), byref(error)
        )
        if status == c.INVALID_ARGUMENT:  # an array that no network can have
            raise CheckpointError(error.text)
        _raise_if_failed(status, error)

    @property
    def scale(self) -> int:
        """Upscaling factor per side; of ESC+LTE, the one it takes unless told a size."""
        return self.config.scale

    @property
    def instructions(self) -> str:
        """Of the processor that are used: "avx512", "avx2", "sse4.2", "neon" or "generic"."""
        return self._description.cpu.decode()

    @property
    def num_parameters(self) -> int:
        """Numbers that were learned."""
        return int(self._description.num_parameters)

    @property
    def window_pixels(self) -> int:
        """Side of an attention window, in pixels of the image."""
        return int(self._description.window_pixels)

    @property
    def _description(self) -> c.Description:
        description = c.Description()
        self._library.escsr_describe(self._handle, byref(description))
        return description

    def __call__(
        self,
        images: npt.NDArray[np.floating[Any]],
        output_size: tuple[int, int] | None = None,
        *,
        num_threads: int = 0,
        on_progress: OnProgress | None = None,
        axes: Axes | None = None,
    ) -> Floats:
        """Enlarge images.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], any H, W >= 1; left as they are.
            output_size: (H', W') of the result; ``scale`` times the image's unless given. Only
                ESC+LTE makes other sizes.
            num_threads: 0 for one per processor that the process may use.
            on_progress: told about each image's share.
            axes: where the images are parts of larger ones (ESC+LTE).
        Returns:
            (B, 3, H', W') float32, not clamped.
        Raises:
            ImageValueError: not such an array.
            ConfigurationError: a size that the network does not make.
            CheckpointError: the network gives NaN or infinite values.
            DeviceMemoryError: memory ran out.
        """
        images = _require_images(images)
        size = self._output_size(images.shape[2:], output_size)
        result = _empty((images.shape[0], 3, *size))
        for index, image in enumerate(images):
            call = _Call(_share_of(on_progress, index, len(images)), num_threads, axes)
            with call.running() as error:
                call.status = self._library.escsr_run(
                    self._handle,
                    image.ctypes.data,
                    *image.shape[1:],
                    result[index].ctypes.data,
                    *size,
                    byref(call.options),
                    byref(error),
                )
        return result

    def plan(
        self,
        size: tuple[int, int],
        output_size: tuple[int, int] | None = None,
        *,
        num_threads: int = 0,
        limit_bytes: int = 0,
        with_storage: bool = False,
        axes: Axes | None = None,
    ) -> Needs:
        """What ``begin`` takes for an image of (height, width), with the same arguments.

        Where it cannot keep the limit, the least that it can do with. 0 is no limit.
        """
        needs, result_size = c.Needs(), self._output_size(size, output_size)
        call = _Call(None, num_threads, axes)
        with call.running() as error:
            call.status = self._library.escsr_plan(
                self._handle,
                *size,
                *result_size,
                byref(call.options),
                limit_bytes,
                int(with_storage),
                byref(needs),
                byref(error),
            )
        return Needs(
            memory_bytes=needs.memory_bytes,
            storage_bytes=needs.storage_bytes,
            band_rows=needs.band_rows,
        )

    def begin(
        self,
        size: tuple[int, int],
        read: ReadRows,
        output_size: tuple[int, int] | None = None,
        *,
        storage: Storage | None = None,
        limit_bytes: int = 0,
        num_threads: int = 0,
        on_progress: OnProgress | None = None,
        axes: Axes | None = None,
    ) -> "Job":
        """Make the features of an image whose result is then made row by row.

        Args:
            size: (height, width) of the image.
            read: gives its rows; each is asked for several times.
            output_size: as of a call.
            storage: where features may be kept that memory has no room for.
            limit_bytes: of memory; see ``plan``. 0 is no limit.
            num_threads: as of a call.
            on_progress: as of a call, over features and result.
            axes: as of a call.
        Raises:
            What ``read`` and ``storage`` raise, and as of a call.
        """
        result_size = self._output_size(size, output_size)
        call = _Call(on_progress, num_threads, axes)
        rows = call.use_rows(read, size[1])
        kept = None if storage is None else byref(call.use_storage(storage))
        job = Job(self, c_void_p(), call, result_size)
        with call.running() as error:
            call.status = self._library.escsr_begin(
                self._handle,
                *size,
                *result_size,
                byref(rows),
                kept,
                limit_bytes,
                byref(call.options),
                byref(job._handle),
                byref(error),
            )
        return job

    def _output_size(
        self, size: tuple[int, ...], output_size: tuple[int, int] | None
    ) -> tuple[int, int]:
        usual = (self.scale * size[0], self.scale * size[1])
        if output_size is None:
            return usual
        height, width = two_whole_numbers(output_size, _is_whole)
        wanted = (int(height), int(width))
        if wanted != usual and not self.config.is_arbitrary_scale:
            raise ConfigurationError(
                f"output_size is {wanted}, but this network enlarges by {self.scale}, to {usual}. "
                'Leave it out and resize the result, or take a network whose upsampler is "lte".'
            )
        return wanted

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process opens it from."""
        if self._content is not None:
            return Network.from_bytes, (self._content,)
        return Network, (self.config, self._state)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        """The network itself: it does not change."""
        return self

    def __del__(self) -> None:
        """Close it."""
        if getattr(self, "_handle", None):
            self._library.escsr_close(self._handle)
            self._handle = c_void_p()


class Job:
    """One image whose features are made already (``Network.begin``); close it when done."""

    def __init__(
        self, network: Network, handle: c_void_p, call: "_Call", size: tuple[int, int]
    ) -> None:
        self._network, self._handle, self._call = network, handle, call
        self.size = size
        """(height, width) of the result."""

    def rows(self, top: int, bottom: int) -> Floats:
        """Rows of the result: (3, bottom - top, width), not clamped.

        Raises:
            As of ``Network.begin``.
        """
        if not 0 <= top < bottom <= self.size[0]:
            raise ConfigurationError(
                f"Rows {top} to {bottom} were asked for; the result has rows 0 to {self.size[0]}."
            )
        if not self._handle:
            raise ConfigurationError("The job is closed; begin another one.")
        result = _empty((3, bottom - top, self.size[1]))
        with self._call.running() as error:
            self._call.status = self._network._library.escsr_make_rows(
                self._handle, top, bottom, result.ctypes.data, byref(error)
            )
        return result

    def close(self) -> None:
        """Free what it holds."""
        if self._handle:
            self._network._library.escsr_end(self._handle)
            self._handle = c_void_p()

    def __enter__(self) -> Self:
        """The job."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Close it."""
        self.close()


class _Call:
    """Options of a call of the core, and what its callbacks raised."""

    def __init__(self, on_progress: OnProgress | None, num_threads: int, axes: Axes | None) -> None:
        self._raised: BaseException | None = None
        self._on_progress = on_progress
        self._used: list[object] = []
        self.status = c.OK
        """What the core returned."""
        self._axes = [
            c.Axis(a.length, a.output_length, a.start, a.output_start) for a in axes or ()
        ]
        # Also where nobody wants to know: an interrupt from the keyboard is seen here.
        self.options = c.Options(
            num_threads=num_threads, progress=c.ProgressCallback(self._progress)
        )
        if self._axes:
            self.options.rows = ctypes.pointer(self._axes[0])
            self.options.columns = ctypes.pointer(self._axes[1])

    def use_rows(self, read: ReadRows, width: int) -> c.Rows:
        """Read the image by a function; for as long as this call is there."""

        def read_rows(_: int, top: int, bottom: int, to: int) -> int:
            return self._guard(lambda: _fill(to, read(top, bottom), (3, bottom - top, width)))

        rows = c.Rows(read=c.ReadRowsCallback(read_rows))
        self._used.append(rows)
        return rows

    def use_storage(self, storage: Storage) -> c.Storage:
        """Keep features there; for as long as this call is there."""

        def read(_: int, offset: int, num_bytes: int, to: int) -> int:
            return self._guard(lambda: storage.read(offset, _bytes_at(to, num_bytes)))

        def write(_: int, offset: int, num_bytes: int, source: int) -> int:
            return self._guard(lambda: storage.write(offset, _bytes_at(source, num_bytes)))

        kept = c.Storage(read=c.StorageCallback(read), write=c.StorageCallback(write))
        self._used.append(kept)
        return kept

    @contextmanager
    def running(self) -> Iterator[c.Error]:
        """Around the core's function: what a callback or Ctrl-C raised, or what the core says."""
        error, self.status = c.Error(), c.OK
        with self._interrupts_kept():
            yield error
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        _raise_if_failed(self.status, error)

    @contextmanager
    def _interrupts_kept(self) -> Iterator[None]:
        """Let Ctrl-C be raised after the core's function, whatever Python runs when it comes.

        Python would run its handler at the beginning of some callback, before that can catch what
        is raised; ctypes drops such errors.
        """
        handler = signal.getsignal(signal.SIGINT)
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or not callable(handler):
            yield
            return

        def keep(number: int, frame: FrameType | None) -> None:
            self._guard(lambda: handler(number, frame))

        signal.signal(signal.SIGINT, keep)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) is keep:
                signal.signal(signal.SIGINT, handler)

    def _progress(self, _: int, done: float) -> int:
        return self._guard(lambda: self._on_progress and self._on_progress(done))

    def _guard(self, action: Callable[[], object]) -> int:
        """Nothing may be raised through C."""
        try:
            if self._raised is None:
                action()
        except BaseException as error:
            self._raised = error
        return 0 if self._raised is None else 1


def _share_of(on_progress: OnProgress | None, index: int, count: int) -> OnProgress | None:
    if on_progress is None or count == 1:
        return on_progress
    return lambda done: on_progress((index + done) / count)


def _bytes_at(address: int, num_bytes: int) -> memoryview:
    return memoryview((ctypes.c_char * num_bytes).from_address(address)).cast("B")


def _fill(address: int, values: Floats, shape: tuple[int, ...]) -> None:
    values = np.ascontiguousarray(values, dtype=np.float32)
    if values.shape != shape:
        raise ImageValueError(f"Rows of shape {shape} were asked for, {values.shape} came.")
    ctypes.memmove(address, values.ctypes.data, values.nbytes)


def _empty(shape: tuple[int, ...]) -> Floats:
    try:
        return np.empty(shape, np.float32)
    except (MemoryError, ValueError) as error:
        sides = "x".join(map(str, shape))
        raise DeviceMemoryError(
            f"There is no memory for a result of {sides} float32 values ({error})."
        ) from error


def _is_whole(side: object) -> TypeGuard[int]:
    return isinstance(side, int | np.integer) and not isinstance(side, bool)


def _as_array(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    dtype = values.dtype.newbyteorder("<")
    if dtype.str not in _TYPES:
        dtype = np.dtype("<f4")
    return np.require(values, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def _require_images(images: npt.NDArray[Any]) -> Floats:
    images = images if isinstance(images, np.ndarray) else np.asarray(images)
    require_image_batch(
        images.shape,
        dtype=images.dtype,
        is_floating_point=images.dtype.kind == "f",
        kind="an array",
    )
    with np.errstate(over="ignore"):  # of float64, what float32 does not hold becomes infinite
        return np.require(images, np.dtype("=f4"), ["C_CONTIGUOUS", "ALIGNED"])


_ERRORS: dict[int, type[EscsrError]] = {
    c.INVALID_FILE: CheckpointError,
    c.MISSING_WEIGHTS: CheckpointError,
    c.NOT_FINITE: CheckpointError,
    c.OUT_OF_MEMORY: DeviceMemoryError,
}


def _raise_if_failed(status: int, error: c.Error) -> None:
    if status == c.OK:
        return
    if status == c.NOT_FINITE:
        raise CheckpointError(
            "The network gives NaN or infinite values, so its weights are broken. Download or "
            "convert the checkpoint again, or choose another model."
        )
    raise _ERRORS.get(status, ConfigurationError)(error.text)
