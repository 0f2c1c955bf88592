"""Attention in cached pieces: the naive one's results and gradients, and no more memory."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from escsr.model.attention import chunked
from escsr.model.attention.backends import attend


def parts(windows: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """q, k, v (windows, 2, 9, 4) with means far from 0, bias (2, 9, 9); all need gradients."""
    generator = torch.Generator().manual_seed(windows)
    shapes = (*[(windows, 2, 9, 4)] * 3, (2, 9, 9))
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return tuple((part + number).to(dtype).requires_grad_() for number, part in enumerate(drawn))


def with_common_part() -> tuple[Tensor, ...]:
    """As ``parts(4)``; the keys are near 20 and the values near 100."""
    q, k, v, bias = parts(4)
    return q, k + 20, v + 100, bias


def with_gradients(backend: str, given: tuple[Tensor, ...]) -> list[Tensor]:
    """The result, and the gradients of a weighted sum of it by q, k, v and the bias.

    The weights have 8 significant bits: they are the same numbers in every precision.
    """
    result = attend(*given, backend=backend)  # pyright: ignore[reportArgumentType]
    weights = torch.linspace(-1, 2, result.numel()).to(torch.bfloat16).to(result.dtype)
    weighted = result * weights.reshape(result.shape)
    return [result.detach(), *torch.autograd.grad(weighted.sum(), given)]


@pytest.mark.parametrize("windows", [1, 3, 4, 7])
@pytest.mark.parametrize("largest_kept_bytes", [0, 2**30], ids=["made again", "kept"])
def test_results_and_gradients_are_those_of_naive(
    windows: int, largest_kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole pieces and a rest, with probabilities kept for the gradient or made again: float64."""
    monkeypatch.setattr(chunked, "SCORES_PER_PIECE", 2 * 2 * 81)  # two windows
    monkeypatch.setattr(chunked, "LARGEST_KEPT_BYTES", largest_kept_bytes)
    given = parts(windows)
    pairs = zip(with_gradients("chunked", given), with_gradients("naive", given), strict=True)
    for ours, exact in pairs:
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-12)


def test_half_precision_is_rounded_at_the_end_alone() -> None:
    """Given bfloat16, the result and every gradient are the exact ones, rounded once.

    Keys and values have a large common part, as in trained networks. To nearest, 8 significant bits
    are wrong by 2^-9 of a number; float32, in between, by thousands of times less.
    """
    given = tuple(part.detach().to(torch.bfloat16).requires_grad_() for part in with_common_part())
    exact_given = tuple(part.detach().double().requires_grad_() for part in given)
    exact = with_gradients("naive", exact_given)
    for ours, right in zip(with_gradients("chunked", given), exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert float((ours - right).norm() / right.norm()) < 1.01 * 2**-9


def test_fused_attention_in_bfloat16_keeps_a_gradient_that_the_naive_one_loses() -> None:
    """What keys and values have in common leaves its rounding behind, unless it is taken off first.

    Values of 100 are stored to 0.5, so that a naive score's gradient, made of differences of 1, is
    mere rounding: more error than gradient. Fused attention works on what is left of them.
    """
    given = tuple(part.detach().to(torch.bfloat16).requires_grad_() for part in with_common_part())
    exact = with_gradients(
        "naive", tuple(part.detach().double().requires_grad_() for part in given)
    )
    errors = {
        backend: float((with_gradients(backend, given)[1] - exact[1]).norm() / exact[1].norm())
        for backend in ("sdpa", "naive")
    }
    assert errors["sdpa"] < 1 < errors["naive"]


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    """Inference on a large image must not hold the probabilities of all windows."""
    with torch.no_grad():
        result = attend(*parts(2), backend="chunked")
    assert result.grad_fn is None


# The compiler looks at .grad of every tensor that goes on behind a graph's end.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_network_leaves_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few operations however many pieces there are, and the gradients of the network as it is."""
    monkeypatch.setattr(chunked, "SCORES_PER_PIECE", 2 * 81)  # one window
    num_operations: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        num_operations.append(len(graph.graph.nodes))
        return graph

    torch.compiler.reset()
    attend_compiled = torch.compile(attend, backend=count)  # pyright: ignore[reportArgumentType]
    given = parts(50)
    results: list[list[Tensor]] = []
    for run in (attend_compiled, attend):
        result = run(*given, backend="chunked")
        results.append([result, *torch.autograd.grad(result.square().sum(), given)])
    torch.compiler.reset()
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-12)
    # 50 pieces of four operations would be 200.
    assert 0 < sum(num_operations) < 60


def test_importing_the_network_does_not_load_the_compiler() -> None:
    """torch._dynamo takes longer than torch itself."""
    program = "import sys, escsr.model; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
