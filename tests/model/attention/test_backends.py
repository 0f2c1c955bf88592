"""One attention, several ways to compute it: which there are, that they agree, who picks."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.model.attention import backends
from escsr.model.attention.backends import (
    AttentionBackend,
    attend,
    available_backends,
    choose_backend,
    require_available,
    require_backend,
)
from escsr.model.attention.flex import flex_obstacle
from tests.eager_backends import EAGER_BACKENDS

TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 4e-2,
}
"""Of the largest value of a result, against naive attention in float64 on the same numbers.

float64 and float32: another order of summation, as for the golden files. Half precision keeps 11
and 8 significant bits, so a rounded probability is off by 5e-4 and 4e-3; ten times that, since
scores, probabilities and averages are rounded one after another.
"""

GRADIENT_TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 3e-1,
}
"""The same for gradients, by their norm: differences of nearly equal numbers, so a few times more.
Whether bfloat16 can train is asked on a real network (tests/training/test_precision.py)."""

LAYOUTS = {
    "a bias": (8, 8, True),
    "no bias": (8, 8, False),
    "factors appended": (12, 8, False),
    "wide values": (4, 8, True),
}
"""Head dimension of queries and keys, that of values, and whether there is a bias."""


def parts(layout: str, dtype: torch.dtype, *, windows: int = 3) -> list[Tensor]:
    """q, k, v of two heads and 16 tokens, and the bias if there is one; all want gradients."""
    dim, value_dim, has_bias = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(dim)
    shapes = [(windows, 2, 16, size) for size in (dim, dim, value_dim)]
    shapes += [(2, 16, 16)] if has_bias else []
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [part.to(dtype).requires_grad_() for part in drawn]


def results(given: list[Tensor], **options: Any) -> list[Tensor]:
    """What attention makes of the parts, and the gradients of a weighted sum of it by each."""
    q, k, v, *bias = given
    attended = attend(q, k, v, bias[0] if bias else None, **options)
    weights = torch.linspace(-1, 2, attended.numel()).reshape(attended.shape).to(attended)
    return [attended, *torch.autograd.grad((attended * weights).sum(), given)]


@pytest.mark.parametrize("scale", [None, 1.0], ids=["scaled by the root", "scale 1"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_all_agree_with_naive_in_float64(
    backend: AttentionBackend, dtype: torch.dtype, layout: str, scale: float | None
) -> None:
    """Results and gradients, with and without a bias, queries and values of one width or two."""
    given = parts(layout, dtype)
    exact_given = [part.detach().double().requires_grad_() for part in given]
    right, *right_gradients = results(exact_given, backend="naive", scale=scale)
    ours, *gradients = results(given, backend=backend, scale=scale)
    assert ours.dtype == dtype
    assert ours.shape == right.shape
    assert (ours - right).abs().max() <= TOLERANCE[dtype] * right.abs().max()
    for gradient, right_gradient in zip(gradients, right_gradients, strict=True):
        error = (gradient - right_gradient).norm() / right_gradient.norm()
        assert error <= GRADIENT_TOLERANCE[dtype]


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_an_empty_bias_is_no_bias(backend: AttentionBackend) -> None:
    """None and zeros give the same numbers."""
    q, k, v = parts("no bias", torch.float32)
    without = attend(q, k, v, None, backend=backend)
    zeros = attend(q, k, v, torch.zeros(2, 16, 16), backend=backend)
    torch.testing.assert_close(without, zeros, rtol=1e-5, atol=1e-6)  # two kernels may round apart


def test_appended_factors_are_a_bias() -> None:
    """``[q/sqrt(D), a] [k, b]^T`` with scale 1 is ``q k^T / sqrt(D) + a b^T``, by definition."""
    q, k, v = parts("no bias", torch.float64)
    a, b = torch.randn(2, 2, 16, 5, dtype=torch.float64)
    whole = attend(q, k, v, a @ b.transpose(-2, -1), backend="naive")
    long_q = torch.cat((q / 8**0.5, a.expand(3, -1, -1, -1)), -1)
    long_k = torch.cat((k, b.expand(3, -1, -1, -1)), -1)
    for backend in EAGER_BACKENDS:
        factored = attend(long_q, long_k, v, None, backend=backend, scale=1.0)
        torch.testing.assert_close(factored, whole, rtol=1e-10, atol=1e-12)


def test_the_fused_attention_of_a_cpu_stores_no_scores_for_narrow_values() -> None:
    """PyTorch's falls back to storing them where values are narrower than queries; ours does not.

    32 windows of 1024 tokens: the scores of one head are 128 MiB; all tensors together are 12.
    """
    q = torch.randn(32, 1, 1024, 32)
    v = torch.randn(32, 1, 1024, 16)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        attend(q, q, v, None, backend="sdpa", scale=1.0)
    taken = max(event.cpu_memory_usage for event in profile.key_averages())
    assert taken < 32 * 2**20


def test_auto_says_which_and_why_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line per kind of task, however many windows and calls."""
    backends._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="escsr"), torch.no_grad():
        for windows in (3, 5, 3):
            q, k, v, bias = parts("a bias", torch.float32, windows=windows)
            attend(q, k, v, bias, backend="auto")
    [told] = caplog.messages
    assert told.startswith("Attention on cpu, float32, 2 heads of 8 channels, 16 tokens: sdpa; ")


def test_auto_trains_in_chunks_where_the_bias_learns_on_a_cpu() -> None:
    """And nowhere else: benchmarks/2026-11-21-attention-shapes.json."""
    chosen = {
        (device, has_bias, needs_gradient): choose_backend(
            device, has_bias=has_bias, needs_gradient=needs_gradient
        )[0]
        for device in ("cpu", "cuda", "mps")
        for has_bias in (True, False)
        for needs_gradient in (True, False)
    }
    assert {task for task, name in chosen.items() if name == "chunked"} == {("cpu", True, True)}
    assert set(chosen.values()) == {"chunked", "sdpa"}


def test_a_back_end_that_cannot_run_says_why_and_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler, say; what needs none is there all the same."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    flex_obstacle.cache_clear()
    try:
        reasons = available_backends("cpu")
        assert {name for name, reason in reasons.items() if reason} == {"flex", "triton"}
        with pytest.raises(ConfigurationError, match=r"flex cannot run here.*Use one of naive, sd"):
            require_available("flex", torch.device("cpu"))
        q, k, v = (part.detach() for part in parts("no bias", torch.float32))
        with pytest.raises(ConfigurationError, match="flex cannot run here"):
            attend(q, k, v, None, backend="flex")
        attend(q, k, v, None, backend="auto")
    finally:
        flex_obstacle.cache_clear()


def test_no_flex_on_an_apple_gpu() -> None:
    """Named, not tried."""
    assert available_backends("mps")["flex"] == "PyTorch's flex attention does not run on mps"


def test_flashbias_is_refused_where_a_bias_still_learns() -> None:
    """With the way to have it."""
    with pytest.raises(ConfigurationError, match="Upscaler"):
        require_backend("flashbias")  # pyright: ignore[reportArgumentType]


def test_an_unknown_back_end_is_no_option_of_a_folded_copy() -> None:
    """The names there are, flashbias among them."""
    with pytest.raises(ConfigurationError, match=r"'flash'; allowed are naive, .*flashbias"):
        require_available("flash", torch.device("cpu"))  # pyright: ignore[reportArgumentType]
