"""What a comparison says, for programs: JSON and CSV."""

import csv
import io
import json
import math
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from escsr.evaluation.contenders import Contender
from escsr.evaluation.crops import Crop
from escsr.evaluation.metrics import Column, SetMetric
from escsr.evaluation.protocol import PROTOCOL
from escsr.evaluation.records import Comparison
from escsr.evaluation.test_sets import TestSet, hash_files
from escsr.machine import usable_cores
from escsr.version import __version__

JSON_FORMAT = "escsr evaluate 1"
"""By which our own results are recognised."""


def report_as_dict(
    comparison: Comparison, *, crops: Sequence[tuple[str, Crop]] = ()
) -> dict[str, Any]:
    """Everything, as plain JSON values; its keys are promised to programs.

    Args:
        comparison: what to tell.
        crops: the pictures' file names, and what they show.
    Returns:
        Infinite figures are the text "Infinity"; those that there are not are None.
    """
    conditions, torch = comparison.conditions, sys.modules.get("torch")
    return {
        "format": JSON_FORMAT,
        **_versions(),
        "device": device_name(conditions.device),
        "precision": "float32",
        "threads": usable_cores() if torch is None else torch.get_num_threads(),
        "scale": conditions.scale,
        "padding": conditions.padding,
        "self_ensemble": conditions.self_ensemble,
        "protocol": PROTOCOL,
        "metrics": [_metric_entry(column) for column in conditions.columns],
        "models": [_model_entry(contender, comparison) for contender in comparison.contenders],
        "test_sets": [_test_set_entry(test_set) for test_set in comparison.test_sets],
        "images": [
            {"model": score.model, "test_set": score.test_set, "image": score.image}
            | {m.key: _json_number(score.values.get(m.key)) for m in conditions.metrics}
            for score in comparison.scores
        ],
        "failures": [
            {"model": f.model, "test_set": f.test_set, "image": f.image}
            | {"metric": f.metric, "error": f.error}
            for f in comparison.failures
        ],
        "crops": [_crop_entry(name, crop) for name, crop in crops],
    }


def as_json(report: dict[str, Any]) -> str:
    """A report as JSON text; only ASCII, so that a file name that is no text survives."""
    return json.dumps(report, indent=2, allow_nan=False)


def as_csv(comparison: Comparison) -> str:
    """One row per contender and image, with all digits; what failed has its error instead.

    A metric that could not judge an image leaves its field empty, and its error stands in the row.
    Figures of whole test sets belong to no row and are left out.
    """
    keys = [metric.key for metric in comparison.conditions.metrics]
    stream = io.StringIO(newline="")
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["model", "test_set", "image", *keys, "error"])
    errors: dict[tuple[str | None, ...], list[str]] = {}
    for failure in comparison.failures:
        if failure.metric is not None:
            place = (failure.model, failure.test_set, failure.image)
            errors.setdefault(place, []).append(f"{failure.metric}: {failure.error}")
    for score in comparison.scores:
        place = (score.model, score.test_set, score.image)
        values = [repr(score.values[key]) if key in score.values else "" for key in keys]
        rows.writerow([*place, *values, "; ".join(errors.pop(place, []))])
    for failure in comparison.failures:
        if failure.metric is None:
            place = (failure.model, failure.test_set, failure.image)
            rows.writerow([*(name or "" for name in place), *[""] * len(keys), failure.error])
    for place, told in errors.items():
        rows.writerow([*(name or "" for name in place), *[""] * len(keys), "; ".join(told)])
    return stream.getvalue()


def device_name(device: str) -> str:
    """``cpu``, or the name of the GPU."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _versions() -> dict[str, str | None]:
    torch = sys.modules.get("torch")
    return {
        "escsr": __version__,
        "torch": None if torch is None else torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _metric_entry(column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "name": column.title,
        "per": "test set" if isinstance(column, SetMetric) else "image",
        "higher_is_better": column.higher_is_better,
        "note": column.note,
    }


def _crop_entry(file: str, crop: Crop) -> dict[str, Any]:
    return {
        "file": file,
        "test_set": crop.test_set,
        "image": crop.image,
        "left": crop.left,
        "top": crop.top,
        "difference": crop.difference,
        "psnr_y_db": {panel.label: _json_number(panel.psnr_y_db) for panel in crop.panels[1:]},
    }


def _model_entry(contender: Contender, comparison: Comparison) -> dict[str, Any]:
    conditions = comparison.conditions
    return {
        "name": contender.label,
        "source": contender.source,
        "architecture": contender.architecture,
        "backend": comparison.backend_of(contender),
        "parameters": contender.parameters,
        "licence": contender.licence,
        "sha256": contender.sha256,
        "padded_to_multiple_of": contender.padding_multiple(conditions.padding),
        "means": {
            test_set.name: _means_entry(contender.label, test_set.name, comparison)
            for test_set in comparison.test_sets
        },
    }


def _means_entry(model: str, test_set: str, comparison: Comparison) -> dict[str, Any]:
    columns = comparison.conditions.columns
    return {
        "images": len(comparison.scores_of(model, test_set)),
        "images_per_metric": {c.key: comparison.count(model, test_set, c) for c in columns},
        **{c.key: _json_number(comparison.figure(model, test_set, c)) for c in columns},
    }


def _test_set_entry(test_set: TestSet) -> dict[str, Any]:
    lr_paths = [pair.lr_path for pair in test_set.pairs if pair.lr_path is not None]
    return {
        "name": test_set.name,
        "folder": str(test_set.folder),
        "images": len(test_set.pairs),
        "lr_from_files": len(lr_paths),
        "lr_made": len(test_set.pairs) - len(lr_paths),
        "notes": list(test_set.notes),
        "hr_sha256": hash_files(pair.hr_path for pair in test_set.pairs),
        "lr_sha256": hash_files(lr_paths) if lr_paths else None,
    }


def _json_number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    # JSON has no infinity; float() of this text gives it back, in Python and in JavaScript.
    return str(value).replace("inf", "Infinity")
