"""Everything that an analysis found, as plain JSON values."""

import json
import math
import platform
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from escsr.analysis.kernels import DynamicKernels, LargeKernels, asymmetry
from escsr.analysis.local_attribution import LocalAttribution
from escsr.analysis.pictures import Picture
from escsr.analysis.receptive_field import SHARES, ReceptiveField
from escsr.analysis.records import Skipped
from escsr.analysis.run import Analysis, Findings
from escsr.analysis.similarity import Similarity
from escsr.analysis.spectrum import LayerSpectrum, Spectra, ring_centres
from escsr.evaluation.report import device_name
from escsr.version import __version__

JSON_FORMAT = "escsr analyze 1"
"""By which our own results are recognised."""


def analysis_as_dict(analysis: Analysis, *, files: list[str] | None = None) -> dict[str, Any]:
    """Everything, as plain JSON values; its keys are promised to programs.

    Args:
        analysis: what to tell.
        files: the names of the pictures that were drawn of it.
    Returns:
        What was not asked is None, what makes no sense is ``{"skipped": why}``.
    """
    settings, first = analysis.settings, analysis.pictures[0]
    return {
        "format": JSON_FORMAT,
        "escsr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(settings.device),
        "parts": list(settings.parts),
        "crop_pixels": analysis.crop_pixels,
        "attribution_of": {
            "image": str(first.path),
            "x": first.left + settings.patch.x,
            "y": first.top + settings.patch.y,
            "side": settings.patch.side,
        },
        "images": [_picture_entry(picture) for picture in analysis.pictures],
        "models": [_model_entry(findings) for findings in analysis.findings],
        "pictures": files or [],
    }


def as_json(report: dict[str, Any]) -> str:
    """A report as JSON text, only ASCII; lists of numbers stand in one line each."""
    text = json.dumps(report, indent=1, allow_nan=False)
    return _joined_lists(text)


def skipped_lines(analysis: Analysis) -> list[str]:
    """What was asked and makes no sense, one line each: network, question, reason."""
    return [
        f"{findings.contender.label}, {question}: {answer.reason}"
        for findings in analysis.findings
        for question, answer in _answers(findings)
        if isinstance(answer, Skipped)
    ]


def _answers(findings: Findings) -> list[tuple[str, object]]:
    return [
        ("similarity of features", findings.features),
        ("similarity of attention maps", findings.attention),
        ("receptive field", findings.field),
        ("attribution", findings.attribution),
        ("large kernel", findings.large_kernel),
        ("dynamic kernels", findings.dynamic_kernel),
        ("spectrum", findings.spectrum),
    ]


def _picture_entry(picture: Picture) -> dict[str, Any]:
    height, width = picture.image.shape[-2:]
    return {
        "path": str(picture.path),
        "width": picture.width,
        "height": picture.height,
        "crop": {"left": picture.left, "top": picture.top, "width": width, "height": height},
    }


def _model_entry(findings: Findings) -> dict[str, Any]:
    contender = findings.contender
    return {
        "name": contender.label,
        "source": contender.source,
        "architecture": contender.architecture,
        "scale": contender.scale,
        "parameters": contender.parameters,
        "sha256": contender.sha256,
        "feature_similarity": _entry(findings.features),
        "attention_similarity": _entry(findings.attention),
        "receptive_field": _entry(findings.field),
        "attribution": _entry(findings.attribution),
        "large_kernel": _entry(findings.large_kernel),
        "dynamic_kernels": _entry(findings.dynamic_kernel),
        "spectrum": _entry(findings.spectrum),
    }


def _entry(
    found: Similarity
    | ReceptiveField
    | LocalAttribution
    | LargeKernels
    | DynamicKernels
    | Spectra
    | Skipped
    | None,
) -> dict[str, Any] | None:
    match found:
        case None:
            return None
        case Skipped():
            return {"skipped": found.reason}
        case Similarity():
            return _similarity_entry(found)
        case ReceptiveField():
            return _field_entry(found)
        case LocalAttribution():
            return _attribution_entry(found)
        case LargeKernels():
            return _large_kernel_entry(found)
        case DynamicKernels():
            return _dynamic_kernels_entry(found)
        case Spectra():
            return _spectra_entry(found)


def _similarity_entry(found: Similarity) -> dict[str, Any]:
    return {
        "layers": found.labels,
        "matrix": _numbers(found.matrix, 4),
        "mean_of_neighbours": _number(found.mean_of_neighbours, 4),
        "mean_of_pairs": _number(found.mean_of_pairs, 4),
        "samples": found.samples,
        "note": found.note or None,
    }


def _field_entry(found: ReceptiveField) -> dict[str, Any]:
    sides = {f"{100 * share:g}%": found.side_holding(share) for share in SHARES}
    return {
        "side_pixels": len(found.field),
        "side_pixels_holding": sides,
        "share_within": _numbers(found.share_within, 5),
        "share_of_pixels_with_influence": _number(found.support_share, 5),
        "images": found.images,
    }


def _attribution_entry(found: LocalAttribution) -> dict[str, Any]:
    return {
        "diffusion_index": _number(found.diffusion_index, 3),
        "explained": _number(found.explained, 5),
        "difference": _number(found.difference, 5),
        "completeness_error": _number(found.completeness_error, 5),
        "steps": found.steps,
    }


def _large_kernel_entry(found: LargeKernels) -> dict[str, Any]:
    return {
        "shape": list(found.used.shape),
        "count": found.count,
        "is_averaged": found.is_averaged,
        "asymmetry_stored": _number(asymmetry(found.stored), 6),
        "asymmetry_used": _number(asymmetry(found.used), 6),
        "energy_share_of_middle_3x3": _number(found.centre_share, 5),
    }


def _dynamic_kernels_entry(found: DynamicKernels) -> dict[str, Any]:
    spread = found.spread
    return {
        "layers": found.layers,
        "images": found.images,
        "spread": None if spread is None else [_number(value, 5) for value in spread],
        "kernels": _numbers(found.kernels.flatten(-2), 5),
    }


def _spectra_entry(found: Spectra) -> dict[str, Any]:
    means = {kind: found.mean_of(kind) for kind in ("attention", "convattn", "block")}
    return {
        "frequency_share": _numbers(ring_centres(), 5),
        "images": found.images,
        "mean": {kind: _numbers(mean, 4) for kind, mean in means.items() if mean is not None},
        "layers": [_layer_entry(layer) for layer in found.layers],
    }


def _layer_entry(layer: LayerSpectrum) -> dict[str, Any]:
    return {
        "layer": layer.label,
        "kind": layer.kind,
        "relative_log_amplitude": _numbers(layer.profile, 4),
    }


def _numbers(values: Tensor, digits: int) -> list[Any]:
    if values.ndim > 1:
        return [_numbers(row, digits) for row in values]
    return [_number(value, digits) for value in values.tolist()]


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _joined_lists(text: str) -> str:
    """Write each innermost list in one line; a matrix is then one line per row."""
    lines: list[str] = []
    pending: list[str] = []
    for line in text.splitlines():
        if line.endswith("["):
            lines += pending
            pending = [line]
        elif pending and line.strip() in ("]", "],"):
            lines.append(pending[0] + " ".join(p.strip() for p in pending[1:]) + line.strip())
            pending = []
        elif pending and line.rstrip(",").endswith(("{", "}")):
            lines += [*pending, line]
            pending = []
        elif pending:
            pending.append(line)
        else:
            lines.append(line)
    return "\n".join([*lines, *pending])
