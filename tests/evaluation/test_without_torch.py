"""``escsr evaluate`` of our own networks where torch cannot be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .pictures import write_waves

BLOCK = 'import sys\nsys.modules["torch"] = None\n'
"""Python runs it before anything else, and ``import torch`` raises from then on."""


def evaluated(folder: Path, out: Path, *options: str, path: Path | None = None) -> dict[str, Any]:
    """What the command prints as JSON, in a process of its own."""
    paths = filter(None, (str(path or ""), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "escsr", "evaluate", "esc-tiny", "bicubic", "-s", "4"]
    command += ["--data", str(folder), "--metric", "niqe", "--json", "--out", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_our_networks_are_judged_without_torch_as_with_it(tmp_path: Path) -> None:
    """Tables, NIQE, files and crops; figures equal those of PyTorch but for its rounding."""
    for number, (height, width) in enumerate([(200, 201), (211, 224)]):
        write_waves(tmp_path / "Set" / f"{number}.png", height, width, shift=number)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(BLOCK)
    without = evaluated(tmp_path / "Set", tmp_path / "a", path=blocked)
    assert (without["torch"], without["device"]) == (None, "cpu")
    assert [model["backend"] for model in without["models"]] == ["native", None]
    assert len(without["crops"]) == 2
    assert (tmp_path / "a" / without["crops"][0]["file"]).is_file()

    pytest.importorskip("torch")
    other = evaluated(tmp_path / "Set", tmp_path / "b", "--backend", "eager")
    assert [model["backend"] for model in other["models"]] == ["eager", None]
    assert other["torch"] is not None
    for ours, theirs in zip(without["images"], other["images"], strict=True):
        assert set(ours) == set(theirs) >= {"psnr_y_db", "ssim_y", "psnr_rgb_db", "niqe"}
        # A value on the edge between two levels of 8 bits may be rounded to the other.
        tolerance = 0 if ours["model"] == "bicubic" else 0.01
        for key, value in ours.items():
            expected = value if isinstance(value, str) else pytest.approx(value, abs=tolerance)
            assert theirs[key] == expected, (ours["model"], key)
