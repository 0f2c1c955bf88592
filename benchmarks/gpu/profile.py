"""Where the time goes on a GPU, beside what the device can do."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from gpu.networks import folded_network, possible, random_network
from gpu.subjects import PRECISIONS, Plan, measure, switches
from torch.profiler import ProfilerActivity

_EXP_CHAIN = 512
_CODE_OF_EXPS = """
template <typename T> T exps(T x) {
  #pragma unroll 16
  for (int i = 0; i < 512; i++) { asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x)); }
  return x;
}
"""


def profile(plan: Plan) -> dict[str, Any]:
    """The longest kernels of a forward of ESC at x2 and x4, and the device's ceilings."""
    told: dict[str, Any] = {"ceilings": ceilings(plan)}
    backend = "triton" if "triton" in possible(plan) else "sdpa"
    for scale in (plan.scales[0], plan.scales[-1]):
        network = random_network(plan, "esc", scale)
        for precision in ("float32", "float16"):
            with switches(precision) as dtype:
                folded = folded_network(plan, network, backend, dtype)
                lr_image = torch.rand(1, 3, *plan.lr_size(scale), device=plan.device).to(dtype)
                told[f"esc x{scale}, {precision}, {backend}"] = _kernels(plan, folded, lr_image)
    return told


def _kernels(plan: Plan, folded: Any, lr_image: torch.Tensor) -> dict[str, Any]:
    """Milliseconds per forward of the kernels that take longest, and the sum of all."""
    on_cuda = plan.device.type == "cuda"
    runs = 1 if plan.is_smoke else 10
    lr_image = lr_image.contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        folded(lr_image)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_cuda else [])
    with torch.profiler.profile(activities=activities) as profiled:
        for _ in range(runs):
            folded(lr_image)
        if on_cuda:
            torch.cuda.synchronize()
    totals: dict[str, tuple[float, int]] = {}
    for event in profiled.key_averages():
        spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        # An operator's own time on the device is that of its kernels, which are listed themselves.
        if spent and (not on_cuda or str(event.device_type).endswith("CUDA")):
            totals[event.key[:120]] = (spent / 1000 / runs, event.count // runs)
    whole = sum(spent for spent, _ in totals.values())
    longest = sorted(totals.items(), key=lambda item: -item[1][0])[:20]
    return {
        "sum_ms": round(whole, 4),
        "launches": sum(count for _, count in totals.values()),
        "longest": [
            {"kernel": name, "ms": round(ms, 4), "share": round(ms / whole, 3), "launches": count}
            for name, (ms, count) in longest
        ],
    }


@functools.cache
def _exps() -> Callable[[torch.Tensor], torch.Tensor]:
    """Takes many exponentials of each number, one after another."""
    return torch.cuda.jiterator._create_jit_fn(_CODE_OF_EXPS)


def ceilings(plan: Plan) -> dict[str, Any]:
    """Measured rates: matrix products, copies, exponentials."""
    side, length = (64, 2**12) if plan.is_smoke else (8192, 2**28)
    told: dict[str, Any] = {}
    for precision in plan.precisions:
        with switches(precision):
            a = torch.randn(side, side, device=plan.device).to(PRECISIONS[precision])
            result = measure({"product": lambda a=a: a @ a}, plan)["product"]
        if "median_ms" in result:
            told[f"matrix_tflops, {precision}"] = 2 * side**3 / result["median_ms"] / 1e9
    source = torch.zeros(length, dtype=torch.float32, device=plan.device)
    target = torch.empty_like(source)
    result = measure({"copy": lambda: target.copy_(source)}, plan)["copy"]
    told["copy_gb_per_second"] = 2 * 4 * length / result["median_ms"] / 1e6
    if plan.device.type == "cuda":
        few = torch.rand(2**24, device=plan.device)
        result = measure({"exps": lambda: _exps()(few)}, plan)["exps"]
        if "median_ms" in result:
            told["tera_exps_per_second"] = _EXP_CHAIN * few.numel() / result["median_ms"] / 1e9
        told["exps"] = result
    return told
