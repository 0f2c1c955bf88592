"""What the tests of this folder share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def taken_memory() -> dict[str, list[dict[str, Any]]]:
    """What enlarging takes of processes of its own; they share one start of the libraries."""
    if sys.platform != "linux":
        pytest.skip("measures a process as Linux does")
    done = subprocess.run(
        [sys.executable, "-m", "tests.upscaling.measured_memory"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
