"""Weights: stored, recognised, loaded, converted.

Reading and recognising them needs no torch; what does is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escsr.weights.box import BundledModel, bundled_models
    from escsr.weights.header import Provenance, WeightsHeader, read_header
    from escsr.weights.inspection import CheckpointReport, inspect_checkpoint
    from escsr.weights.loading import find_weights, load_model, open_network
    from escsr.weights.official import to_ours, to_reference
    from escsr.weights.recognition import infer_config
    from escsr.weights.rescaling import convert_scale, convert_scale_of_state
    from escsr.weights.store import (
        load_weights,
        save_reference_weights,
        save_state,
        save_weights,
    )

__all__ = [
    "BundledModel",
    "CheckpointReport",
    "Provenance",
    "WeightsHeader",
    "bundled_models",
    "convert_scale",
    "convert_scale_of_state",
    "find_weights",
    "infer_config",
    "inspect_checkpoint",
    "load_model",
    "load_weights",
    "open_network",
    "read_header",
    "save_reference_weights",
    "save_state",
    "save_weights",
    "to_ours",
    "to_reference",
]

_MODULES = {
    "box": ("BundledModel", "bundled_models"),
    "header": ("Provenance", "WeightsHeader", "read_header"),
    "inspection": ("CheckpointReport", "inspect_checkpoint"),
    "loading": ("find_weights", "load_model", "open_network"),
    "official": ("to_ours", "to_reference"),
    "recognition": ("infer_config",),
    "rescaling": ("convert_scale", "convert_scale_of_state"),
    "store": ("load_weights", "save_reference_weights", "save_state", "save_weights"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'escsr.weights' has no attribute {name!r}")
    return getattr(import_module(f"escsr.weights.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
