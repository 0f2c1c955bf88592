"""Window attention on q, k and v as they lie in the feature map, by one Triton kernel.

Forward only. How the kernel works: see ``triton_kernel``.
"""

import contextlib
import functools
import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.model.position_bias import PositionFactors
from escsr.shapes import FeatureMap

DotPrecision = Literal["ieee", "tf32", "tf32x3"]
"""How float32 is multiplied: exactly, in TF32 (10 bits of fraction), or as three products in TF32,
nearly as exact as "ieee"; the last two use tensor cores."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SMALLEST_BLOCK = 16
"""What a matrix product in Triton needs."""
_INSTEAD = 'Use another attention back-end; "auto" and "sdpa" always work.'


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How the kernel is cut and run. Changes the time, and the last bits of a result."""

    block_queries: int
    """Queries of one program, a power of two."""
    block_keys: int
    """Keys that it works on at a time, a power of two."""
    num_warps: int
    """Of 32 threads, for one program."""
    num_stages: int
    """Blocks of keys that are on their way from memory at once."""


HALF_LAUNCHES: tuple[Launch, ...] = (
    Launch(block_queries=128, block_keys=64, num_warps=4, num_stages=3),
    Launch(block_queries=128, block_keys=64, num_warps=8, num_stages=3),
    Launch(block_queries=128, block_keys=32, num_warps=4, num_stages=3),
    Launch(block_queries=64, block_keys=64, num_warps=4, num_stages=3),
    Launch(block_queries=128, block_keys=128, num_warps=8, num_stages=2),
)
"""What is worth timing in half precision; the first is the default, not yet measured."""

FLOAT_LAUNCHES: tuple[Launch, ...] = (
    Launch(block_queries=64, block_keys=32, num_warps=4, num_stages=2),
    Launch(block_queries=64, block_keys=64, num_warps=4, num_stages=2),
    Launch(block_queries=128, block_keys=32, num_warps=8, num_stages=2),
    Launch(block_queries=128, block_keys=64, num_warps=8, num_stages=2),
)
"""The same in float32."""

_WIDE_FLOAT = Launch(block_queries=64, block_keys=32, num_warps=8, num_stages=2)
"""For heads of more than 32 channels in float32, for which four warps lack registers."""

_INTERPRETED = Launch(block_queries=256, block_keys=256, num_warps=1, num_stages=1)
"""The interpreter takes some 0.1 ms for an operation of any size."""


def attend_in_windows(
    qkv: FeatureMap,
    position: Tensor | PositionFactors | None,
    *,
    num_heads: int,
    window_size: int,
    precision: DotPrecision = "ieee",
    launch: Launch | None = None,
) -> FeatureMap:
    """``softmax(q k^T / sqrt(D) + bias) v`` within windows, without cutting them out.

    The map is extended by reflection to whole windows, by address. That equals extending the
    features, since q, k and v come from them by a 1x1 convolution.

    Args:
        qkv: (B, 3C, H, W), channels ordered (qkv, head, channel); float32, bfloat16 or float16, of
            any strides; fast in channels_last. H, W >= 1.
        position: the table of a bias, (N, (2w-1)^2) float32, indexed as in ``expand_bias``; factors
            of a bias, in the dtype of ``qkv``; None for none.
        num_heads: N, a divisor of C.
        window_size: w, in pixels.
        precision: how float32 is multiplied; half precision does not heed it.
        launch: how to cut and run it; chosen unless given.
    Returns:
        (B, C, H, W) in channels_last, of the dtype of ``qkv``.
    Raises:
        ConfigurationError: cannot run on this device or in this dtype.
    """
    obstacle = triton_obstacle(qkv.device.type)
    if obstacle is None and qkv.dtype not in _DTYPES:
        obstacle = f"the kernel does not know {qkv.dtype}"
    if obstacle is not None:
        raise ConfigurationError(
            f"The attention back-end triton cannot run here: {obstacle}. {_INSTEAD}"
        )
    batch, channels, height, width = qkv.shape
    chosen = (
        choose_launch(qkv.dtype, window_size, channels // 3 // num_heads)
        if launch is None
        else fitted(launch, window_size)
    )
    out = torch.empty(
        (batch, channels // 3, height, width),
        dtype=qkv.dtype,
        device=qkv.device,
        memory_format=torch.channels_last,
    )
    on_device = torch.cuda.device(qkv.device) if qkv.is_cuda else contextlib.nullcontext()
    with on_device:
        _launch(qkv, out, position, num_heads, window_size, precision, chosen)
    return out


@functools.cache
def triton_obstacle(device_type: str) -> str | None:
    """Why the kernel cannot run on a kind of device; None where it can."""
    if device_type not in ("cuda", "cpu"):
        return f"the Triton kernel does not run on {device_type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton, on Linux)"
    if device_type == "cpu":
        reason = "the Triton kernel runs on a CPU only in Triton's interpreter, for tests"
        return None if is_interpreted() else reason
    return _obstacle_on_cuda()


def _obstacle_on_cuda() -> str | None:
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if torch.version.hip is not None:
        return "the Triton kernel is written for NVIDIA's GPUs"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the device has no tensor cores that Triton uses (compute capability 8.0 or later)"
    return None


def is_interpreted() -> bool:
    """Whether Triton is set to interpret kernels in Python, which it does on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def choose_launch(dtype: torch.dtype, window_size: int, head_dim: int) -> Launch:
    """How to cut the kernel, unless somebody knows better."""
    if is_interpreted():
        chosen = _INTERPRETED
    elif dtype != torch.float32:
        chosen = HALF_LAUNCHES[0]
    else:
        chosen = FLOAT_LAUNCHES[0] if head_dim <= 32 else _WIDE_FLOAT
    return fitted(chosen, window_size)


def fitted(launch: Launch, window_size: int) -> Launch:
    """A launch whose blocks are not longer than a window needs."""
    longest = max(_SMALLEST_BLOCK, _next_power_of_two(window_size**2))
    return Launch(
        block_queries=min(launch.block_queries, longest),
        block_keys=min(launch.block_keys, longest),
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )


def _launch(
    qkv: Tensor,
    out: Tensor,
    position: Tensor | PositionFactors | None,
    num_heads: int,
    window_size: int,
    precision: DotPrecision,
    launch: Launch,
) -> None:
    # Only here, since importing it needs Triton.
    from escsr.model.attention import triton_kernel

    batch, channels, height, width = out.shape
    rows, columns = (-(-side // window_size) for side in (height, width))
    blocks = -(-(window_size**2) // launch.block_queries)
    table, query_factors, key_factors, rank = _arguments_of(position, qkv)
    constants = {
        "NUM_HEADS": num_heads,
        "WINDOW": window_size,
        "HEAD_DIM": channels // num_heads,
        "HEAD_BLOCK": max(_SMALLEST_BLOCK, _next_power_of_two(channels // num_heads)),
        "RANK": rank,
        "RANK_BLOCK": max(_SMALLEST_BLOCK, _next_power_of_two(rank)),
        "HAS_BIAS": isinstance(position, Tensor),
        "BLOCK_Q": launch.block_queries,
        "BLOCK_K": launch.block_keys,
        "PRECISION": precision,
        "IN_ASSEMBLY": not is_interpreted(),
        "WIDEN": is_interpreted() and qkv.dtype == torch.bfloat16,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "enable_fp_fusion": True,  # the default changes with Triton 3.10
    }
    given = (qkv, out, table, query_factors, key_factors, height, width, rows, columns)
    strides = (*qkv.stride(), *out.stride())
    scale = (channels // num_heads) ** -0.5
    # pyright would have every argument of the kernel typed.
    kernel = cast(Any, triton_kernel).window_attention_kernel
    kernel[(blocks * num_heads * rows * columns * batch,)](*given, *strides, scale, **constants)


def _arguments_of(
    position: Tensor | PositionFactors | None, qkv: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The table, both factors and their rank; what is not there is any tensor, never read."""
    if isinstance(position, PositionFactors):
        query, key = (
            part.to(qkv.dtype).contiguous() for part in (position.query_NTR, position.key_NTR)
        )
        return qkv, query, key, query.shape[-1]
    table = qkv if position is None else position.to(torch.float32).contiguous()
    return table, qkv, qkv, 0


def _next_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
