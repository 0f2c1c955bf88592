"""Attention for training on a CPU: exact, in chunks that fit its cache, in float32 at least.

PyTorch's own fused attention has no gradient for an additive bias on a CPU; it falls back to
storing the scores of all windows several times. Here a few windows at a time go through all steps.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from escsr.shapes import WindowTokens

SCORES_PER_PIECE = 2**20
"""A piece of float32 scores fills 4 MiB: it stays in the last level of a CPU's cache."""
LARGEST_KEPT_BYTES = 64 * 2**20
"""Probabilities of a layer up to this size are kept for the gradient; larger ones made again."""


def attend_in_chunks(
    q_BNTD: WindowTokens,
    k_BNTD: WindowTokens,
    v_BNTD: WindowTokens,
    bias_NTT: Tensor | None,
    *,
    scale: float,
) -> WindowTokens:
    """``softmax(scale q k^T + bias) v``, a few windows at a time, keys and values ``centred``.

    Half precision is widened first: scores, probabilities and all gradients are computed in float32
    at least.

    Args:
        q_BNTD: (windows, N, T, D).
        k_BNTD: likewise, of the same dtype.
        v_BNTD: (windows, N, T, E), of the same dtype.
        bias_NTT: (N, T, T), or None for none.
        scale: of the dot products.
    Returns:
        (windows, N, T, E), of the dtype given, also under autocast.
    """
    dtype = torch.promote_types(q_BNTD.dtype, torch.float32)
    with torch.autocast(q_BNTD.device.type, enabled=False):
        k, v, mean_value = centred(k_BNTD.to(dtype), v_BNTD.to(dtype))
        attended = _apply(
            (q_BNTD.to(dtype) * scale).contiguous(),
            k.contiguous(),
            v.contiguous(),
            None if bias_NTT is None else bias_NTT.to(dtype),
        )
        return (attended + mean_value).to(q_BNTD.dtype)


def centred(k_BNTD: WindowTokens, v_BNTD: WindowTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Subtract the mean key and the mean value of each window.

    The first moves all scores of a row alike, and the mean value is added to the result again: the
    function is the same. Its gradient, however, is a difference of nearly equal numbers where
    attention is nearly uniform, and centring takes what they share away *before* they are
    rounded. Without it bfloat16's rounding was up to 1000 times the gradient.

    Returns:
        Keys and values, (windows, N, T, D), and the mean value, (windows, N, 1, D).
    """
    mean_value = v_BNTD.mean(-2, keepdim=True)
    return k_BNTD - k_BNTD.mean(-2, keepdim=True), v_BNTD - mean_value, mean_value


class _ChunkedAttention(torch.autograd.Function):
    """``softmax(q k^T + bias) v`` and its gradients, a few windows at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        attended = torch.empty_like(v)
        num_bytes = q.shape[:3].numel() * q.shape[2] * q.element_size()
        are_kept = any(ctx.needs_input_grad) and num_bytes <= LARGEST_KEPT_BYTES
        kept: list[Tensor] = []
        for piece in _pieces(q):
            probabilities = _probabilities(q[piece], k[piece], bias)
            attended[piece] = probabilities @ v[piece]
            if are_kept:
                kept.append(probabilities)
        ctx.save_for_backward(q, k, v, bias, attended, *kept)
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, bias, attended, *kept = ctx.saved_tensors
        gradient = gradient.contiguous()
        q_gradient, k_gradient, v_gradient = (torch.empty_like(part) for part in (q, k, v))
        bias_gradient = None if bias is None else torch.zeros_like(bias)
        shared = (gradient * attended).sum(-1, keepdim=True)
        for number, piece in enumerate(_pieces(q)):
            probabilities = kept[number] if kept else _probabilities(q[piece], k[piece], bias)
            v_gradient[piece] = probabilities.transpose(-2, -1) @ gradient[piece]
            scores = gradient[piece] @ v[piece].transpose(-2, -1)
            scores.sub_(shared[piece]).mul_(probabilities)
            if bias_gradient is not None:
                bias_gradient += scores.sum(0)
            q_gradient[piece] = scores @ k[piece]
            k_gradient[piece] = scores.transpose(-2, -1) @ q[piece]
        return q_gradient, k_gradient, v_gradient, bias_gradient


def _apply(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Run ``_ChunkedAttention``, left out of ``torch.compile``.

    The compiler would unroll the loop over pieces and work for many minutes. The wrapper is made
    only when something is being compiled: making it loads the whole compiler, which takes longer
    than loading all the rest.
    """
    apply = cast(Callable[..., Tensor], _ChunkedAttention.apply)  # pyright: ignore[reportUnknownMemberType]
    if torch.compiler.is_compiling():
        apply = cast(Callable[..., Tensor], torch.compiler.disable(apply))  # pyright: ignore[reportUnknownMemberType]
    return apply(q, k, v, bias)


def _pieces(q_BNTD: Tensor) -> list[slice]:
    """Slices of windows whose scores fill ``SCORES_PER_PIECE``."""
    _, num_heads, tokens, _ = q_BNTD.shape
    windows = max(1, SCORES_PER_PIECE // (num_heads * tokens**2))
    return [slice(first, first + windows) for first in range(0, q_BNTD.shape[0], windows)]


def _probabilities(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-2, -1)
    return (scores if bias is None else scores.add_(bias)).softmax(dim=-1)
