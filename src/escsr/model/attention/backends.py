"""Ways to compute one and the same attention, behind one signature.

``naive`` writes the formula down and is the specification; ``sdpa`` never stores the scores;
``chunked`` is the one to train with on a CPU; ``flex`` is compiled; ``auto`` picks one of them.
"""

import functools
import logging
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.model.attention.chunked import attend_in_chunks, centred
from escsr.model.attention.flex import attend_compiled, flex_obstacle
from escsr.model.attention.triton_attention import triton_obstacle
from escsr.shapes import WindowTokens

AttentionBackend = Literal["naive", "sdpa", "chunked", "auto", "flex"]
ATTENTION_BACKENDS: tuple[AttentionBackend, ...] = ("naive", "sdpa", "chunked", "auto", "flex")
"""All compute the same function."""

FoldedBackend = Literal["naive", "sdpa", "chunked", "auto", "flex", "flashbias", "triton"]
FOLDED_BACKENDS: tuple[FoldedBackend, ...] = (*ATTENTION_BACKENDS, "flashbias", "triton")
"""What a folded copy can have: also ``flashbias``, for a bias that is fixed, and
``triton``, which reads the feature map itself and has no gradients."""

logger = logging.getLogger("escsr")


def attend(
    q_BNTD: WindowTokens,
    k_BNTD: WindowTokens,
    v_BNTD: WindowTokens,
    bias_NTT: Tensor | None,
    *,
    backend: AttentionBackend,
    scale: float | None = None,
) -> WindowTokens:
    """Softmax attention with an additive bias: ``softmax(scale q k^T + bias) v``.

    A bias that is a product, of features of a query's and of a key's position, needs no ``bias``:
    append the features to q (already divided by sqrt(D)) and k, and give ``scale=1.0``.

    Args:
        q_BNTD: (windows, N, T, D).
        k_BNTD: likewise, of the same dtype.
        v_BNTD: (windows, N, T, E), of the same dtype.
        bias_NTT: (N, T, T), added to the scores, row = query; None adds nothing.
        backend: one of ``ATTENTION_BACKENDS``; "auto" is ``choose_backend``'s.
        scale: of the dot products; 1 / sqrt(D) unless given.
    Returns:
        (windows, N, T, E).
    Raises:
        ConfigurationError: no such back-end, or "flex" where it cannot run.
    Source: ESC, arXiv:2503.06671, section 3.3; position features: arXiv:2603.06738.
    """
    factor: float = q_BNTD.shape[-1] ** -0.5 if scale is None else scale
    if require_backend(backend) == "auto":
        backend = _chosen(q_BNTD, k_BNTD, v_BNTD, bias_NTT)
    if backend == "flex":
        return attend_compiled(q_BNTD, k_BNTD, v_BNTD, bias_NTT, scale=factor)
    if backend == "chunked":
        return attend_in_chunks(q_BNTD, k_BNTD, v_BNTD, bias_NTT, scale=factor)
    if backend == "naive":
        scores = (q_BNTD * factor) @ k_BNTD.transpose(-2, -1)
        if bias_NTT is not None:
            scores = scores.add_(bias_NTT.to(scores.dtype))
        return scores.softmax(dim=-1) @ v_BNTD
    return _attend_fused(q_BNTD, k_BNTD, v_BNTD, bias_NTT, factor)


def _attend_fused(
    q_BNTD: Tensor, k_BNTD: Tensor, v_BNTD: Tensor, bias_NTT: Tensor | None, scale: float
) -> Tensor:
    """PyTorch's own fused attention, which wants q, k and v of one head dimension on a CPU."""
    value_dim, dim = v_BNTD.shape[-1], max(q_BNTD.shape[-1], v_BNTD.shape[-1])
    mean_value = None
    if q_BNTD.dtype in (torch.bfloat16, torch.float16):
        # Half precision would lose the gradient in what keys and values have in common.
        k_BNTD, v_BNTD, mean_value = centred(k_BNTD, v_BNTD)
    q, k, v = (with_zeros(part, dim) for part in (q_BNTD, k_BNTD, v_BNTD))
    mask = None if bias_NTT is None else bias_NTT.to(q.dtype).unsqueeze(0)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    attended = attended[..., :value_dim]
    return attended if mean_value is None else attended + mean_value


def with_zeros(tokens_BNTD: WindowTokens, dim: int) -> WindowTokens:
    """Append zeros up to a head dimension, which changes neither dot products nor averages."""
    missing = dim - tokens_BNTD.shape[-1]
    return F.pad(tokens_BNTD, (0, missing)) if missing > 0 else tokens_BNTD


def choose_backend(
    device_type: str, *, has_bias: bool, needs_gradient: bool
) -> tuple[AttentionBackend, str]:
    """What "auto" takes, and why.

    Args:
        device_type: such as "cpu".
        has_bias: whether a bias is added to the scores.
        needs_gradient: whether anything will be differentiated.
    Returns:
        The back-end and the reason, a clause for a log.
    """
    if device_type == "cpu" and needs_gradient and has_bias:
        return "chunked", "PyTorch's fused attention has no gradient for a bias on a CPU"
    if device_type == "cpu":
        return "sdpa", "fastest in float32 as measured on a CPU, and it compiles nothing"
    return "sdpa", "it compiles nothing; the others have not been measured on this kind of device"


def available_backends(device: torch.device | str) -> dict[FoldedBackend, str | None]:
    """All back-ends, with the reason why one cannot run on a device; None where it can."""
    kind = torch.device(device).type
    obstacles = {"flex": flex_obstacle(kind), "triton": triton_obstacle(kind)}
    return {name: obstacles.get(name) for name in FOLDED_BACKENDS}


def require_available(backend: FoldedBackend, device: torch.device) -> FoldedBackend:
    """Return the name of a back-end, if it is one and can run on a device.

    Raises:
        ConfigurationError: no such back-end, or not there.
    """
    if backend not in FOLDED_BACKENDS:
        raise ConfigurationError(
            f"The attention back-end is {backend!r}; allowed are {', '.join(FOLDED_BACKENDS)}."
        )
    # Asked only where it matters: the answer for flex takes seconds.
    reason = available_backends(device)[backend] if backend in ("flex", "triton") else None
    if reason is not None:
        possible = ", ".join(name for name in FOLDED_BACKENDS if name != backend)
        raise ConfigurationError(
            f"The attention back-end {backend} cannot run here: {reason}. Use one of {possible}."
        )
    return backend


def require_backend(backend: FoldedBackend) -> AttentionBackend:
    """Return the name of a back-end, if it is one that a network can have before it is folded.

    Raises:
        ConfigurationError: no such back-end.
    """
    if backend == "flashbias":
        raise ConfigurationError(
            "The attention back-end flashbias takes a bias apart that no longer changes, so a "
            'network has it only when folded: use Upscaler(…, attention_backend="flashbias") or '
            'fold(network, attention_backend="flashbias").'
        )
    if backend == "triton":
        raise ConfigurationError(
            "The attention back-end triton is for inference, so a network has it only when folded: "
            'use Upscaler(…, attention_backend="triton") or fold(network, '
            'attention_backend="triton").'
        )
    if backend not in ATTENTION_BACKENDS:
        raise ConfigurationError(
            f"The attention back-end is {backend!r}; allowed are {', '.join(ATTENTION_BACKENDS)}."
        )
    return backend


def _chosen(*parts_and_bias: Tensor | None) -> AttentionBackend:
    """What "auto" takes for these tensors, logged once."""
    query, bias = parts_and_bias[0], parts_and_bias[-1]
    assert query is not None
    needs_gradient = torch.is_grad_enabled() and any(
        part is not None and part.requires_grad for part in parts_and_bias
    )
    backend, reason = choose_backend(
        query.device.type, has_bias=bias is not None, needs_gradient=needs_gradient
    )
    if not torch.compiler.is_compiling():
        _, num_heads, tokens, head_dim = query.shape
        task = f"{num_heads} heads of {head_dim} channels, {tokens} tokens"
        where = f"{query.device.type}, {str(query.dtype).removeprefix('torch.')}"
        _log_once(f"Attention on {where}, {task}: {backend}; {reason}.")
    return backend


@functools.lru_cache(maxsize=256)
def _log_once(message: str) -> None:
    logger.info(message)
