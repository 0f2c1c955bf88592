"""One attention layer on a GPU: is it right, and how long does it take."""

from itertools import product
from typing import Any

import torch
from gpu.subjects import Plan, measure, ratios, switches
from torch import Tensor, nn

from escsr.engines.folding import fold
from escsr.model.attention.backends import FoldedBackend, available_backends
from escsr.model.attention.triton_attention import FLOAT_LAUNCHES, HALF_LAUNCHES, DotPrecision
from escsr.model.attention.triton_module import TritonWindowAttention
from escsr.model.position_bias import ImplicitPositionBias
from escsr.model.window_attention import WindowAttention

BACKENDS: tuple[FoldedBackend, ...] = ("naive", "sdpa", "flex", "triton")
TOLERANCE = {"float32": 2e-5, "TF32": 5e-3, "float16": 5e-3, "bfloat16": 4e-2}
"""Of the largest value, against naive attention in float64. TF32 keeps as many bits as float16;
for the others see ``tests/model/attention/test_backends.py``."""

DIM, NUM_HEADS = 64, 4
"""ESC's."""


def correctness(plan: Plan) -> dict[str, Any]:
    """Errors of every back-end, window and precision; the names of those beyond tolerance."""
    kinds = [("table", 8), ("table", 16), ("table", 24), ("table", 32), ("factors", 64)]
    errors: dict[str, Any] = {}
    too_large = []
    for position, window_size in kinds[:1] if plan.is_smoke else kinds:
        exact = layer(window_size, position=position).to(plan.device).double()
        for precision, backend in product(plan.precisions, _possible(plan)):
            name = f"{backend}, {position}, window {window_size}, {precision}"
            errors[name] = _error(exact, backend, precision)
            if not isinstance(errors[name], float) or errors[name] > TOLERANCE[precision]:
                too_large.append(name)
    return {"tolerance": TOLERANCE, "too_large_or_failed": too_large, "errors": errors}


def _error(exact: WindowAttention, backend: FoldedBackend, precision: str) -> float | str:
    device = exact.query_key_value.weight.device
    size = (2, DIM, 41, 70) if device.type == "cuda" else (1, DIM, 9, 12)
    with switches(precision) as dtype:
        features = torch.randn(size, device=device).to(dtype)
        ours = folded_layer(exact.to(dtype), backend)
        right = exact.double()(features.double())
        try:
            attended = ours(features.contiguous(memory_format=torch.channels_last))
        # What a back-end cannot do is a result too.
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:500]
    return ((attended.double() - right).abs().max() / right.abs().max()).item()


def layer_times(plan: Plan) -> dict[str, Any]:
    """One layer at ESC's sizes by every back-end, and the paper's comparison with naive."""
    told: dict[str, Any] = {}
    window_size = 8 if plan.is_smoke else 32
    exact = layer(window_size)
    for scale, precision in product(plan.scales, plan.precisions):
        with switches(precision) as dtype:
            features = _features(plan, scale, dtype)
            runs = {}
            for backend in _possible(plan):
                ours = folded_layer(exact.to(plan.device, dtype), backend)
                runs[backend] = lambda ours=ours, features=features: ours(features)
            if dtype == torch.float32 and "triton" in runs:
                ours = _with_precision(exact, "tf32x3")
                runs["triton, three TF32 products"] = lambda o=ours, f=features: o(f)
            results = measure(runs, plan)
        told[f"x{scale}, {precision}"] = {"results": results, **_compared(results)}
    return told


def _compared(results: dict[str, Any]) -> dict[str, Any]:
    return {f"than_{name}": ratios(results, name) for name in ("naive", "flex", "sdpa")}


def launches(plan: Plan) -> dict[str, Any]:
    """The Triton kernel alone, cut in all the ways listed; the fastest first."""
    if available_backends(plan.device)["triton"] is not None:
        return {"skipped": available_backends(plan.device)["triton"]}
    told: dict[str, Any] = {}
    exact = layer(8 if plan.is_smoke else 32)
    precisions: list[tuple[str, DotPrecision]] = [
        *(("float32", "ieee"), ("float32", "tf32x3"), ("float32", "tf32"), ("float16", "ieee"))
    ]
    for precision, dot_precision in precisions[-1:] if plan.is_smoke else precisions:
        with switches(precision) as dtype:
            features = _features(plan, plan.scales[0], dtype)
            runs = {}
            ways = FLOAT_LAUNCHES if dtype == torch.float32 else HALF_LAUNCHES
            for launch in ways[:1] if plan.is_smoke else ways:
                ours = _with_precision(exact.to(plan.device, dtype), dot_precision)
                ours.launch = launch
                qkv = ours.query_key_value(features)
                runs[str(launch)] = lambda ours=ours, qkv=qkv: ours.attended(qkv)
            results = measure(runs, plan)
        fastest = sorted(results, key=lambda name: results[name].get("median_ms", float("inf")))
        told[f"{precision}, {dot_precision}"] = {name: results[name] for name in fastest}
    return told


def layer(window_size: int, *, position: str = "table") -> WindowAttention:
    """A layer of ESC's width with a bias that matters."""
    factors = None
    if position == "factors":
        factors = ImplicitPositionBias(
            NUM_HEADS, window_size, rank=16, hidden_dim=32, frequencies=10
        )
    attention = WindowAttention(
        DIM, window_size=window_size, num_heads=NUM_HEADS, position_bias=factors, backend="naive"
    )
    for parameter in attention.position_bias.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.eval()


def folded_layer(exact: WindowAttention, backend: FoldedBackend) -> nn.Module:
    """A folded copy with a back-end, where and in what type the layer is."""
    copied = fold(nn.Sequential(exact), attention_backend=backend)
    return copied.to(memory_format=torch.channels_last).get_submodule("0")  # pyright: ignore[reportCallIssue]


def _with_precision(exact: WindowAttention, precision: DotPrecision) -> TritonWindowAttention:
    ours = folded_layer(exact, "triton")
    assert isinstance(ours, TritonWindowAttention)
    ours.precision = precision
    return ours


def _features(plan: Plan, scale: int, dtype: torch.dtype) -> Tensor:
    features = torch.randn(1, DIM, *plan.lr_size(scale), device=plan.device).to(dtype)
    return features.contiguous(memory_format=torch.channels_last)


def _possible(plan: Plan) -> list[FoldedBackend]:
    reasons = available_backends(plan.device)
    chosen = ("naive", "sdpa", "triton") if plan.is_smoke else BACKENDS
    return [name for name in chosen if reasons[name] is None]
