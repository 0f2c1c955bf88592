"""The golden files: what the reference implementation answered, recorded.

Small ones lie in ``tests/golden``. The large ones are read from the folder that the environment
variable ``ESCSR_GOLDEN`` names, or from ``golden`` beside the folder of ``ESCSR_DATA``; a test that
needs one skips, saying so, where there is none.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from escsr.model import ESCConfig

SMALL_GOLDEN: list[str] = [
    "esc_tiny_x2",
    "esc_tiny_x2_batch3",
    "esc_tiny_x2_weights_as_x4",
    "esc_tiny_k9_x3",
    "esc_xl_style_x2",
]
"""Always at hand, in ``tests/golden``."""

LARGE_GOLDEN: list[str] = ["esc_x4", "esc_light_x3", "esc_fp_x2", "esc_fp_x4_batch2"]
"""At hand only where an environment variable leads to them."""

GOLDEN_TOLERANCE = 2e-5
"""Of the output's largest value: another order of summation in float32 is allowed, another formula
is not. The files' own recording rounds by about 3e-6."""

_SMALL_FOLDER = Path(__file__).parent / "golden"
_FIELD_OF_ARGUMENT = {
    "upscaling_factor": "scale",
    "dim": "dim",
    "pdim": "pdim",
    "n_blocks": "num_blocks",
    "conv_blocks": "num_conv_layers",
    "window_size": "window_size",
    "num_heads": "num_heads",
    "kernel_size": "large_kernel_size",
    "exp_ratio": "expansion",
    "use_ln": "norm_in_conv_layers",
}
_FIELDS_OF_CLASS: dict[str, dict[str, Any]] = {
    "ESC": {},
    "ESCFP": {
        "first_expansion": 1.5,
        "norm_in_conv_layers": True,
        "norm_before_last_conv": True,
        "image_skip": "bicubic",
        "large_kernel": "decomposed",
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """One recording of the reference implementation, float32."""

    config: ESCConfig
    """The reference's arguments in our words."""
    reference_state: dict[str, Tensor]
    """The weights under the reference's names."""
    input: Tensor
    """(B, 3, H, W)."""
    output: Tensor
    """(B, 3, scale*H, scale*W)."""


def golden_path(name: str) -> Path | None:
    """Where a golden file lies, or None where it is not at hand."""
    folders = [_SMALL_FOLDER]
    if "ESCSR_GOLDEN" in os.environ:
        folders.append(Path(os.environ["ESCSR_GOLDEN"]))
    if "ESCSR_DATA" in os.environ:
        folders.append(Path(os.environ["ESCSR_DATA"]).parent / "golden")
    candidates = (folder / f"{name}.safetensors" for folder in folders)
    return next((path for path in candidates if path.is_file()), None)


def read_golden(name: str) -> Golden:
    """Read a golden file; skips the running test where a large one is not at hand."""
    path = golden_path(name)
    if path is None:
        pytest.skip(f"{name}.safetensors is not here; name its folder in ESCSR_GOLDEN.")
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    arguments = json.loads(header["config"])
    fields = {_FIELD_OF_ARGUMENT[name]: value for name, value in arguments.items()}
    return Golden(
        config=ESCConfig(**{**fields, **_FIELDS_OF_CLASS[header["class"]]}),
        reference_state={
            key.removeprefix("state."): value
            for key, value in tensors.items()
            if key.startswith("state.")
        },
        input=tensors["input"],
        output=tensors["output"],
    )


def relative_error(ours: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference, as a share of the largest recorded value."""
    return ((ours - recorded).abs().max() / recorded.abs().max()).item()
