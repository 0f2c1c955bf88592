"""The kernels as functions of tensors; a map is (H*W, C), as ``maps`` makes them."""

import ctypes
from dataclasses import fields

import torch
from torch import Tensor

from escsr.inference.native.layer_weights import Addition, LayerKind, LayerWeights
from escsr.inference.native.library import native_library
from escsr.inference.native.maps import place_of

_POINTER = ctypes.c_void_p
_NUMBER = ctypes.c_int64
_OUT_OF_MEMORY = 2
"""As ``source/lanes.h`` says."""


def lanes() -> int:
    """Numbers in a vector of the compiled kernels: channels come in multiples of it."""
    return int(native_library().escsr_lanes())


def _require_done(outcome: int) -> None:
    """Judge what a kernel answers.

    Raises:
        MemoryError: there was none for its work.
    """
    if outcome == _OUT_OF_MEMORY:
        raise MemoryError("The native kernels found no memory to work in")
    assert not outcome, "a network with such windows, heads or kernels is not run natively"


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
    kind: LayerKind,
    result: Tensor,
    side: Tensor | None,
) -> Tensor:
    """Complete the layer before, then feed forward: ``source/layer.cpp`` has the formulas.

    Args:
        features: (H*W, C).
        weights: as matrices.
        size: (H, W).
        addition: what completes ``features``.
        kind: what else it does.
        result: (H*W, C), written; not ``features``.
        side: (H*W, S), written; none is made unless given.
    Returns:
        (E,) float64: the sum of the hidden map over all pixels.
    """
    hidden_sum = torch.zeros(weights.expand_bias.shape[0], dtype=torch.float64, device="cpu")
    task = _LayerTask(
        features=place_of(features),
        result=place_of(result),
        side=None if side is None else place_of(side),
        hidden_sum=hidden_sum.data_ptr(),
        height=size[0],
        width=size[1],
        dim=features.shape[1],
        expanded_dim=weights.expand_bias.shape[0],
        side_dim=weights.side_bias.shape[0],
        threads=torch.get_num_threads(),
        normalises=kind.normalises,
        has_residual=kind.has_residual,
        side_is_of_result=kind.side_is_of_result,
        **{field.name: place_of(getattr(weights, field.name)) for field in fields(weights)},
        **_of(addition),
    )
    _require_done(native_library().escsr_run_layer(ctypes.byref(task)))
    return hidden_sum


def _of(addition: Addition | None) -> dict[str, int]:
    if addition is None:
        return {}
    return {
        "added": place_of(addition.values),
        "added_weight": place_of(addition.weight),
        "added_bias": place_of(addition.bias),
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
        features=place_of(features),
        weight=place_of(weight),
        bias=place_of(bias),
        result=place_of(result),
        pixels=features.shape[0],
        dim=features.shape[1],
        threads=torch.get_num_threads(),
        **_of(addition),
    )
    _require_done(native_library().escsr_add_and_normalise(ctypes.byref(task)))


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
        qkv=place_of(qkv),
        attended=place_of(attended),
        bias=place_of(bias),
        height=size[0],
        width=size[1],
        heads=num_heads,
        window=window_size,
        head_dim=head_dim,
        threads=torch.get_num_threads(),
        scale=LOG2_E * head_dim**-0.5,
    )
    _require_done(native_library().escsr_attend(ctypes.byref(task)))


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
        features=place_of(features),
        weight=place_of(weight),
        bias=place_of(bias),
        added=None if added is None else place_of(added),
        result=place_of(result),
        height=size[0],
        width=size[1],
        num_inputs=weight.shape[1],
        num_outputs=weight.shape[2],
        threads=torch.get_num_threads(),
    )
    _require_done(native_library().escsr_convolve_3x3(ctypes.byref(task)))


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
        features=place_of(features),
        result=place_of(result),
        dense=None if dense is None else place_of(dense),
        classes=classes.data_ptr(),
        places=places.data_ptr(),
        depthwise_real=None if depthwise is None else place_of(depthwise[0]),
        depthwise_imag=None if depthwise is None else place_of(depthwise[1]),
        height=size[0],
        width=size[1],
        channels=features.shape[1],
        kernel_size=kernel_size,
        num_classes=classes.shape[0] - 1,
        threads=torch.get_num_threads(),
    )
    _require_done(native_library().escsr_convolve(ctypes.byref(task)))
