"""``escsr train`` in processes of its own, on the smallest recipe and real files."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.training.runs import RECIPE

TRAIN = ("-m", "escsr", "train")


def write_recipe(path: Path, values: Mapping[str, Any] = RECIPE) -> Path:
    """A recipe as a file, the smallest unless given."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines))
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(list(value) if isinstance(value, tuple) else value)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start Python with some arguments, on one core."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end: status, stdout, stderr."""
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has logged so many steps."""
    _wait_until(lambda: _rows(out) >= count, process)


def _wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened in 240 s"
        time.sleep(0.005)


def _rows(out: Path) -> int:
    path = out / "log.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return max(0, len(list(csv.reader(file))) - 1)
