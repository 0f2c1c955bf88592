"""Read files of tensors, safetensors or PyTorch's, without running code; find an ESC in them."""

import json
import re
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from safetensors import safe_open

from escsr.errors import CheckpointError, EscsrError
from escsr.weights.arrays import BFLOAT16, Array, DType, is_floating_point
from escsr.weights.foreign_files import (
    BEGINNING_BYTES,
    ForeignFileError,
    UnusableFileError,
    foreign_kind,
)
from escsr.weights.official import every_name
from escsr.weights.pickle_contents import Call, DamagedFileError, RefusedGlobalError
from escsr.weights.pytorch_file import StoredTensor, UnusableTensor, read_pytorch, tensor_of

Leaf = StoredTensor | UnusableTensor

MAX_TENSORS = 1 << 15
_MAX_ENTRIES = 1 << 20
_MAX_DEPTH = 12
_MAX_NAME = 500
"""Longer names than any tensor has are left out."""

_AVERAGED = frozenset({"ema", "swa", "avg", "average", "averaged", "shadow", "polyak"})
_NOT_AVERAGED = frozenset({"online", "backup", "raw", "collected", "source", "current"})
"""Beside the average: ``ema.online_model``, ``ema.backup``, ``current_model_state``."""
_NEVER = frozenset({"optimizer", "optimizers", "optimiser", "optimisers", "optim", "grad", "grads"})
"""What an optimiser keeps has the weights' names too."""
_OTHERS = frozenset(
    "d disc discriminator critic loss losses criterion perceptual vgg lpips dists metric metrics "
    "psnr ssim niqe optimizer optimizers optimiser scheduler schedulers teacher".split()
)
"""Networks and figures that training code keeps beside the one that is trained."""
_COUNTERS = frozenset(
    "total_ops total_params num_batches_tracked n_averaged num_updates decay step steps iter "
    "iteration epoch global_step initted".split()
)
"""thop's, BatchNorm's and averages' own figures: no weights."""
_WITHIN = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What wrappers put into names, also of parts of a network."""
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True, slots=True)
class StateDict:
    """The tensors of one network in a file."""

    tensors: Mapping[str, Leaf]
    """By the names that they have in their network."""
    root: str
    """What stands before those names; empty where nothing does."""
    is_averaged: bool = False
    """Whether the root says that it is an average of training steps (EMA, SWA)."""
    others: tuple[str, ...] = ()
    """Roots of other state dicts of an ESC in the file."""
    is_esc: bool = True
    """Whether there are names that only an ESC has."""


def find_state_dict(contents: Any) -> StateDict | None:
    """Find the weights of an ESC, or, where there are none, the state dict of another network.

    Args:
        contents: of a file.
    Returns:
        The one to load; None where the file holds no tensors by name.
    Raises:
        UnusableFileError: more entries than any checkpoint has.
    """
    sections = _sections(contents)
    leaves = {way + name: leaf for way, names in sections.items() for name, leaf in names.items()}
    if not leaves:
        return None
    roots = _roots(leaves)
    if not roots:
        return _of_another_network(sections)
    chosen, *others = sorted(roots, key=_rank)
    found = StateDict(
        tensors=_within(leaves, chosen, others),
        root=_name_of(chosen),
        is_averaged=chosen.is_averaged,
        others=tuple(map(_name_of, others)),
    )
    return found if found.is_averaged else _unnamed_average(sections, found) or found


def _sections(contents: Any) -> dict[str, dict[str, Leaf]]:
    """The tensors by the dictionary (or list) that they stand in: the way to it, with its dot."""
    sections: dict[str, dict[str, Leaf]] = {}
    entries, tensors = 0, 0
    waiting: list[tuple[str, Any, int]] = [("", contents, 0)]
    while waiting:
        way, container, depth = waiting.pop()
        below: list[tuple[str, Any, int]] = []
        for key, child in _children(container):
            entries += 1
            leaf = tensor_of(child)
            if leaf is not None:
                tensors += 1
                sections.setdefault(way, {})[str(key)] = leaf
            elif depth < _MAX_DEPTH:
                below.append((f"{way}{key}.", child, depth + 1))
            if entries > _MAX_ENTRIES or tensors > MAX_TENSORS:
                raise UnusableFileError(
                    f"it holds more than {_MAX_ENTRIES:,} entries or {MAX_TENSORS:,} tensors"
                )
        waiting.extend(reversed(below))
    return sections


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        items = cast("dict[str | int, Any]", value).items()
        return (item for item in items if len(str(item[0])) <= _MAX_NAME)
    return enumerate(cast("list[Any]", value)) if isinstance(value, list | tuple) else iter(())


@dataclass(frozen=True, slots=True)
class _Root:
    """Where a state dict begins."""

    prefix: str
    """With its dot."""
    is_dotless: bool = False
    """Whether the dots were taken out of the names behind it, as LitEma does."""
    position: int = 0
    """In the file."""
    is_averaged: bool = False
    """Whether it says that it is an average of training steps."""


_DOTTED = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<tail>blocks\.\d+\..+)", re.DOTALL)
_DOTLESS = re.compile(r"(?P<prefix>(?:.*\.)?(?:[^.]*?))(?P<tail>blocks\d+[^.]+)", re.DOTALL)


def _roots(leaves: Mapping[str, Leaf]) -> list[_Root]:
    """Where the blocks of an ESC begin; of most of the names that the fullest has, or of none."""
    counts: dict[tuple[str, bool], int] = {}
    candidates = (path for path in leaves if "blocks" in path)
    for path in candidates:
        for pattern, known, dotless in (
            (_DOTTED, every_name(), False),
            (_DOTLESS, _dotless_names().keys(), True),
        ):
            match = pattern.fullmatch(path)
            if match and _template(_cleaned(match["tail"])) in known:
                key = (match["prefix"], dotless)
                if not set(_words(key[0])) & _NEVER:
                    counts[key] = counts.get(key, 0) + 1
    most = max(counts.values(), default=0)
    kept = [key for key, count in counts.items() if 2 * count >= most]
    return [
        _Root(_without_encoder(leaves, prefix), dotless, position, _is_averaged(prefix, leaves))
        for position, (prefix, dotless) in enumerate(kept)
    ]


def _without_encoder(leaves: Mapping[str, Leaf], prefix: str) -> str:
    """ESC+LTE has its blocks in an ``encoder``, and a head beside it."""
    outer = prefix.removesuffix(".").removesuffix("encoder")
    is_lte = len(outer) < len(prefix) - 1 and any(
        path.startswith(f"{outer}imnet") for path in leaves
    )
    return outer if is_lte else prefix


def _rank(root: _Root) -> tuple[object, ...]:
    """The best first: an average, then what lies least deep, then what comes first."""
    words = set(_words(root.prefix))
    is_beside = bool(words & _OTHERS), not root.is_averaged, bool(words & _NOT_AVERAGED)
    return *is_beside, root.prefix.count("."), root.position


def _is_averaged(prefix: str, leaves: Mapping[str, Leaf]) -> bool:
    """By its name, or because ``torch.optim.swa_utils.AveragedModel`` counts beside it."""
    words = set(_words(prefix))
    is_counted = f"{prefix.removesuffix('module.')}n_averaged" in leaves
    return (bool(words & _AVERAGED) or is_counted) and not words & _NOT_AVERAGED


def _unnamed_average(
    sections: Mapping[str, Mapping[str, Leaf]], raw: StateDict
) -> StateDict | None:
    """An average that is kept as a list in the order of the weights, as diffusers does it."""
    shapes = [getattr(leaf, "shape", None) for leaf in raw.tensors.values()]
    for way, leaves in sections.items():
        words = set(_words(way))
        is_average = words & _AVERAGED and not words & (_NOT_AVERAGED | _NEVER)
        if is_average and [getattr(leaf, "shape", None) for leaf in leaves.values()] == shapes:
            tensors = dict(zip(raw.tensors, leaves.values(), strict=True))
            return StateDict(tensors, way.rstrip("."), True, (raw.root, *raw.others))
    return None


def _name_of(root: _Root) -> str:
    return root.prefix.rstrip(".")


def _words(path: str) -> list[str]:
    """``netG_ema.paramsema`` -> net, g, ema, params, ema."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", path)]
    joined = {word: _JOINED.fullmatch(word) for word in words}
    return [part for word in words for part in ("ema",) * bool(joined[word]) + (word,)]


_JOINED = re.compile(r"ema(\w*model|params|net\w?|weights)|(\w*model|params|net\w?|weights|g)ema")


def _within(leaves: Mapping[str, Leaf], root: _Root, others: list[_Root]) -> dict[str, Leaf]:
    """The tensors of one state dict by their own names, without what is no weight."""
    below = [other.prefix for other in others if len(other.prefix) > len(root.prefix)]
    tensors: dict[str, Leaf] = {}
    for path, leaf in leaves.items():
        if path.startswith(root.prefix) and not path.startswith(tuple(below)):
            name = _cleaned(path[len(root.prefix) :])
            name = _dotted(name) if root.is_dotless else name
            is_known = _template(name) in every_name()
            if is_known or not (root.is_dotless or _is_beside(name, leaf)):
                tensors[name] = leaf
    return tensors


def _is_beside(name: str, leaf: Leaf) -> bool:
    """Whether a tensor that no ESC has is no part of any: a counter, or of another network."""
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    is_count = (
        isinstance(leaf, StoredTensor)
        and leaf.num_values == 1
        and not (is_floating_point(leaf.dtype) or leaf.dtype.kind == "c")
    )
    return is_count or last in _COUNTERS or bool(set(_words(first)) & _OTHERS)


def _cleaned(name: str) -> str:
    """A tensor's name without what wrappers of a network's parts put into it."""
    return ".".join(part for part in name.split(".") if part not in _WITHIN)


def _template(name: str) -> str:
    return re.sub(r"\d+", "#", name)


@cache
def _dotless_names() -> dict[str, str]:
    """Templates without dots -> as they are."""
    return {template.replace(".", ""): template for template in every_name()}


def _dotted(name: str) -> str:
    """``blocks0ln_attnweight`` -> ``blocks.0.ln_attn.weight``; other names stay."""
    template = _dotless_names().get(_template(name))
    if template is None:
        return name
    numbers = iter(re.findall(r"\d+", name))
    return re.sub("#", lambda _: next(numbers), template)


def _of_another_network(sections: Mapping[str, Mapping[str, Leaf]]) -> StateDict:
    """The tensors of one dictionary, for whoever can use them: an average, or the fullest."""

    def rank(way: str) -> tuple[object, ...]:
        is_of_optimizer = bool(set(_words(way)) & _NEVER)
        return is_of_optimizer, not _is_averaged(way, {}), -len(sections[way])

    way = min(sections, key=rank)
    tensors = dict(sections[way])
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): leaf for name, leaf in tensors.items()}
    return StateDict(
        tensors=tensors, root=way.rstrip("."), is_averaged=_is_averaged(way, {}), is_esc=False
    )


Container = Literal["safetensors", "pytorch"]

LARGEST_BYTES = 1 << 27
"""That tensors may take, or the file's own size where that is more; ESC-XL, the largest network of
the family, has 50 MB in float32."""
_MAX_HEADER_BYTES = 1 << 24
"""Of a safetensors file."""
_OUR_FORMAT = "escsr.format"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFile:
    """The tensors of one network in a file, and what stood beside them."""

    tensors: dict[str, Array]
    """By their names in the network, dtypes as stored. They may share memory: copy what is
    changed."""
    metadata: dict[str, str]
    """A safetensors file's header; empty for PyTorch's."""
    container: Container
    """Kind of file, told by its content and not by its suffix."""
    section: str
    """The way to these tensors in the file, such as ``params_ema`` or ``state_dict.net``; empty
    where they stand alone."""
    is_averaged: bool = False
    """Whether that says that they are an average of training steps (EMA, SWA)."""
    other_sections: tuple[str, ...] = ()
    """Other weights of an ESC in the file, such as ``params``, which were left aside."""


def read_checkpoint(path: Path, *, only_esc: bool = False) -> CheckpointFile:
    """Read the tensors of a ``.safetensors``, ``.pth``, ``.pt`` or ``.ckpt`` file.

    Of whatever containers and prefixes it has, the weights of an ESC are taken, an average before
    raw weights; of a file without an ESC, the fullest state dict.

    Args:
        path: of the file.
        only_esc: leave the values of another network unread; its tensors have only their shapes.
    Raises:
        CheckpointError: no such file, empty, truncated, not a checkpoint, tensors that unpack to
            more than a network can be, or a pickle that would run code.
    """
    with _opened(path) as file:
        found = _state_dict(file)
        if found.is_esc or not only_esc:
            _require_size(file, found.tensors)
            tensors = {name: _value(name, leaf) for name, leaf in found.tensors.items()}
        else:
            tensors = {name: _outline(leaf) for name, leaf in found.tensors.items()}
        return CheckpointFile(
            tensors=tensors,
            metadata=file.metadata,
            container=file.container,
            section=found.root,
            is_averaged=found.is_averaged,
            other_sections=found.others,
        )


def holds_tensors(path: Path) -> bool:
    """Whether a file holds tensors by name, of whatever network; reads none of their values."""
    try:
        with _opened(path) as file:
            return bool(_state_dict(file).tensors)
    except CheckpointError:
        return False


def is_of_another_kind(error: CheckpointError) -> bool:
    """Whether a file was refused for what it is and not for damage: other readers may know it."""
    return isinstance(error.__cause__, ForeignFileError | RefusedGlobalError)


def read_values(path: Path) -> Any:
    """Read all that ``torch.save`` wrote of plain values, containers and tensors, as arrays.

    Raises:
        CheckpointError: missing, damaged (every part's checksum is verified), or with other
            objects.
    """
    with _opened(path) as file:
        return _Values(path.stat().st_size).of(file.contents)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the header of a safetensors file and none of its tensors; empty for other files.

    Raises:
        CheckpointError: no such file, empty, or a truncated safetensors file.
    """
    with reading(path), path.open("rb") as stream:
        if not _is_safetensors(path, _beginning(path, stream)):
            return {}
        _require_small_header(path, stream)
        with cast("Any", safe_open(str(path), "np")) as file:
            return file.metadata() or {}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """A file whose values are not read yet."""

    path: Path
    container: Container
    contents: Any
    metadata: dict[str, str]


@contextmanager
def _opened(path: Path) -> Generator[_Opened]:
    """Open a file of weights, and turn whatever goes wrong with it into a CheckpointError."""
    with reading(path), path.open("rb") as stream:
        beginning = _beginning(path, stream)
        if _is_safetensors(path, beginning):
            _require_small_header(path, stream)
            # It checks the header, whose offsets may then be relied on.
            with cast("Any", safe_open(str(path), "np")) as file:
                metadata = cast("dict[str, str]", file.metadata() or {})
            contents = _stored_tensors(stream)
            yield _Opened(path=path, container="safetensors", contents=contents, metadata=metadata)
        elif beginning.startswith((b"PK", b"\x80")):
            contents = read_pytorch(stream)
            yield _Opened(path=path, container="pytorch", contents=contents, metadata={})
        else:
            raise ForeignFileError(foreign_kind(beginning))


@contextmanager
def reading(path: Path) -> Generator[None]:
    """One guard around all that reads a foreign file.

    Raises:
        CheckpointError: for whatever exception; it names the file.
    """
    try:
        _require_file(path)
        yield
    except EscsrError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; give the path of a file of weights, or a model's name."
        ) from error
    except ForeignFileError as error:
        raise CheckpointError(
            f"{path} is neither a safetensors nor a PyTorch file of weights: {error}"
        ) from error
    except UnusableFileError as error:
        raise CheckpointError(f"{path} cannot be used: {error}.") from error
    except RefusedGlobalError as error:
        raise CheckpointError(_refusal(path, error)) from error
    except MemoryError as error:
        raise CheckpointError(f"{path} needs more memory to be read than there is.") from error
    except Exception as error:  # readers of foreign files can fail in any way
        if isinstance(error, OSError) and error.filename is not None:
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror or error}); check its permissions."
            ) from error
        lines = str(error).strip().splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        raise CheckpointError(
            f"{path} is not a whole {_supposed_kind(path)} ({reason}): truncated, damaged, or of "
            "another kind. Download or copy it again."
        ) from error


def _require_file(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise CheckpointError(f"{path} is a folder; give one file of weights.")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is a pipe or a device; give a file of weights.")


def _beginning(path: Path, stream: BinaryIO) -> bytes:
    beginning = stream.read(BEGINNING_BYTES)
    if not beginning:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again.")
    return beginning


def _is_safetensors(path: Path, beginning: bytes) -> bool:
    if beginning[8:9] == b"{":
        return True
    return path.suffix.lower() == ".safetensors" and len(beginning) < 9


def _supposed_kind(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            is_safetensors = _is_safetensors(path, stream.read(9))
    except OSError:
        is_safetensors = False
    return "safetensors file" if is_safetensors else "PyTorch checkpoint"


def _require_small_header(path: Path, stream: BinaryIO) -> None:
    stream.seek(0)
    num_bytes = int.from_bytes(stream.read(8), "little")
    if num_bytes > _MAX_HEADER_BYTES:
        raise DamagedFileError(
            f"its header would have {num_bytes:,} bytes, and {_MAX_HEADER_BYTES:,} are allowed"
        )


def _stored_tensors(stream: BinaryIO) -> dict[str, StoredTensor | UnusableTensor]:
    """What a safetensors file holds, by name."""
    stream.seek(0)
    header_bytes = int.from_bytes(stream.read(8), "little")
    entries = json.loads(stream.read(header_bytes))
    names = sorted(name for name in entries if name != "__metadata__")
    if len(names) > MAX_TENSORS:
        raise UnusableFileError(
            f"it holds {len(names):,} tensors; at most {MAX_TENSORS:,} are read"
        )
    return {name: _stored_tensor(stream, 8 + header_bytes, name, entries[name]) for name in names}


def _stored_tensor(
    stream: BinaryIO, first_byte: int, name: str, entry: dict[str, Any]
) -> StoredTensor | UnusableTensor:
    dtype, shape = _DTYPES.get(entry["dtype"]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if dtype is None:
        return UnusableTensor(f"is stored as {entry['dtype']}")

    def read() -> Array:
        values = np.empty(shape, dtype)
        stream.seek(first_byte + start)
        if cast("Any", stream).readinto(values.reshape(-1).view(np.uint8)) != end - start:
            raise DamagedFileError("the file ends within its tensors")
        return values

    return StoredTensor(shape, dtype, end - start, name, read)


def _state_dict(file: _Opened) -> StateDict:
    """The weights to load. Our own files hold nothing else, whatever the names."""
    if _OUR_FORMAT in file.metadata:
        return StateDict(tensors=file.contents, root="")
    found = find_state_dict(file.contents)
    if found is None:
        raise CheckpointError(_without_tensors(file))
    return found


def _without_tensors(file: _Opened) -> str:
    contents = file.contents
    if not isinstance(contents, Mapping):
        leaf = tensor_of(contents)
        kind = _kind(contents) if leaf is None else "Tensor"
        return (
            f"{file.path} holds a {kind} instead of a state dict (names -> tensors). Save "
            "network.state_dict() and give that file."
        )
    mapping = cast("Mapping[str | int, Any]", contents)
    keys = ", ".join(f"{key!r:.40}" for key in list(mapping)[:5]) or "nothing"
    return (
        f"{file.path} holds no state dict: there are no tensors by name in it. It holds {keys}; "
        "looked for were state dicts, bare or within others, such as params_ema, params, "
        "state_dict, model or net_g. Save network.state_dict() and give that file."
    )


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Call) else type(value).__name__


def _require_size(file: _Opened, tensors: Mapping[str, StoredTensor | UnusableTensor]) -> None:
    """Refuse tensors that unpack, or share their storages, to more than a network can be."""
    stored = [leaf for leaf in tensors.values() if isinstance(leaf, StoredTensor)]
    storages = {leaf.storage: leaf.storage_bytes for leaf in stored}
    values = sum(leaf.num_values * leaf.dtype.itemsize for leaf in stored)
    num_bytes = max(values, sum(storages.values()))
    largest = max(LARGEST_BYTES, file.path.stat().st_size)
    if num_bytes > largest:
        raise UnusableFileError(
            f"its {len(stored):,} tensors would take {num_bytes / 1e6:,.0f} MB, and at most "
            f"{largest / 1e6:,.0f} MB are read of a file of this size; ESC-XL, the largest network "
            "of the family, has 50 MB"
        )


def _outline(leaf: StoredTensor | UnusableTensor) -> Array:
    """The shape of a tensor, without its values."""
    shape = leaf.shape if isinstance(leaf, StoredTensor) else ()
    return np.broadcast_to(np.float32(0), shape)


def _value(name: str, leaf: StoredTensor | UnusableTensor) -> Array:
    if isinstance(leaf, UnusableTensor):
        raise UnusableFileError(
            f"its tensor {name[:100]} {leaf.reason}; weights are plain tensors of floating-point "
            "numbers"
        )
    return leaf.read()


class _Values:
    """Plain values of what a file holds."""

    _MAX_VALUES = 1 << 21
    _MAX_DEPTH = 32

    def __init__(self, max_bytes: int) -> None:
        self._left = self._MAX_VALUES
        self._bytes: dict[object, int] = {}
        self._max_bytes = max_bytes

    def of(self, contents: Any, depth: int = 0) -> Any:
        self._left -= 1
        if depth > self._MAX_DEPTH or self._left < 0:
            raise UnusableFileError("it is nested deeper, or holds more, than what is saved here")
        leaf = tensor_of(contents)
        if isinstance(leaf, StoredTensor):
            self._bytes[leaf.storage] = leaf.storage_bytes
            if sum(self._bytes.values()) > self._max_bytes:
                raise UnusableFileError("its tensors are larger than the file")
        if leaf is not None:
            return _value("", leaf)
        if isinstance(contents, dict):
            items = cast("dict[str | int, Any]", contents).items()
            return {key: self.of(value, depth + 1) for key, value in items}
        if isinstance(contents, list | tuple):
            values = [self.of(value, depth + 1) for value in cast("list[Any]", contents)]
            return tuple(values) if isinstance(contents, tuple) else values
        if contents is None or isinstance(contents, bool | int | float | str | bytes):
            return contents
        raise UnusableFileError(f"it holds a {_kind(contents)}")


def _refusal(path: Path, error: RefusedGlobalError) -> str:
    if error.name == "torch.storage._load_from_bytes":
        return (
            f"{path} holds tensors pickled by pickle.dump, which are more than plain data. Save "
            "the state dict with torch.save or safetensors, and give that file."
        )
    whole = "it holds a whole pickled object, a network perhaps, and " if error.is_first else "it "
    return (
        f"{path} was refused: {whole}asks for {error.name!r} while it is read. A pickle that "
        "names more than tensors and plain containers can run any code on this machine, so only "
        "those are loaded. If you trust its source, save its state dict alone, with torch.save or "
        "safetensors, and give that file; else delete it."
    )


_DTYPES: dict[str, DType] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
