"""The kernels as functions of tensors.

A map here is (H*W, C) float32 and contiguous: a feature map in channels_last, seen as a matrix.
"""

import ctypes
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from escsr.inference.native.library import native_library

_POINTER = ctypes.c_void_p
_NUMBER = ctypes.c_int64


def lanes() -> int:
    """Numbers in a vector of the compiled kernels: channels come in multiples of it."""
    return int(native_library().escsr_lanes())


def new_map(pixels: int, channels: int) -> Tensor:
    """A map to write to, (pixels, channels) float32 on the CPU, whatever is torch's default."""
    made = torch.empty(pixels, channels, dtype=torch.float32, device="cpu")
    start, length = _POINTER(made.data_ptr()), _NUMBER(made.nbytes)
    native_library().escsr_prefer_large_pages(start, length)
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """Weights of ``run_layer``: matrices of (input, output) channels, padded to whole vectors."""

    expand_weight: Tensor
    """(C, E)."""
    expand_bias: Tensor
    """(E,)."""
    depthwise_weight: Tensor
    """(9, E)."""
    depthwise_bias: Tensor
    """(E,)."""
    reduce_weight: Tensor
    """(E, C)."""
    reduce_bias: Tensor
    """(C,)."""
    side_weight: Tensor
    """(E, S), or (C, S) where the side is made of the result."""
    side_bias: Tensor
    """(S,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """What the layer before left to be added: ``values @ weight + bias``."""

    values: Tensor
    """(H*W, A)."""
    weight: Tensor
    """(A, C)."""
    bias: Tensor
    """(C,)."""


class _LayerTask(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("features", "added", "added_weight", "added_bias")),
        *((field.name, _POINTER) for field in fields(LayerWeights)),
        *((name, _POINTER) for name in ("result", "side", "hidden_sum")),
        *((name, _NUMBER) for name in ("height", "width", "dim", "added_dim", "expanded_dim")),
        *((name, _NUMBER) for name in ("side_dim", "threads", "normalises", "has_residual")),
        ("side_is_of_result", _NUMBER),
    ]


def run_layer(
    features: Tensor,
    weights: LayerWeights,
    *,
    size: tuple[int, int],
    addition: Addition | None,
    normalises: bool,
    has_residual: bool,
    side_is_of_result: bool,
    result: Tensor,
    side: Tensor | None,
) -> Tensor:
    """Complete the layer before, then feed forward: ``source/layer.cpp`` has the formulas.

    Args:
        features: (H*W, C).
        weights: as matrices.
        size: (H, W).
        addition: what completes ``features``.
        normalises: whether LayerNorm (its weights folded into ``expand``) comes first.
        has_residual: whether the completed features are added to the result.
        side_is_of_result: whether the side is made of the normalised result, not of the hidden map.
        result: (H*W, C), written; not ``features``.
        side: (H*W, S), written; none is made unless given.
    Returns:
        (E,) float64: the sum of the hidden map over all pixels.
    """
    hidden_sum = torch.zeros(weights.expand_bias.shape[0], dtype=torch.float64, device="cpu")
    task = _LayerTask(
        features=features.data_ptr(),
        result=result.data_ptr(),
        side=None if side is None else side.data_ptr(),
        hidden_sum=hidden_sum.data_ptr(),
        height=size[0],
        width=size[1],
        dim=features.shape[1],
        expanded_dim=weights.expand_bias.shape[0],
        side_dim=weights.side_bias.shape[0],
        threads=torch.get_num_threads(),
        normalises=normalises,
        has_residual=has_residual,
        side_is_of_result=side_is_of_result,
        **{field.name: getattr(weights, field.name).data_ptr() for field in fields(weights)},
        **_of(addition),
    )
    native_library().escsr_run_layer(ctypes.byref(task))
    return hidden_sum


def _of(addition: Addition | None) -> dict[str, int]:
    if addition is None:
        return {}
    return {
        "added": addition.values.data_ptr(),
        "added_weight": addition.weight.data_ptr(),
        "added_bias": addition.bias.data_ptr(),
        "added_dim": addition.values.shape[1],
    }


class _NormTask(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("features", "added", "added_weight", "added_bias")),
        *((name, _POINTER) for name in ("weight", "bias", "result")),
        *((name, _NUMBER) for name in ("pixels", "dim", "added_dim", "threads")),
    ]


def add_and_normalise(
    features: Tensor, addition: Addition | None, weight: Tensor, bias: Tensor, *, result: Tensor
) -> None:
    """``result = LayerNorm(features + addition)``; (H*W, C) each, weight and bias (C,)."""
    task = _NormTask(
        features=features.data_ptr(),
        weight=weight.data_ptr(),
        bias=bias.data_ptr(),
        result=result.data_ptr(),
        pixels=features.shape[0],
        dim=features.shape[1],
        threads=torch.get_num_threads(),
        **_of(addition),
    )
    native_library().escsr_add_and_normalise(ctypes.byref(task))


class _AttentionTask(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("qkv", "attended", "bias")),
        *((name, _NUMBER) for name in ("height", "width", "heads", "window", "head_dim")),
        ("threads", _NUMBER),
        ("scale", ctypes.c_float),
    ]


def attend(
    qkv: Tensor, bias: Tensor, *, size: tuple[int, int], window_size: int, attended: Tensor
) -> None:
    """Window attention on a map.

    Args:
        qkv: (H*W, 3C), channels ordered (qkv, head, channel).
        bias: (N, 2w-1, 2w-1), times log2 e; row: key minus query, column: query minus key.
        size: (H, W).
        window_size: w, a multiple of ``lanes()``.
        attended: (H*W, C), written, C = N*D; D is 8, 16 or 32.
    """
    num_heads, channels = bias.shape[0], attended.shape[1]
    head_dim = channels // num_heads
    task = _AttentionTask(
        qkv=qkv.data_ptr(),
        attended=attended.data_ptr(),
        bias=bias.data_ptr(),
        height=size[0],
        width=size[1],
        heads=num_heads,
        window=window_size,
        head_dim=head_dim,
        threads=torch.get_num_threads(),
        scale=LOG2_E * head_dim**-0.5,
    )
    failed = native_library().escsr_attend(ctypes.byref(task))
    assert not failed, "a network with such windows or heads is not run natively"


LOG2_E = 1.4426950408889634
"""Exponentials are of base 2."""


class _ConvolutionTask(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("features", "weight", "bias", "added", "result")),
        *((name, _NUMBER) for name in ("height", "width", "num_inputs", "num_outputs", "threads")),
    ]


def convolve_3x3(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    size: tuple[int, int],
    added: Tensor | None,
    result: Tensor,
) -> None:
    """Convolve with a 3x3 kernel, zeros beyond the map.

    Args:
        features: (H*W, C in); channels in and out in whole vectors.
        weight: (36, C in, C out), transformed.
        bias: (C out,).
        size: (H, W).
        added: (H*W, C out), added to the result.
        result: (H*W, C out), written; not ``features``.
    """
    task = _ConvolutionTask(
        features=features.data_ptr(),
        weight=weight.data_ptr(),
        bias=bias.data_ptr(),
        added=None if added is None else added.data_ptr(),
        result=result.data_ptr(),
        height=size[0],
        width=size[1],
        num_inputs=weight.shape[1],
        num_outputs=weight.shape[2],
        threads=torch.get_num_threads(),
    )
    native_library().escsr_convolve_3x3(ctypes.byref(task))


class _SpectrumTask(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("features", "result", "dense", "classes", "places")),
        *((name, _POINTER) for name in ("depthwise_real", "depthwise_imag")),
        *((name, _NUMBER) for name in ("height", "width", "channels", "kernel_size")),
        *((name, _NUMBER) for name in ("num_classes", "threads")),
    ]


def convolve(
    features: Tensor,
    *,
    size: tuple[int, int],
    kernel_size: int,
    dense: Tensor | None,
    classes: Tensor,
    places: Tensor,
    depthwise: tuple[Tensor, Tensor] | None,
    result: Tensor,
) -> None:
    """Convolve with kernels given by their spectra, zeros beyond the map.

    Args:
        features: (H*W, P).
        size: (H, W).
        kernel_size: of the larger kernel, odd, at most 17.
        dense: (classes, P in, P out), real, or none.
        classes: (classes + 1,) int32: where each class begins in ``places``.
        places: (1024,) int32: places of the transform, by class.
        depthwise: real and imaginary part, (1024, P) each, or none.
        result: (H*W, P), written; not ``features``.
    """
    task = _SpectrumTask(
        features=features.data_ptr(),
        result=result.data_ptr(),
        dense=None if dense is None else dense.data_ptr(),
        classes=classes.data_ptr(),
        places=places.data_ptr(),
        depthwise_real=None if depthwise is None else depthwise[0].data_ptr(),
        depthwise_imag=None if depthwise is None else depthwise[1].data_ptr(),
        height=size[0],
        width=size[1],
        channels=features.shape[1],
        kernel_size=kernel_size,
        num_classes=classes.shape[0] - 1,
        threads=torch.get_num_threads(),
    )
    failed = native_library().escsr_convolve(ctypes.byref(task))
    assert not failed, "a network with such a kernel is not run natively"
