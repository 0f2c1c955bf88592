"""The golden files: what the reference implementation answered, recorded.

Small ones lie in ``tests/golden``. The large ones are read from the folder that the environment
variable ``ESCSR_GOLDEN`` names, or from ``golden`` beside the folder of ``ESCSR_DATA``; a test that
needs one skips, saying so, where there is none.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open

from escsr.family import ESCConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
Values = TypeVar("Values", "Tensor", Floats)

SMALL_GOLDEN: list[str] = [
    "esc_tiny_x2",
    "esc_tiny_x2_batch3",
    "esc_tiny_x2_weights_as_x4",
    "esc_tiny_k9_x3",
    "esc_xl_style_x2",
    "esc_real_dysample_x4",
    "esc_real_m_dysample_x2",
    "esc_real_m_dysample_x4",
    "esc_real_m_nearest_conv_x1",
    "esc_real_m_nearest_conv_x3",
    "esc_real_m_nearest_conv_x4",
    "esc_real_m_pixelshuffle_x2",
    "esc_real_m_pixelshuffle_x3",
    "esc_real_m_pixelshuffledirect_x3",
    "esc_real_m3_lda_x2",
    "esc_real_m3_pa_up_x2",
    "esc_real_m3_transpose_conv_x2_unshuffle",
    "esc_real_m3_transpose_conv_x3",
    "esc_real_m3_transpose_conv_x4",
    "esc_rib_strong_x2",
    "esc_lte_tiny_x2.5",
]
"""Always at hand, in ``tests/golden``."""

LARGE_GOLDEN: list[str] = ["esc_x4", "esc_light_x3", "esc_fp_x2", "esc_fp_x4_batch2", "esc_real_x4"]
"""At hand only where an environment variable leads to them."""

ATTENTION_GOLDEN: list[str] = [
    "esc_tiny_x2_batch3",
    "esc_xl_style_x2",
    "esc_real_m_nearest_conv_x4",
    "esc_rib_strong_x2",
]
"""One of each shape that attention has in the small ones: windows of 16, 24 and 32, heads of 8 and
16 channels, a table and factors, a gate; the first is a batch. A way to compute attention sees no
more of a network than that."""

GOLDEN_TOLERANCE = 2e-5
"""Of the output's largest value: another order of summation in float32 is allowed, another formula
is not. The files' own recording rounds by about 3e-6."""

LTE_TOLERANCE = 5e-5
"""The same for ESC+LTE, whose recording rounds by 1.2e-5."""

_SMALL_FOLDER = Path(__file__).parent / "golden"
_FIELD_OF_ARGUMENT = {
    "upscaling_factor": "scale",
    "scale": "scale",
    "mid_dim": "upsampler_dim",
    "dim": "dim",
    "pdim": "pdim",
    "n_blocks": "num_blocks",
    "conv_blocks": "num_conv_layers",
    "window_size": "window_size",
    "num_heads": "num_heads",
    "kernel_size": "large_kernel_size",
    "exp_ratio": "expansion",
    "use_ln": "norm_in_conv_layers",
    "rank": "position_rank",
    "rib_hidden_dim": "position_hidden_dim",
    "rib_n_freqs": "position_frequencies",
}
_OF_REAL = {"norm_in_conv_layers": True, "image_skip": "none", "feature_skip": True}
_KINDS_OF_REAL_M = {"nearest+conv": "conv+nearest"}
"""The reference calls two kinds by one name."""
_FIELDS_OF_CLASS: dict[str, dict[str, Any]] = {
    "ESC": {},
    "ESCFP": {
        "first_expansion": 1.5,
        "norm_in_conv_layers": True,
        "norm_before_last_conv": True,
        "image_skip": "bicubic",
        "large_kernel": "decomposed",
    },
    "ESCReal": {**_OF_REAL, "upsampler": "nearest+conv"},
    "ESCRealM": _OF_REAL,
    "ESCRIB": {
        "first_expansion": 4.0,
        "norm_before_last_conv": True,
        "position_bias": "implicit",
        "attention_gate": True,
    },
    "LTE": {"upsampler": "lte", "image_skip": "none"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden(Generic[Values]):
    """One recording of the reference implementation, float32: in tensors, or in arrays."""

    config: ESCConfig
    """The reference's arguments in our words."""
    reference_state: dict[str, Values]
    """The weights under the reference's names."""
    input: Values
    """(B, 3, H, W)."""
    output: Values
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


def read_golden(name: str) -> "Golden[Tensor]":
    """Read a golden file; skips the running test where a large one is not at hand."""
    return _read(name, "pt")


def read_golden_arrays(name: str) -> Golden[Floats]:
    """The same without torch."""
    return _read(name, "np")


def _read(name: str, framework: str) -> Golden[Any]:
    path = golden_path(name)
    if path is None:
        pytest.skip(f"{name}.safetensors is not here; name its folder in ESCSR_GOLDEN.")
    with safe_open(path, framework) as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    fields = _fields_of(header["class"], json.loads(header["config"]))
    return Golden(
        config=ESCConfig(**{**_FIELDS_OF_CLASS[header["class"]], **fields}),
        reference_state={
            key.removeprefix("state."): value
            for key, value in tensors.items()
            if key.startswith("state.")
        },
        input=tensors["input"],
        output=tensors["output"],
    )


def _fields_of(class_name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The reference's arguments as fields of our configuration."""
    if class_name == "LTE":
        widths = arguments["mlp_hidden"]
        body = _fields_of("ESC", arguments["encoder"])
        texture = {"texture_dim": arguments["hidden_dim"], "texture_mlp_dim": widths[0]}
        return {**body, **texture, "texture_mlp_layers": len(widths)}
    if arguments.pop("gate_type", "DWC") != "DWC":
        raise ValueError("only the depthwise gate is published")
    fields = {}
    if arguments.pop("use_dysample", False):
        fields = {"upsampler": "dysample", "upsampler_dim": arguments["dim"]}
    if "upsampler" in arguments:
        kind = arguments.pop("upsampler")
        # Of traiNNer-redux, whose arguments have other names.
        scale = arguments.get("upscaling_factor") or arguments["scale"]
        fields["upsampler"] = _KINDS_OF_REAL_M.get(kind, kind)
        is_unshuffled = arguments.pop("unshuffle_mod", True) and scale < 3
        fields["unshuffle"] = 4 // scale if is_unshuffled else 1
    return {**fields, **{_FIELD_OF_ARGUMENT[name]: value for name, value in arguments.items()}}


def relative_error(ours: Values, recorded: Values) -> float:
    """Largest absolute difference, as a share of the largest recorded value."""
    return (abs(ours - recorded).max() / abs(recorded).max()).item()


def answer(network: "nn.Module", golden: "Golden[Tensor]") -> "Tensor":
    """The output as it was recorded: ESC+LTE's between normalisation and its inverse."""
    if not golden.config.is_arbitrary_scale:
        return network(golden.input)
    image = network(golden.input * 0.5 + 0.5, tuple(golden.output.shape[-2:]))
    return (image - 0.5) / 0.5


def tolerance(golden: Golden[Any]) -> float:
    """Of the largest value: ESC+LTE's recording itself carries 1.2e-5 of rounding."""
    return LTE_TOLERANCE if golden.config.is_arbitrary_scale else GOLDEN_TOLERANCE
