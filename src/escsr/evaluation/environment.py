"""The machine and the software that a measurement holds for."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import escsr
from escsr.machine import usable_cores
from escsr.version import __version__

_PACKAGES = ("spandrel", "openvino", "triton", "numpy")
"""Packages whose versions are recorded if installed, beside torch's."""


def describe_software() -> dict[str, str | None]:
    """Versions, system and date, as plain JSON values; torch is None where it was not needed."""
    torch = sys.modules.get("torch")
    return {
        "escsr": __version__,
        "torch": None if torch is None else torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_environment(*, device: str, tf32: bool) -> dict[str, Any]:
    """The machine and the software of a benchmark, as plain JSON values."""
    import torch

    return {
        **describe_software(),
        "git_revision": git_revision(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "gpu": _gpu(device),
        "switches": {"tf32": tf32, "cudnn_benchmark": True, "inference_mode": True},
    }


def device_name(device: str) -> str:
    """``cpu``, or the name of the GPU."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


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


def _memory_bytes() -> int | None:
    names: Any = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu(device: str) -> dict[str, Any] | None:
    if not device.startswith("cuda"):
        return None
    import torch

    properties = torch.cuda.get_device_properties(torch.device(device))
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
