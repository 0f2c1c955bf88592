"""Ways to compute one and the same attention, behind one signature.

``naive`` writes the formula down and is the specification; ``sdpa`` never stores the scores;
``chunked`` is the one to train with on a CPU.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.model.chunked_attention import attend_in_chunks, centred
from escsr.shapes import WindowTokens

AttentionBackend = Literal["naive", "sdpa", "chunked"]
ATTENTION_BACKENDS: tuple[AttentionBackend, ...] = ("naive", "sdpa", "chunked")


def attend(
    q_BNTD: WindowTokens,
    k_BNTD: WindowTokens,
    v_BNTD: WindowTokens,
    bias_NTT: Tensor,
    *,
    backend: AttentionBackend,
) -> WindowTokens:
    """Softmax attention with an additive bias: ``softmax(q k^T / sqrt(D) + bias) v``.

    Args:
        q_BNTD: (windows, N, T, D).
        k_BNTD: likewise, of the same dtype.
        v_BNTD: likewise, of the same dtype.
        bias_NTT: (N, T, T), added to the scores, row = query.
        backend: one of ``ATTENTION_BACKENDS``.
    Returns:
        (windows, N, T, D).
    Raises:
        ConfigurationError: no such back-end.
    Source: ESC, arXiv:2503.06671, section 3.3.
    """
    if require_backend(backend) == "chunked":
        return attend_in_chunks(q_BNTD, k_BNTD, v_BNTD, bias_NTT)
    if backend == "naive":
        scores = (q_BNTD / math.sqrt(q_BNTD.shape[-1])) @ k_BNTD.transpose(-2, -1)
        return scores.add_(bias_NTT.to(scores.dtype)).softmax(dim=-1) @ v_BNTD
    mask = bias_NTT.to(q_BNTD.dtype).unsqueeze(0)
    if q_BNTD.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q_BNTD, k_BNTD, v_BNTD, attn_mask=mask)
    # Half precision would lose the gradient in what keys and values have in common.
    k_BNTD, v_BNTD, mean_value = centred(k_BNTD, v_BNTD)
    attended = F.scaled_dot_product_attention(q_BNTD, k_BNTD, v_BNTD, attn_mask=mask)
    return attended + mean_value


def require_backend(backend: AttentionBackend) -> AttentionBackend:
    """Return the name of a back-end, if it is one.

    Raises:
        ConfigurationError: no such back-end.
    """
    if backend not in ATTENTION_BACKENDS:
        raise ConfigurationError(
            f"The attention back-end is {backend!r}; allowed are {', '.join(ATTENTION_BACKENDS)}."
        )
    return backend
