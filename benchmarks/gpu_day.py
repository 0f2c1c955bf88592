"""Everything to be measured on a CUDA GPU about attention and whole networks, in one command.

    python benchmarks/gpu_day.py --out benchmarks/DATE-DEVICE.json
    TRITON_INTERPRET=1 python benchmarks/gpu_day.py --device cpu --smoke --out smoke.json

The package must be importable (installed, or ``PYTHONPATH=src``), with what it needs to run.

In this order: ``tests`` (the suite's GPU part), ``correctness`` (every attention back-end and
precision against naive float64), ``synchronisation`` (does a folded forward wait on the host?),
``networks`` (ESC, ESC-light, ESC-FP at x2, x3, x4 by every way to run them), ``attention`` (one
layer at the same sizes), ``launches`` (ways to cut the Triton kernel), ``profile`` (where the time
goes, beside the device's own ceilings). ``--parts`` names some of them. The record is written after
each part, into what the file holds already, and a part that fails leaves the others alone: its
error is in the record and the exit status is 1. So it is where a part tells of failed tests, or of
results that are wrong. ``--smoke`` runs tiny sizes, on a CPU too, to see
that all of this works; its figures mean nothing.
"""

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu.attention import correctness, launches, layer_times
from gpu.environment import environment, run_gpu_tests
from gpu.networks import network_times, synchronisation
from gpu.profile import profile
from gpu.subjects import Plan

PARTS: dict[str, Callable[[Plan], Any]] = {
    "tests": run_gpu_tests,
    "correctness": correctness,
    "synchronisation": synchronisation,
    "networks": network_times,
    "attention": layer_times,
    "launches": launches,
    "profile": profile,
}


def main() -> int:
    """Run the parts, and write after each."""
    arguments = _arguments()
    logging.basicConfig(level=logging.WARNING)
    torch.manual_seed(0)
    plan = Plan(device=torch.device(arguments.device), is_smoke=arguments.smoke)
    record: dict[str, Any] = {}
    if arguments.out.exists():
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
    record["environment"] = environment(plan)
    failed = []
    for name in arguments.parts:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        if not _run(name, plan, record):
            failed.append(name)
        record.setdefault("seconds", {})[name] = round(time.perf_counter() - started, 1)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written: {arguments.out}; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _run(name: str, plan: Plan, record: dict[str, Any]) -> bool:
    try:
        with torch.inference_mode():
            record[name] = PARTS[name](plan)
    # Time on a GPU is scarce: whatever goes wrong in one part, the others are to be measured.
    except Exception as error:
        traceback.print_exc()
        record[name] = {"failed": f"{type(error).__name__}: {error}"}
        return False
    print(json.dumps(record[name], indent=1)[:6000], flush=True)
    return not _tells_of_failure(record[name])


def _tells_of_failure(told: dict[str, Any]) -> bool:
    """Whether tests failed or were stopped, or results are wrong; not what a back-end lacks."""
    return any(told.get(name) for name in ("exit_status", "stopped", "too_large_or_failed"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure on a CUDA GPU.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, meaningless figures")
    parser.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        default=list(PARTS),
        help=f"of {','.join(PARTS)}",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"--parts names {', '.join(unknown)}; allowed are {', '.join(PARTS)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
