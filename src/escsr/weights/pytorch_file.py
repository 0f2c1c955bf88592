"""PyTorch's files of tensors, read by hand: no code is run, and nothing is built that is not there.

``torch.save`` writes a ZIP archive of a pickle and one record per storage; before PyTorch 1.6 it
wrote pickles and storages one behind the other. Both are read here as far as files of weights need,
with every storage's size held against the file before memory is asked for.
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np

from escsr.weights.arrays import BFLOAT16, Array, DType
from escsr.weights.foreign_files import ForeignFileError, foreign_archive
from escsr.weights.pickle_contents import (
    MAX_PICKLE_BYTES,
    Call,
    DamagedFileError,
    Global,
    as_tuple,
    read_pickle,
)

CHECKPOINT_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".ckpt", ".bin"})

_MAX_DIRECTORY_BYTES = 1 << 23
"""Of a ZIP archive: some 100,000 entries."""
_MAX_INNER_BYTES = 1 << 26
"""Of a checkpoint within a ZIP archive, which is unpacked in memory."""
_MAX_DIMENSIONS = 16
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a file, whose values are not read yet."""

    shape: tuple[int, ...]
    dtype: DType
    storage_bytes: int
    """Of the storage that it is a view of."""
    storage: object
    """The same for tensors that share theirs."""
    read: Callable[[], Array]
    """Its values; may be a view of what other tensors share."""

    @property
    def num_values(self) -> int:
        """Product of the sides."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class UnusableTensor:
    """A tensor of a file that cannot be weights of an ESC."""

    reason: str
    """What it is, such as "is sparse"."""


def read_pytorch(stream: BinaryIO) -> Any:
    """Read what ``torch.save`` or ``pickle.dump`` wrote into an open file.

    Args:
        stream: seekable; it must stay open until all values are read.
    Returns:
        What the file holds: dictionaries, lists, plain values, ``StoredTensor`` and
        ``UnusableTensor``, and notes of what is neither.
    Raises:
        RefusedGlobalError: it names code.
        ForeignFileError: it is an archive of another kind.
        DamagedFileError: something in it cannot be.
        Exception: of many kinds, where it is damaged.
    """
    stream.seek(0)
    if stream.read(2) == b"PK":
        return _read_archive(stream)
    stream.seek(0)
    return _read_pickles(stream)


def tensor_of(value: Any) -> StoredTensor | UnusableTensor | None:
    """What a note in a file means; None for what is no tensor."""
    if isinstance(value, StoredTensor | UnusableTensor):
        return value
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, Call):
            return None
        if value.name not in _WRAPPERS:
            return _tensor_of_call(value)
        value = _WRAPPERS[value.name](value.args)
    return None


_MAX_WRAPPERS = 4


def _from_type(args: tuple[Any, ...]) -> Call:
    function, _, arguments, *_ = args
    return Call(cast("Global", function).name, arguments)


_WRAPPERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_parameter": lambda args: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda args: args[0],
    "torch._utils._rebuild_device_tensor_from_numpy": lambda args: args[0],
    "torch.nn.parameter.Parameter": lambda args: args[0],
    "torch.nn.parameter.Buffer": lambda args: args[0],
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
"""Calls around a tensor -> the tensor within."""

_UNUSABLE = {
    "torch._utils._rebuild_sparse_tensor": "is sparse",
    "torch._utils._rebuild_qtensor": "is quantised",
    "torch._utils._rebuild_meta_tensor_no_storage": "was on the meta device, so it has no values",
    "torch._utils._rebuild_nested_tensor": "is nested",
    "torch._utils._rebuild_wrapper_subclass": "is of a subclass of torch.Tensor",
}


def _tensor_of_call(call: Call) -> StoredTensor | UnusableTensor | None:
    name, args = call.name, call.args
    state = as_tuple(call.state)
    if name in _UNUSABLE:
        return UnusableTensor(_UNUSABLE[name])
    if name == "torch._utils._rebuild_tensor_v3":
        return _view_of_bytes(args[0], args[1], args[2], args[3], args[6])
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        return _view(*args[:4])
    if re.fullmatch(r"torch(\.cuda)?\.\w*Tensor", name) and state:
        return _view(*state[:4])  # before PyTorch 0.2
    if name.endswith(".multiarray._reconstruct") and state:
        return _array(*state[1:])
    return None


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers in a file."""

    dtype: DType | None
    """None for bytes, whose tensors know their own."""
    num_bytes: int
    read: Callable[[], bytearray]
    """All of them."""
    key: object
    first_byte: int = 0
    reason: str = ""
    """Why it cannot be used."""


def _view(
    storage: Any, offset: Any, shape: Any, stride: Any, *, dtype: DType | None = None
) -> StoredTensor | UnusableTensor:
    """A tensor as a view of a storage, if it lies within."""
    if not isinstance(storage, _Storage):
        raise DamagedFileError("a tensor has no storage")
    dtype = storage.dtype or dtype
    if storage.reason or dtype is None:
        return UnusableTensor(storage.reason or "is of an unknown dtype")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS or not _are_sizes(numbers):
        raise DamagedFileError(f"a tensor has the shape {shape!s:.60} and stride {stride!s:.60}")
    available = (storage.num_bytes - storage.first_byte) // dtype.itemsize
    reach = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1
    values = math.prod(shape)
    if values and (reach > available or values > available):
        return UnusableTensor(
            f"claims {values:,} values, of which its storage holds {min(available, reach):,}"
        )

    def read() -> Array:
        data = storage.read()
        if not values:
            return cast("Array", np.empty(shape, dtype))
        first_byte = storage.first_byte + offset * dtype.itemsize
        steps = tuple(step * dtype.itemsize for step in stride)
        return np.ndarray(shape, dtype, data, first_byte, steps)

    return StoredTensor(tuple(shape), dtype, storage.num_bytes, storage.key, read)


def _view_of_bytes(
    storage: Any, offset: Any, shape: Any, stride: Any, dtype: Any
) -> StoredTensor | UnusableTensor:
    """A tensor whose storage knows no type of numbers."""
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if isinstance(storage, _Storage) and storage.dtype is None and name not in _DTYPES:
        return UnusableTensor(f"is stored as {name[:30]}" if name else "is of an unknown dtype")
    return _view(storage, offset, shape, stride, dtype=_DTYPES.get(name))


def _are_sizes(numbers: tuple[Any, ...]) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _array(shape: Any, dtype: Any, is_fortran: Any, data: Any) -> StoredTensor | UnusableTensor:
    """A numpy array."""
    code, order = dtype.args[0], dtype.state[1]
    if not re.fullmatch(r"[fiub][1248]", str(code)) or not isinstance(data, Call | bytes):
        return UnusableTensor(f"is a numpy array of {code!s:.20}")
    kind = np.dtype(f"{order if order in ('<', '>') else '='}{code}")
    if len(shape) > _MAX_DIMENSIONS or not _are_sizes(shape):
        raise DamagedFileError(f"an array has the shape {shape!s:.60}")
    num_bytes = math.prod(shape) * kind.itemsize
    length = len(data.args[0] if isinstance(data, Call) else data)
    if num_bytes != length:
        return UnusableTensor(f"is a numpy array of {num_bytes:,} bytes, but holds {length:,}")

    def read() -> Array:
        raw = data.args[0].encode("latin-1") if isinstance(data, Call) else data
        array = np.frombuffer(raw, kind).reshape(shape, order="F" if is_fortran else "C")
        return array.astype(kind.newbyteorder("="))

    return StoredTensor(tuple(shape), kind.newbyteorder("="), num_bytes, object(), read)


_DTYPES: dict[str, DType] = {
    name: np.dtype(numpy_name)
    for numpy_name, *aliases in (
        *(("float16", "half"), ("float32", "float"), ("float64", "double"), ("bool",)),
        *(("int8",), ("int16", "short"), ("int32", "int"), ("int64", "long")),
        *(("uint8",), ("uint16",), ("uint32",), ("uint64",)),
        *(("complex64", "cfloat"), ("complex128", "cdouble")),
    )
    for name in (numpy_name, *aliases)
} | {"bfloat16": BFLOAT16}
"""By torch's names."""

_DTYPES_OF_STORAGES: dict[str, DType] = {
    "Float": _DTYPES["float32"],
    "Double": _DTYPES["float64"],
    "Half": _DTYPES["float16"],
    "BFloat16": BFLOAT16,
    "Long": _DTYPES["int64"],
    "Int": _DTYPES["int32"],
    "Short": _DTYPES["int16"],
    "Char": _DTYPES["int8"],
    "Byte": _DTYPES["uint8"],
    "Bool": _DTYPES["bool"],
    "ComplexFloat": _DTYPES["complex64"],
    "ComplexDouble": _DTYPES["complex128"],
}


def _read_archive(stream: BinaryIO, *, is_inner: bool = False) -> Any:
    _require_small_directory(stream)
    archive = zipfile.ZipFile(stream)
    entries = {
        entry.filename: entry
        for entry in archive.infolist()
        if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
    }
    pickles = [name for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    kind = foreign_archive(list(entries))
    if kind is None and len(pickles) == 1:
        return _Archive(archive, entries, pickles[0].removesuffix("data.pkl")).contents()
    inner = [name for name in entries if PurePosixPath(name).suffix.lower() in CHECKPOINT_SUFFIXES]
    if kind is None and len(inner) == 1 and not is_inner:
        return _read_inner(archive, entries[inner[0]])
    names = ", ".join(inner[:3] or list(entries)[:3]) or "nothing"
    what = f"of {len(inner)} checkpoints" if inner else "that torch.save did not write"
    raise ForeignFileError(
        kind or f"it is a ZIP archive {what} ({names}). Unpack it, and give one file of weights."
    )


def _read_inner(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """A checkpoint that somebody put into a ZIP archive."""
    if entry.file_size > _MAX_INNER_BYTES:
        raise ForeignFileError(
            f"it is a ZIP archive around {entry.filename} of {entry.file_size / 1e6:,.0f} MB. "
            "Unpack it, and give the file within."
        )
    with archive.open(entry) as file:
        content = file.read(entry.file_size)
    if content[8:9] == b"{":
        raise ForeignFileError(
            f"it is a ZIP archive around {entry.filename}. Unpack it, and give the file within."
        )
    inner = io.BytesIO(content)
    return _read_archive(inner, is_inner=True) if content[:2] == b"PK" else _read_pickles(inner)


def _require_small_directory(stream: BinaryIO) -> None:
    """Refuse an archive of so many entries that listing them takes gigabytes.

    Raises:
        DamagedFileError: it has more, or is no whole archive.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - (1 << 16) - 128))
    tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise DamagedFileError("the archive has no directory at its end")
    (num_bytes,) = struct.unpack_from("<I", tail, end + 12)
    end_64 = tail.rfind(b"PK\6\6", 0, end)
    if num_bytes == 0xFFFFFFFF and end_64 >= 0:
        (num_bytes,) = struct.unpack_from("<Q", tail, end_64 + 40)
    if num_bytes > _MAX_DIRECTORY_BYTES:
        raise DamagedFileError(f"the archive's directory has {num_bytes / 1e6:,.0f} MB")


class _Archive:
    """A checkpoint of PyTorch 1.6 or later."""

    def __init__(
        self, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], folder: str
    ) -> None:
        self._archive = archive
        self._entries = entries
        self._folder = folder
        self._storages: dict[str, _Storage] = {}
        self._bytes: dict[str, bytearray] = {}
        # Who told torch.save to compute no checksums has zeros in their place.
        self._is_checked = any(entry.CRC for entry in entries.values())
        self._is_swapped = False

    def contents(self) -> Any:
        if f"{self._folder}byteorder" in self._entries:
            self._is_swapped = bytes(self._read("byteorder", 16)).strip() == b"big"
        return read_pickle(io.BytesIO(self._read("data.pkl", MAX_PICKLE_BYTES)), self._resolve)

    def _resolve(self, identity: Any) -> _Storage:
        dtype, key, num_values, reason = _storage_of(identity)
        if key not in self._storages:
            entry = self._entries.get(f"{self._folder}data/{key}")
            held = 0 if entry is None else entry.file_size
            num_bytes = num_values * (1 if dtype is None else dtype.itemsize)
            if not reason and num_bytes > held:
                reason = f"claims {num_bytes:,} bytes, of which the file holds {held:,}"
            self._storages[key] = _Storage(
                dtype=dtype,
                num_bytes=num_bytes,
                read=lambda: self._values(key, num_bytes, dtype),
                key=key,
                reason=reason,
            )
        return self._storages[key]

    def _values(self, key: str, num_bytes: int, dtype: DType | None) -> bytearray:
        if key not in self._bytes:
            data = self._read(f"data/{key}", num_bytes)
            if self._is_swapped and dtype is not None and dtype.itemsize > 1:
                side = dtype.itemsize // (2 if dtype.kind == "c" else 1)
                data = bytearray(np.frombuffer(data, f"u{side}").byteswap().tobytes())
            self._bytes[key] = data
        return self._bytes[key]

    def _read(self, name: str, most_bytes: int) -> bytearray:
        entry = self._entries[f"{self._folder}{name}"]
        if entry.file_size > most_bytes + _SLACK:
            raise DamagedFileError(f"{name} in it has {entry.file_size / 1e6:,.1f} MB")
        if not self._is_checked and hasattr(entry, "CRC"):
            del entry.CRC  # zipfile then looks for none
        data = bytearray()
        with self._archive.open(entry) as file:
            while part := file.read(_PART_BYTES):  # in one piece it would be there twice
                data += part
        return data


_PART_BYTES = 1 << 20
_SLACK = 1 << 20
"""A storage's record may be a little larger than what its tensors need."""


def _storage_of(identity: Any) -> tuple[DType | None, str, int, str]:
    """Dtype, key and number of values of a storage, and why it cannot be used."""
    kind, type_, key, _, num_values, *_ = identity
    if kind != "storage" or not isinstance(type_, Global) or not _are_sizes((num_values,)):
        raise DamagedFileError("the pickle refers to what is no storage")
    name = type_.name.rpartition(".")[2].removesuffix("Storage")
    dtype = _DTYPES_OF_STORAGES.get(name)
    reason = "" if dtype is not None or name == "Untyped" else f"is stored as {name[:30]}"
    return dtype, str(key)[:100], num_values, reason


def _read_pickles(stream: BinaryIO) -> Any:
    """A checkpoint of before PyTorch 1.6, or a pickle without tensors of PyTorch."""
    first = read_pickle(stream, _no_storage)
    if first != _LEGACY_MAGIC:
        return first
    for _ in ("version", "sizes of integers"):
        read_pickle(stream, _no_storage)
    return _Legacy(stream).contents()


def _no_storage(_: Any) -> Any:
    raise DamagedFileError("the pickle refers to storages that it does not hold")


class _Legacy:
    """A checkpoint of before PyTorch 1.6: a pickle, the storages' keys, the storages."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sizes: dict[str, tuple[int, int]] = {}
        self._places: dict[str, int] = {}
        self._bytes: dict[str, bytearray] = {}

    def contents(self) -> Any:
        contents = read_pickle(self._stream, self._resolve)
        place = self._stream.tell()
        keys = read_pickle(self._stream, _no_storage)
        place = self._stream.tell()
        end = self._stream.seek(0, io.SEEK_END)
        for key in (str(key) for key in keys):
            num_values, itemsize = self._sizes.get(key, (0, 1))
            self._stream.seek(place)
            (stated,) = struct.unpack("<q", self._stream.read(8))
            if stated != num_values:
                raise DamagedFileError(
                    f"a storage of {num_values:,} values is stored as {stated:,}"
                )
            self._places[key] = place + 8
            place += 8 + num_values * itemsize
            if place > end:
                raise DamagedFileError(f"{place - end:,} bytes are missing at the end")
        return contents

    def _resolve(self, identity: Any) -> _Storage:
        dtype, key, num_values, reason = _storage_of(identity)
        itemsize = 1 if dtype is None else dtype.itemsize
        self._sizes[key] = (num_values, itemsize)
        view = as_tuple(identity[5]) if len(identity) > 5 else ()
        first, length = view[1:3] if view else (0, num_values)
        if not _are_sizes((first, length)) or first + length > num_values:
            raise DamagedFileError("a view of a storage lies outside of it")
        num_bytes = (first + length) * itemsize
        return _Storage(
            dtype=dtype,
            num_bytes=num_bytes,
            first_byte=first * itemsize,
            read=lambda: self._values(key, num_values * itemsize),
            key=key,
            reason=reason,
        )

    def _values(self, key: str, num_bytes: int) -> bytearray:
        if key not in self._bytes:
            self._stream.seek(self._places[key])
            data = bytearray(num_bytes)
            if cast("io.BufferedReader", self._stream).readinto(data) < num_bytes:
                raise DamagedFileError("the file ends within its tensors")
            self._bytes[key] = data
        return self._bytes[key]
