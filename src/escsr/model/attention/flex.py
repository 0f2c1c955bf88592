"""Attention compiled for a shape of window: PyTorch's flex attention, the bias added on the way.

The number of windows, the one thing that changes with an image, is symbolic; everything else picks
a compiled function of its own. So a network compiles once, whatever images come.
"""

import functools
import os
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.shapes import WindowTokens

SMALLEST_HEAD_DIM_CUDA = 16
"""What a matrix product in Triton needs; smaller heads get zeros."""

_INSTEAD = 'Use another attention back-end; "auto" and "sdpa" always work.'


def attend_compiled(
    q_BNTD: WindowTokens,
    k_BNTD: WindowTokens,
    v_BNTD: WindowTokens,
    bias_NTT: Tensor | None,
    *,
    scale: float,
) -> WindowTokens:
    """``softmax(scale q k^T + bias) v`` in one compiled kernel, which stores no scores.

    The first call for a device, dtype and shape of window compiles, for seconds to a minute; the
    number of windows does not matter. The bias is an argument of every call, so that a copied
    network, or one with new weights, computes with its own.

    Args:
        q_BNTD: (windows, N, T, D), float32, bfloat16 or float16.
        k_BNTD: likewise, of the same dtype.
        v_BNTD: (windows, N, T, E), of the same dtype.
        bias_NTT: (N, T, T), or None for none.
        scale: of the dot products.
    Returns:
        (windows, N, T, E).
    Raises:
        ConfigurationError: not possible on this device, for this dtype, or with gradients on a
            CPU; or compiling failed.
    """
    device, dtype, windows = q_BNTD.device, q_BNTD.dtype, q_BNTD.shape[0]
    _require_possible(device, dtype, (q_BNTD, k_BNTD, v_BNTD, bias_NTT))
    least = SMALLEST_HEAD_DIM_CUDA if device.type == "cuda" else 1
    # Scaled here, since a number would be compiled in; a power of two, since torch 2.6 wants one.
    q, k, v = (_powerful(part, least) for part in (q_BNTD * scale, k_BNTD, v_BNTD))
    bias = None if bias_NTT is None else bias_NTT.to(dtype).contiguous()
    if torch.compiler.is_compiling():
        return _attend(q, k, v, bias)[..., : v_BNTD.shape[-1]]
    if device.type == "cpu":
        q, k, v = (part.detach() for part in (q, k, v))
        bias = None if bias is None else bias.detach()
    compiled = _compiled(_WindowShape.of(q, v, has_bias=bias is not None))
    with torch.autocast(device.type, enabled=False):
        attended = _call(compiled, *(_with_free_length(part) for part in (q, k, v)), bias)
    return attended[:windows, ..., : v_BNTD.shape[-1]]


_FIRST_ON_CPU = "2.7"
"""In our tests 2.6 could not compile it, 2.13 could."""


@functools.cache
def flex_obstacle(device_type: str) -> str | None:
    """Why flex attention cannot run on a kind of device; None where it can."""
    if device_type not in ("cpu", "cuda"):
        return f"PyTorch's flex attention does not run on {device_type}"
    obstacle = _obstacle_on_cuda() if device_type == "cuda" else _obstacle_on_cpu()
    return obstacle or _obstacle_in_python()


def _obstacle_on_cuda() -> str | None:
    from torch.utils._triton import has_triton

    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None if has_triton() else "Triton is not installed, or the device is too old for it"


def _obstacle_in_python() -> str | None:
    from torch._dynamo.eval_frame import is_dynamo_supported

    return None if is_dynamo_supported() else "torch.compile does not run on this Python or system"


def _obstacle_on_cpu() -> str | None:
    if sys.platform == "darwin":
        return "PyTorch's flex attention does not run on the CPU of a Mac"
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "PyTorch's flex attention needs a CPU with AVX2"
    compiler = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "g++")
    if shutil.which(compiler) is None:
        return (
            f"it is compiled, and there is no C++ compiler {compiler!r} (set CXX to name another)"
        )
    if torch.__version__ < _FIRST_ON_CPU:
        return (
            f"on a CPU PyTorch's flex attention fails before {_FIRST_ON_CPU}; this "
            f"is {torch.__version__}"
        )
    return None


def _require_possible(
    device: torch.device, dtype: torch.dtype, parts: tuple[Tensor | None, ...]
) -> None:
    obstacle = flex_obstacle(device.type)
    if obstacle is None and dtype not in (torch.float32, torch.bfloat16, torch.float16):
        obstacle = f"PyTorch's flex attention does not know {dtype}"
    if obstacle is None and device.type == "cpu" and _need_gradients(parts):
        obstacle = (
            'on a CPU it has no gradients (wrap inference in torch.no_grad, or train "chunked")'
        )
    if obstacle is not None:
        raise ConfigurationError(
            f"The attention back-end flex cannot run here: {obstacle}. {_INSTEAD}"
        )


def _need_gradients(parts: tuple[Tensor | None, ...]) -> bool:
    given = [part for part in parts if part is not None]
    return torch.is_grad_enabled() and any(part.requires_grad for part in given)


def _powerful(tokens_BNTD: Tensor, least: int) -> Tensor:
    """Append zeros up to a head dimension that is a power of two."""
    dim = tokens_BNTD.shape[-1]
    wanted = max(least, 1 << (dim - 1).bit_length())
    return F.pad(tokens_BNTD, (0, wanted - dim)) if wanted > dim else tokens_BNTD


def _with_free_length(tokens_BNTD: Tensor) -> Tensor:
    """A tensor of our own, in one memory layout, whose number of windows is symbolic.

    A single window becomes two: a length of one would be compiled in.
    """
    if tokens_BNTD.shape[0] == 1:
        owned = tokens_BNTD.expand(2, -1, -1, -1).contiguous()
    else:
        owned = tokens_BNTD.clone(memory_format=torch.contiguous_format)
    torch._dynamo.mark_dynamic(owned, 0)  # pyright: ignore[reportPrivateUsage]
    return owned


@dataclass(frozen=True, kw_only=True, slots=True)
class _WindowShape:
    """What a compiled function is made for: all that counts, but the number of windows."""

    device: torch.device
    dtype: torch.dtype
    num_heads: int
    tokens: int
    head_dim: int
    value_dim: int
    has_bias: bool

    @classmethod
    def of(cls, q_BNTD: Tensor, v_BNTD: Tensor, *, has_bias: bool) -> "_WindowShape":
        _, num_heads, tokens, head_dim = q_BNTD.shape
        return cls(
            device=q_BNTD.device,
            dtype=q_BNTD.dtype,
            num_heads=num_heads,
            tokens=tokens,
            head_dim=head_dim,
            value_dim=v_BNTD.shape[-1],
            has_bias=has_bias,
        )


@functools.cache
def _compiled(shape: _WindowShape) -> Callable[..., Tensor]:
    """A function for one shape of window, which compiles when it is first called.

    PyTorch counts recompilations per code object and gives up after a few, so that networks of
    several shapes would use up each other's; hence a copy of the code for each.
    """
    code = _attend.__code__.replace(co_name=f"attend_{shape.tokens}_tokens")
    own = types.FunctionType(code, _attend.__globals__)
    return torch.compile(own, fullgraph=True, dynamic=False)  # pyright: ignore[reportUnknownMemberType]


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    if bias is None:
        return flex_attention(q, k, v, scale=1.0)

    def add_bias(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[head, query, key]

    return flex_attention(q, k, v, score_mod=add_bias, scale=1.0)


def _call(compiled: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
    from torch._dynamo.exc import TorchDynamoException

    try:
        return compiled(*arguments)
    except TorchDynamoException as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ConfigurationError(
            f"PyTorch could not compile flex attention: {reason}. {_INSTEAD}"
        ) from error
