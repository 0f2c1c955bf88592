"""Devices, processes and precision of a run, through lightning.fabric."""

import logging
import os
import platform
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric

from escsr.errors import ConfigurationError
from escsr.machine import usable_cores
from escsr.training.recipe import Recipe

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
_X86_BFLOAT16 = {"avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX_BF16"}
"""Instructions of x86 processors that multiply in bfloat16: our name, and the usual one."""
_ISA_WITHOUT_BFLOAT16 = frozenset(
    ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")
)
"""Values of ONEDNN_MAX_CPU_ISA that keep oneDNN from those instructions; it emulates them then."""
_CUDA_BFLOAT16 = (8, 0)
"""Compute capability from which CUDA devices multiply in bfloat16."""


def with_precision(recipe: Recipe, *, device: str = "auto") -> tuple[Recipe, str]:
    """Decide in which precision a recipe is computed here; "auto" becomes "bfloat16" or "float32".

    bfloat16 is taken where the processor multiplies in it: AVX512_BF16 or AMX, BF16 of ARM where
    PyTorch has oneDNN, CUDA from compute capability 8.0. Elsewhere it is emulated, and several
    times slower than float32.

    Args:
        recipe: as it was read.
        device: as ``launch`` takes it.
    Returns:
        The recipe with the precision that is used, and a sentence that says which and why.
    Raises:
        ConfigurationError: no such device here.
    """
    kind = _device_kind(device)
    if recipe.precision != "auto":
        return recipe, f"Computing in {recipe.precision} on {kind}, as the recipe says."
    multiplies, reason = multiplies_in_bfloat16(kind)
    precision = "bfloat16" if multiplies else "float32"
    resolved = recipe.model_copy(update={"precision": precision})
    return resolved, f"Computing in {precision} on {kind}: {reason}."


def multiplies_in_bfloat16(kind: str) -> tuple[bool, str]:
    """Whether the processors of a kind multiply in bfloat16 here, and why, a clause for a log.

    Args:
        kind: "cpu", "cuda" or "mps".
    """
    if kind == "cpu":
        return _cpu_multiplies_in_bfloat16()
    if kind == "mps":
        return False, "bfloat16 has not been measured on this kind of device"
    capability = min(map(torch.cuda.get_device_capability, range(torch.cuda.device_count())))
    name = f"compute capability {capability[0]}.{capability[1]}"
    if capability < _CUDA_BFLOAT16:
        return False, f"the GPU does not multiply in bfloat16 ({name}, needed is 8.0)"
    return True, f"the GPU multiplies in bfloat16 ({name})"


def _cpu_multiplies_in_bfloat16() -> tuple[bool, str]:
    features = _processor_features()
    is_x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "x86")
    names = _X86_BFLOAT16 if is_x86 else {"bf16": "BF16"}
    found = next((name for feature, name in names.items() if feature in features), None)
    if found is None:
        missing = " nor ".join(names.values())
        return False, f"the processor does not multiply in bfloat16 (no {missing})"
    if not torch.backends.mkldnn.is_available():
        return False, f"this PyTorch lacks oneDNN, which would use the processor's {found}"
    limit = _limit_below_bfloat16() if is_x86 else None
    if limit is not None:
        return False, f"{limit} keeps PyTorch from the processor's {found}"
    return True, f"the processor multiplies in bfloat16 ({found})"


def _limit_below_bfloat16() -> str | None:
    """What keeps oneDNN or PyTorch below AVX512_BF16 though the processor has it; None for nothing.

    PyTorch itself needs no bfloat16 products; a user who limits it asks for a lesser processor.
    """
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):  # the latter is the older name
        value = os.environ.get(variable, "")
        if value.lower() in _ISA_WITHOUT_BFLOAT16:
            return f"{variable}={value}"
    capability = torch.backends.cpu.get_cpu_capability()
    return None if capability.startswith("AVX512") else f"ATEN_CPU_CAPABILITY ({capability})"


def _processor_features() -> set[str]:
    """What the processor can do as far as PyTorch or Linux says it, such as "avx512_bf16"."""
    features: set[str] = set()
    if hasattr(torch.cpu, "get_capabilities"):  # from torch 2.11 or so
        features |= {name for name, value in torch.cpu.get_capabilities().items() if value is True}
    asks = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    for feature, name in asks.items():
        ask = getattr(torch.cpu, name, None)
        if ask is not None and ask():
            features.add(feature)
    if not features:
        features |= _features_of_linux(Path("/proc/cpuinfo"))
    return features


def _features_of_linux(cpuinfo: Path) -> set[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    stated = (line.partition(":") for line in lines)
    return next(
        (set(value.split()) for key, _, value in stated if key.strip() in ("flags", "Features")),
        set(),
    )


def launch(recipe: Recipe, *, device: str = "auto", processes: int = 1) -> Fabric:
    """Set up this process, alone or as one of many that train one network together (DDP).

    Each takes its share of every batch. ``torchrun`` starts them on one or more machines; without
    it, this function starts ``processes`` copies of the running command on this one. On a CPU, one
    process per core with one thread each is faster than one process with many threads.

    Args:
        recipe: gives the precision; "auto" is resolved as ``with_precision`` does.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda" or "mps".
        processes: to start on this machine, one per GPU; torchrun's own number goes before.
    Raises:
        ConfigurationError: no such device here, more processes than devices, or float16 on a CPU,
            which has no use for it.
    """
    kind = _device_kind(device)
    if recipe.precision == "float16" and kind == "cpu":
        raise ConfigurationError(
            'precision = "float16" needs a GPU; on a CPU use "auto", "bfloat16" or "float32" '
            "(--set precision=auto)."
        )
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    _require_devices(kind, processes)
    recipe, _ = with_precision(recipe, device=kind)
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
