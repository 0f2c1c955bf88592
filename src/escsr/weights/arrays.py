"""Arrays of whatever type a file of weights holds, in numpy; torch's tensors where they enter.

numpy has no bfloat16: an array of it has the type ``BFLOAT16``, whose values are their 16 bits.
Torch is imported only where there are tensors already, or where tensors are asked for.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
Float32Array = NDArray[np.float32]
DType = np.dtype[Any]

BFLOAT16: DType = np.dtype([("bfloat16", "<u2")])


class Shaped(Protocol):
    """An array of numpy's or a tensor of torch's, of which only the shape matters."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides."""
        ...


AnyArray = TypeVar("AnyArray", bound=Shaped)


def dtype_name(dtype: DType) -> str:
    """As torch and the field call it: ``float32``, ``bfloat16``."""
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def is_floating_point(dtype: DType) -> bool:
    """Whether values are real numbers with a fraction."""
    return dtype.kind == "f" or dtype == BFLOAT16


def as_float32(array: Array) -> Float32Array:
    """A contiguous copy of floating-point values; too large ones become infinite."""
    if array.dtype == BFLOAT16:
        bits = array.view(np.uint16).astype(np.uint32, order="C")
        return np.left_shift(bits, 16, out=bits).view(np.float32)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C", copy=True)


def rounded(array: Array, dtype: DType) -> Array:
    """Values in another floating-point type, each the nearest that it has."""
    if dtype != BFLOAT16:
        return array.astype(dtype)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    to_even = np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return ((bits + to_even) >> 16).astype(np.uint16).view(BFLOAT16)


def as_array(values: "Array | Tensor") -> Array:
    """A tensor as an array, sharing its memory where it is on the CPU; an array as it is."""
    if isinstance(values, np.ndarray):
        return values
    import torch

    tensor = values.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def as_tensor(array: Array) -> "Tensor":
    """An array as a tensor on the CPU, sharing its memory where it is in torch's byte order."""
    import torch

    from_numpy = cast("Callable[[Array], Tensor]", cast("Any", torch).from_numpy)
    if array.dtype == BFLOAT16:
        return from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return from_numpy(array)


def as_given(example: Any, array: Array) -> Any:
    """The array as what the example is: an array, or a tensor (on the CPU)."""
    return array if isinstance(example, np.ndarray) else as_tensor(array)
