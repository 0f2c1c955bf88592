"""Whole networks on a GPU, by every way to run them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from gpu.subjects import Plan, measure, ratios, switches
from torch import Tensor, nn

from escsr.engines.folding import fold
from escsr.engines.published import as_published
from escsr.family.configuration import ESCConfig
from escsr.family.variants import variant
from escsr.model.attention.backends import FoldedBackend, available_backends
from escsr.model.attention.cuda_graphs import GraphedNetwork
from escsr.model.network import ESC

NAMES = ("esc", "esc-light", "esc-fp")
FOLDED: tuple[FoldedBackend, ...] = ("naive", "sdpa", "flex", "triton")


def network_times(plan: Plan) -> dict[str, Any]:
    """Latency and memory of the variants: the reference, eager, and CUDA graphs."""
    told: dict[str, Any] = {}
    for name in NAMES[:1] if plan.is_smoke else NAMES:
        for scale in plan.scales:
            network = random_network(plan, name, scale)
            for precision in plan.precisions:
                told[f"{name} x{scale}, {precision}"] = _times(plan, network, scale, precision)
    return told


def _times(plan: Plan, network: ESC, scale: int, precision: str) -> dict[str, Any]:
    with switches(precision) as dtype:
        lr_image = torch.rand(1, 3, *plan.lr_size(scale), device=plan.device).to(dtype)
        published = as_published(network).to(plan.device, dtype)
        runs: dict[str, Callable[[], Any]] = {"reference": lambda: published(lr_image)}
        in_order = lr_image.contiguous(memory_format=torch.channels_last)
        for backend in possible(plan):
            folded = folded_network(plan, network, backend, dtype)
            runs[f"{backend}, eager"] = lambda folded=folded: folded(in_order)
            if plan.device.type == "cuda" and backend != "naive":
                graphed = GraphedNetwork(folded)
                runs[f"{backend}, CUDA graph"] = lambda graphed=graphed: graphed(in_order)
        results = measure(runs, plan)
    for name, result in results.items():
        if name.endswith("CUDA graph"):
            # What a graph works in is held all the time, so it is not among what a run allocates.
            result["peak_memory_bytes"] = None
    told = {"results": results, "than_reference": ratios(results, "reference")}
    return told | {"than_flex": ratios(results, "flex, eager")}


def synchronisation(plan: Plan) -> dict[str, str]:
    """Whether a folded forward makes the host wait, by network and back-end."""
    told = {}
    for name in (*NAMES, "esc-real"):
        network = random_network(plan, name, 4)
        for backend in possible(plan):
            folded = folded_network(plan, network, backend, torch.float32)
            lr_image = torch.rand(1, 3, *plan.lr_size(4), device=plan.device)
            folded(lr_image)
            told[f"{name}, {backend}"] = _wait_of(folded, lr_image)
        if plan.is_smoke:
            break
    return told


def _wait_of(folded: nn.Module, lr_image: Tensor) -> str:
    if lr_image.device.type != "cuda":
        return "not asked: no CUDA"
    torch.cuda.set_sync_debug_mode("error")
    try:
        folded(lr_image)
    except RuntimeError as error:
        return f"waits: {error}"[:300]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "never waits"


def random_network(plan: Plan, name: str, scale: int) -> ESC:
    """A variant with random weights; in a smoke test one that is hardly there."""
    if plan.is_smoke:
        return ESC(
            ESCConfig(
                scale=scale,
                dim=8,
                pdim=4,
                num_blocks=1,
                num_conv_layers=1,
                window_size=8,
                num_heads=2,
                large_kernel_size=5,
            )
        ).eval()
    return ESC(variant(name, scale=scale)).eval()


def folded_network(
    plan: Plan, network: ESC, backend: FoldedBackend, dtype: torch.dtype
) -> nn.Module:
    """A folded copy with an attention back-end, in channels_last."""
    folded = copy.deepcopy(fold(network, attention_backend=backend)).to(plan.device, dtype)
    return folded.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def possible(plan: Plan) -> list[FoldedBackend]:
    """The attention back-ends to be measured that run here."""
    reasons = available_backends(plan.device)
    chosen = ("sdpa", "triton") if plan.is_smoke else FOLDED
    return [name for name in chosen if reasons[name] is None]
