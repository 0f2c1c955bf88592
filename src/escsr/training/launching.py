"""Where a run computes: devices, processes and precision, through lightning.fabric."""

import logging
import os
from typing import Literal

import torch
from lightning_fabric import Fabric

from escsr.errors import ConfigurationError
from escsr.machine import usable_cores
from escsr.training.recipe import Recipe

DeviceKind = Literal["auto", "cpu", "cuda", "mps"]
_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


def launch(recipe: Recipe, *, device: str = "auto", processes: int = 1) -> Fabric:
    """Set up this process, alone or as one of many that train one network together (DDP).

    Each takes its share of every batch. ``torchrun`` starts them on one or more machines; without
    it, this function starts ``processes`` copies of the running command on this one. On a CPU, one
    process per core with one thread each is faster than one process with many threads.

    Args:
        recipe: gives the precision.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda" or "mps".
        processes: to start on this machine, one per GPU; torchrun's own number goes before.
    Raises:
        ConfigurationError: no such device here, more processes than devices, or float16 on a CPU,
            which has no use for it.
    """
    kind = _device_kind(device)
    if recipe.precision == "float16" and kind == "cpu":
        raise ConfigurationError(
            'precision = "float16" needs a GPU; on a CPU use "bfloat16" or "float32" '
            "(--set precision=bfloat16)."
        )
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    _require_devices(kind, processes)
    # Its notes ("Using bfloat16 ...") say what the recipe says already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=kind,
        devices=processes,
        num_nodes=nodes,
        strategy="ddp" if processes * nodes > 1 else "auto",
        precision=_PRECISIONS[recipe.precision],
    )
    fabric.launch()
    if kind == "cpu" and processes > 1:
        torch.set_num_threads(max(1, usable_cores() // processes))
    return fabric


def processes_here(fabric: Fabric) -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size))


def _device_kind(device: str) -> Literal["cpu", "cuda", "mps"]:
    present: dict[str, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(kind for kind, is_present in present.items() if is_present)
    if device not in present:
        raise ConfigurationError(
            f"The device is {device!r}; allowed are auto, {', '.join(present)}."
        )
    if not present[device]:
        raise ConfigurationError(f"This machine has no {device} device; use --device cpu.")
    return device  # pyright: ignore[reportReturnType]


def _require_devices(kind: str, processes: int) -> None:
    if processes < 1:
        raise ConfigurationError(f"{processes} processes were asked for; at least 1 is needed.")
    if kind == "cpu":
        return
    present = torch.cuda.device_count() if kind == "cuda" else 1
    if processes > present:
        raise ConfigurationError(
            f"{processes} processes were asked for, but this machine has {present} {kind} devices "
            f"for one each; use --processes {present}."
        )
