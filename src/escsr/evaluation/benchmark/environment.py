"""The machine and the software that a measurement holds for."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import escsr
from escsr.evaluation.benchmark.record import Conditions
from escsr.version import __version__

_PACKAGES = ("spandrel", "openvino", "triton", "numpy")
"""Whose versions are told where they are installed, beside torch's."""


def describe_environment(conditions: Conditions) -> dict[str, Any]:
    """Everything but the conditions, as plain JSON values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "escsr": __version__,
        "git_revision": git_revision(),
        "torch": torch.__version__,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": _num_cores(),
        "memory_bytes": _memory_bytes(),
        "gpu": _gpu(conditions.device),
        "switches": {
            "tf32": conditions.tf32,
            "cudnn_benchmark": True,
            "inference_mode": True,
        },
    }


def processor_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = list[str]()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def git_revision() -> str | None:
    """Of the working tree that the package lies in, with ``+`` where it has changes; else None."""
    package = Path(escsr.__file__).resolve().parent
    top = _git(package, ["rev-parse", "--show-toplevel"])
    # A package in an environment inside someone's repository is no part of that.
    if top is None or package != Path(top).resolve() / "src" / "escsr":
        return None
    revision = _git(package, ["rev-parse", "--short=12", "HEAD"])
    changes = _git(package, ["status", "--porcelain", "--untracked-files=no"])
    return None if revision is None else revision + ("+" if changes else "")


def _git(folder: Path, arguments: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _num_cores() -> int | None:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_bytes() -> int | None:
    names: Any = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu(device: str) -> dict[str, Any] | None:
    if not device.startswith("cuda"):
        return None
    properties = torch.cuda.get_device_properties(torch.device(device))
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
