"""Weights: stored, recognised, loaded, converted."""

from escsr.weights.box import BundledModel, bundled_models
from escsr.weights.inspection import CheckpointReport, inspect_checkpoint
from escsr.weights.loading import find_weights, load_model
from escsr.weights.official import to_ours, to_reference
from escsr.weights.recognition import infer_config
from escsr.weights.rescaling import convert_scale, convert_scale_of_state
from escsr.weights.store import (
    Provenance,
    WeightsHeader,
    load_weights,
    read_header,
    save_reference_weights,
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
    "read_header",
    "save_reference_weights",
    "save_weights",
    "to_ours",
    "to_reference",
]
