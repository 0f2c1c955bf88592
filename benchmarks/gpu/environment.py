"""What a record must tell of the machine; and the suite's own GPU tests."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gpu.subjects import Plan

_ROOT = Path(__file__).parents[2]
_TEST_SECONDS = 400


def environment(plan: Plan) -> dict[str, Any]:
    """Device, versions and switches."""
    told: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": platform.machine(),
        "is_smoke": plan.is_smoke,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "is_interpreted": os.environ.get("TRITON_INTERPRET") == "1",
        "cuda": torch.version.cuda,
        "switches_at_start": {
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
        },
        "revision": _said(["git", "rev-parse", "HEAD"]),
    }
    if plan.device.type == "cuda":
        properties = torch.cuda.get_device_properties(plan.device)
        told |= {
            "device": properties.name,
            "capability": list(torch.cuda.get_device_capability(plan.device)),
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cudnn": torch.backends.cudnn.version(),
            "driver_and_clocks": _said(
                [
                    "nvidia-smi",
                    "--query-gpu=driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit",
                    "--format=csv,noheader",
                ]
            ),
        }
    return told


def run_gpu_tests(plan: Plan) -> dict[str, Any]:
    """The suite's tests that need a GPU, in a process of their own, and how they ended."""
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if plan.is_smoke else []
    try:
        finished = subprocess.run(
            [*command, "tests/model", "tests/engines", "tests/upscaling"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=_TEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"stopped": f"after {_TEST_SECONDS} seconds"}
    if finished.returncode != 0:
        print(finished.stdout[-8000:], finished.stderr[-2000:])
    return {
        "exit_status": finished.returncode,
        "last_lines": finished.stdout.splitlines()[-30:],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(command: list[str]) -> str | None:
    """What a program prints; None where there is no such program or it fails."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT)
    except OSError:
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None
