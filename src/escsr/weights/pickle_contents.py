"""Read what a pickle holds without running any of it.

``torch.load(weights_only=True)`` runs no foreign code either, but it does build what a file asks
for: gigabytes of zeros, sparse and quantised tensors, keys that take hours to hash. Here the
opcodes, which the standard library's ``pickletools`` reads, only ever build numbers, strings, lists
and dictionaries, and notes of what the file wanted to call.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

MAX_OPCODES = 1_000_000
"""Several times as many as a checkpoint of ESC-XL with its optimiser has; read in a second."""
MAX_PICKLE_BYTES = 1 << 27
_MAX_NAME = 200
_MAX_KEY = 1 << 31
"""Larger integers are no keys: they can be chosen so that all of them hash to the same."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the file wants imported; it is not."""

    name: str


@dataclass(slots=True)
class Call:
    """A call that the file wants made; it is not."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    """What the result is to be filled with."""


class DamagedFileError(Exception):
    """Something in a file cannot be; the message says what."""


class RefusedGlobalError(Exception):
    """The pickle names something that no file of weights needs."""

    def __init__(self, name: str, *, is_first: bool) -> None:
        super().__init__(name)
        self.name = name
        self.is_first = is_first
        """Whether the whole file is one such object."""


def read_pickle(stream: BinaryIO, resolve: Callable[[Any], Any]) -> Any:
    """Read one pickle from where a stream stands, and leave it behind the pickle's end.

    Args:
        stream: at most ``MAX_PICKLE_BYTES`` are read from it.
        resolve: from a persistent id, such as a tensor's storage, to what stands for it.
    Returns:
        Dictionaries with strings and integers for keys (other entries are left out), lists (for
        sets too), tuples, strings, bytes, numbers, booleans, None, ``Global`` and ``Call``, and
        what ``resolve`` returns.
    Raises:
        RefusedGlobalError: it names what is neither a tensor's nor a plain container's.
        DamagedFileError: it is too large, or uses what no file of weights needs.
        Exception: of many kinds, where it is damaged.
    """
    return _Machine(resolve).run(cast("BinaryIO", _Limited(stream)))


def as_list(value: Any) -> list[Any]:
    """A list as it is; for anything else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple as it is; for anything else an empty one."""
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else ()


_MAPPINGS = frozenset(
    {"collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict"}
)
_SEQUENCES = frozenset({"builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset"})
_ALLOWED = re.compile(
    r"torch\._utils\._rebuild_\w+"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)"
    r"|torch(\.cuda|\.sparse)*\.\w*(Storage|Tensor)"
    r"|torch\.storage\.(Untyped|Typed|_Typed)Storage"
    r"|torch\.serialization\._get_layout"
    r"|torch\.(Size|device|layout|per_\w+_(affine|symmetric)\w*)"
    r"|torch\.(u?int|float|bfloat|complex|bool|quint|qint|half|double|long|short)\w*"
    r"|numpy\._?core\.multiarray\.(_reconstruct|scalar)"
    r"|numpy\._?core\.numeric\._frombuffer"
    r"|numpy\.(ndarray|dtype)"
    r"|_codecs\.encode"
    r"|collections\.\w+"
    r"|builtins\.(dict|list|tuple|set|frozenset|bytes|bytearray|complex|int|float|bool|str|slice|range)"
    r"|pathlib\.\w+"
    r"|datetime\.\w+"
)
"""Nothing of it is imported or called; what else a file names says that it is more than weights."""

_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Machine:
    """The stack machine that a pickle is a program of."""

    def __init__(self, resolve: Callable[[Any], Any]) -> None:
        self._resolve = resolve
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._work = 0

    def run(self, stream: BinaryIO) -> Any:
        for opcode, arg, _ in pickletools.genops(stream):
            self._count(1)
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _VALUES:
                self._stack.append(arg)
            elif name in ("GLOBAL", "STACK_GLOBAL", "INST"):
                self._name(name, arg)
            elif name not in _IGNORED:
                step = _STEPS.get(name)
                if step is None:
                    raise DamagedFileError(
                        f"the pickle uses {name}, which no file of weights needs"
                    )
                step(self, arg)
        raise DamagedFileError("the pickle has no end")

    def _count(self, work: int) -> None:
        self._work += work
        if self._work > MAX_OPCODES:
            raise DamagedFileError(f"the pickle has more than {MAX_OPCODES:,} steps")

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _name(self, opcode: str, arg: Any) -> None:
        if opcode == "STACK_GLOBAL":
            attribute, module = self._stack.pop(), self._stack.pop()
        else:
            module, attribute = str(arg).split(" ", 1)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise DamagedFileError("the pickle imports what is no name")
        name = f"{_OLD_NAMES.get(module, module)}.{attribute}"[:_MAX_NAME]
        if _ALLOWED.fullmatch(name) is None:
            raise RefusedGlobalError(name, is_first=not self._stack)
        if opcode == "INST":
            self._stack.append(self._called(name, tuple(self._since_mark())))
        else:
            self._stack.append(Global(name))

    def _call(self, args: Any) -> None:
        function = self._stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise DamagedFileError("the pickle calls what is no name")
        self._stack.append(self._called(function.name, cast("tuple[Any, ...]", args)))

    def _called(self, name: str, args: tuple[Any, ...]) -> Any:
        if name in _MAPPINGS:
            mapping: dict[str | int, Any] = {}
            pairs = as_list(args[0]) if args else []
            self._count(len(pairs))
            for key, value in pairs:
                self._set(mapping, [key, value])
            return mapping
        if name in _SEQUENCES:
            elements: Any = args[0] if args else ()
            return as_tuple(elements) or as_list(elements)
        if name == "torch.Size":
            return args[0] if args else ()
        return Call(name, args)

    def _set(self, mapping: Any, values: list[Any]) -> None:
        self._count(len(values) // 2)
        if not isinstance(mapping, dict):
            return  # of an object that is only noted
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY):
                mapping[key] = value

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            as_list(self._stack[-1]).extend(values)

    def _reduce(self, _: Any) -> None:
        self._call(self._stack.pop())

    def _new_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self._call(self._stack.pop())

    def _object(self, _: Any) -> None:
        function, *args = self._since_mark()
        self._stack.append(function)
        self._call(tuple(args))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Call):
            self._stack[-1].state = state

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(self._stack[-1], [key, value])

    def _set_items(self, _: Any) -> None:
        values = self._since_mark()
        self._set(self._stack[-1], values)

    def _dictionary(self, _: Any) -> None:
        mapping: dict[str | int, Any] = {}
        self._set(mapping, self._since_mark())
        self._stack.append(mapping)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _append_all(self, _: Any) -> None:
        values = self._since_mark()
        self._extend(values)

    def _tuple_of(self, size: int) -> None:
        values = tuple(self._stack[-size:])
        del self._stack[-size:]
        self._stack.append(values)

    def _recall(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def _remember(self, index: Any) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._resolve(self._stack.pop()))


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = frozenset({"PROTO", "FRAME"})
_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)

_Step = Callable[[_Machine, Any], object]
# The methods are this module's own, and the table is a part of the class that is easier to read.
# pyright: reportPrivateUsage=false
_STEPS: dict[str, _Step] = {
    "MARK": _Machine._mark,
    "POP": lambda machine, _: machine._stack.pop() and None,
    "POP_MARK": lambda machine, _: machine._since_mark() and None,
    "DUP": lambda machine, _: machine._stack.append(machine._stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine._stack.append({}),
    "EMPTY_SET": lambda machine, _: machine._stack.append([]),
    "LIST": lambda machine, _: machine._stack.append(machine._since_mark()),
    "FROZENSET": lambda machine, _: machine._stack.append(machine._since_mark()),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._since_mark())),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "DICT": _Machine._dictionary,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._append_all,
    "ADDITEMS": _Machine._append_all,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GET": _Machine._recall,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "PUT": _Machine._remember,
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "MEMOIZE": _Machine._memoize,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "OBJ": _Machine._object,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}


class _Limited:
    """A stream of which only so much is read, whatever lengths a pickle states."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MAX_PICKLE_BYTES
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        """As of a stream."""
        if not 0 <= size <= self._left:
            raise DamagedFileError(f"the pickle is larger than {MAX_PICKLE_BYTES >> 20} MiB")
        self._left -= size
        return self._stream.read(size)

    def readline(self) -> bytes:
        """As of a stream."""
        line = self._stream.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise DamagedFileError(f"the pickle is larger than {MAX_PICKLE_BYTES >> 20} MiB")
        return line
