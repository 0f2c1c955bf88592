"""Where feature maps lie between the layers: in memory, or in files that nobody else sees.

Files are read and written, not mapped into memory: what is mapped counts as the process's own
memory as long as it is not pushed out, and a disk that fills up ends a process that has mapped it
without a word.
"""

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor

from escsr.errors import DiskSpaceError
from escsr.inference.exact.patch import Patch, Rectangle

Place = Literal["memory", "disk"]
"""Where feature maps are kept."""


class FeatureMapStore(ABC):
    """One map of (height, width, channels) that is read and overwritten piece by piece.

    A map can be replaced by its successor while it is still read: the successor is written as many
    pixels further to the top and left as readers look around, in reading order, so that what is
    overwritten is what nobody needs any more; the next time further to the bottom and right, in
    reverse order.
    """

    def __init__(self, size: tuple[int, int], channels: int, slack: int) -> None:
        """Remember sizes.

        Args:
            size: (height, width).
            channels: of the map.
            slack: how many pixels readers look around while the map is replaced.
        """
        self.size = size
        self.channels = channels
        self._slack = slack
        self._origin = 0

    @property
    def is_replaced_in_reverse(self) -> bool:
        """Whether the next successor must be written from the bottom right to the top left."""
        return self._origin == 0

    def read(self, place: Rectangle, device: torch.device) -> Patch:
        """A rectangle of the map.

        Raises:
            DiskSpaceError: its file cannot be read back.
        """
        pixels = self._read(_moved(place, self._origin))
        features = pixels.permute(2, 0, 1).unsqueeze(0).to(device)
        return Patch(features=features, place=place, size=self.size)

    def write(self, patch: Patch) -> None:
        """Overwrite a rectangle of the map."""
        self._write(_moved(patch.place, self._origin), _pixels_of(patch))

    def write_successor(self, patch: Patch) -> None:
        """Write a rectangle of the map that will replace this one, in the order asked for."""
        self._write(_moved(patch.place, self._slack - self._origin), _pixels_of(patch))

    def replace(self) -> None:
        """The successor is complete: it is the map from now on."""
        self._origin = self._slack - self._origin

    @abstractmethod
    def _read(self, place: Rectangle) -> Tensor: ...

    @abstractmethod
    def _write(self, place: Rectangle, pixels: Tensor) -> None: ...


class _MapInMemory(FeatureMapStore):
    def __init__(
        self, size: tuple[int, int], channels: int, slack: int, dtype: torch.dtype
    ) -> None:
        super().__init__(size, channels, slack)
        shape = (size[0] + slack, size[1] + slack, channels)
        self._pixels = torch.empty(shape, dtype=dtype, device="cpu")

    def _read(self, place: Rectangle) -> Tensor:
        # A copy: the map may be overwritten while the patch is worked on.
        return self._pixels[place.top : place.bottom, place.left : place.right].clone()

    def _write(self, place: Rectangle, pixels: Tensor) -> None:
        self._pixels[place.top : place.bottom, place.left : place.right] = pixels


class _MapOnDisk(FeatureMapStore):
    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        slack: int,
        dtype: torch.dtype,
        file: FileIO,
    ) -> None:
        super().__init__(size, channels, slack)
        self._dtype = dtype
        self._file = file
        self._pixel_bytes = channels * dtype.itemsize
        self._row_bytes = (size[1] + slack) * self._pixel_bytes

    def _read(self, place: Rectangle) -> Tensor:
        shape = (place.height, place.width, self.channels)
        pixels = torch.empty(shape, dtype=self._dtype, device="cpu")
        with in_our_words("read back from"):
            self._each_row(place, pixels, self._file.readinto)
        return pixels

    def _write(self, place: Rectangle, pixels: Tensor) -> None:
        with in_our_words("stored in"):
            self._each_row(place, pixels.contiguous(), self._file.write)

    def _each_row(
        self, place: Rectangle, pixels: Tensor, transfer: Callable[[memoryview], int | None]
    ) -> None:
        """Move rows of (height, width, C) between a tensor and the file."""
        values = pixels.view(torch.uint8).reshape(-1).numpy().data
        length = len(values) // place.height
        for index in range(place.height):
            self._file.seek((place.top + index) * self._row_bytes + place.left * self._pixel_bytes)
            transfer_all(values[index * length : (index + 1) * length], transfer)


def transfer_all(values: memoryview, transfer: Callable[[memoryview], int | None]) -> None:
    """Read or write all of some bytes: a file may do less than it is asked for, never nothing.

    Raises:
        OSError: it did nothing, or what the system says.
    """
    while values:
        count = transfer(values)
        if not count:
            raise OSError(0, "the file ended too early")
        values = values[count:]


@contextmanager
def in_our_words(action: str) -> Generator[None]:
    """Tell of what a file does not do.

    Raises:
        DiskSpaceError: what the system says, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        raise DiskSpaceError(
            f"The features of the image could not be {action} a temporary file in "
            f"{temporary_folder()}: {error.strerror}. {_ADVICE}"
        ) from error


class FeatureStore:
    """Makes maps, all in one place, and removes them at the end, whatever the end is.

    Files are without a name from the start (on Windows, deleted when closed), so that not even a
    killed process leaves one behind.

    Args:
        place: where maps lie.
        dtype: of their values.
    """

    def __init__(self, place: Place, dtype: torch.dtype) -> None:
        self.place: Place = place
        self.dtype = dtype
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def new_map(self, size: tuple[int, int], channels: int, *, slack: int = 0) -> FeatureMapStore:
        """An empty map.

        Args:
            size: (height, width).
            channels: of the map.
            slack: how many pixels readers look around while the map is replaced.
        Raises:
            DiskSpaceError: there is no room for it.
        """
        if self.place == "memory":
            return _MapInMemory(size, channels, slack, self.dtype)
        num_bytes = map_bytes(size, channels, slack=slack, dtype=self.dtype)
        require_disk_space(num_bytes)
        file = self._open.enter_context(open_temporary_file(num_bytes))
        return _MapOnDisk(size, channels, slack, self.dtype, file)


def open_temporary_file(num_bytes: int) -> FileIO:
    """A file without a name, for so many bytes, which are reserved where the system can.

    Raises:
        DiskSpaceError: there is no room for it.
    """
    folder = temporary_folder()
    try:
        file: FileIO = tempfile.TemporaryFile(dir=folder, buffering=0)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError:
            file.close()
            raise
    except OSError as error:
        raise DiskSpaceError(
            f"No temporary file of {num_bytes / 1e6:.0f} MB could be made in {folder}: "
            f"{error.strerror}. {_ADVICE}"
        ) from error
    return file


_ADVICE = (
    "Free some disk space, point TMPDIR to a folder on a larger disk, allow more memory, or do "
    "without exact results (exact=False, --no-exact)."
)


def map_bytes(size: tuple[int, int], channels: int, *, slack: int, dtype: torch.dtype) -> int:
    """What a map takes in memory or on disk."""
    return (size[0] + slack) * (size[1] + slack) * channels * dtype.itemsize


def require_disk_space(num_bytes: int) -> None:
    """Refuse what the disk has no room for.

    Raises:
        DiskSpaceError: says how much is needed and how much there is.
    """
    free = free_disk_bytes()
    if num_bytes > free:
        raise DiskSpaceError(
            f"The features of the image need {num_bytes / 1e6:.0f} MB on disk, but "
            f"{temporary_folder()} has {free / 1e6:.0f} MB left. {_ADVICE}"
        )


def free_disk_bytes() -> int:
    """What the disk of temporary files has left."""
    return shutil.disk_usage(temporary_folder()).free


def temporary_folder() -> Path:
    """Where files lie: TMPDIR (TEMP, TMP) where it is set, else a folder for large files.

    On Linux /tmp is often memory; /var/tmp is a disk.
    """
    is_chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    large = Path("/var/tmp")
    if not is_chosen and large.is_dir() and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())


def _moved(place: Rectangle, pixels: int) -> Rectangle:
    return Rectangle(
        top=place.top + pixels,
        bottom=place.bottom + pixels,
        left=place.left + pixels,
        right=place.right + pixels,
    )


def _pixels_of(patch: Patch) -> Tensor:
    """(1, C, height, width) -> (height, width, C) on the CPU."""
    return patch.features[0].permute(1, 2, 0).cpu()
