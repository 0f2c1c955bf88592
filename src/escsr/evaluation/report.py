"""What a comparison says, as Markdown, CSV and JSON."""

import csv
import io
import json
import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from escsr.evaluation.comparison import Comparison
from escsr.evaluation.contenders import Contender, Padding
from escsr.evaluation.crops import Crop
from escsr.evaluation.metrics import Metric
from escsr.evaluation.protocol import PROTOCOL
from escsr.evaluation.test_sets import TestSet, hash_files
from escsr.version import __version__

JSON_FORMAT = "escsr evaluate 1"
"""By which our own results are recognised."""

PADDING_IN_WORDS: dict[Padding, str] = {
    "window": "padding window: LR images are extended by reflection to whole windows and the "
    "result cropped, as by the official tester",
    "none": "padding none: LR images are given as they are",
}


def report_as_dict(
    comparison: Comparison, *, crops: Sequence[tuple[str, Crop]] = ()
) -> dict[str, Any]:
    """Everything, as plain JSON values; its keys are promised to programs.

    Args:
        comparison: what to tell.
        crops: the pictures' file names, and what they show.
    Returns:
        Infinite figures are the text "Infinity".
    """
    conditions = comparison.conditions
    return {
        "format": JSON_FORMAT,
        **_versions(),
        "device": device_name(conditions.device),
        "precision": "float32",
        "threads": torch.get_num_threads(),
        "scale": conditions.scale,
        "padding": conditions.padding,
        "self_ensemble": conditions.self_ensemble,
        "protocol": PROTOCOL,
        "metrics": [
            {"key": m.key, "name": m.title, "higher_is_better": m.higher_is_better}
            | {"note": m.note}
            for m in conditions.metrics
        ],
        "models": [_model_entry(contender, comparison) for contender in comparison.contenders],
        "test_sets": [_test_set_entry(test_set) for test_set in comparison.test_sets],
        "images": [
            {"model": score.model, "test_set": score.test_set, "image": score.image}
            | {key: _json_number(value) for key, value in score.values.items()}
            for score in comparison.scores
        ],
        "failures": [
            {"model": f.model, "test_set": f.test_set, "image": f.image, "error": f.error}
            for f in comparison.failures
        ],
        "crops": [_crop_entry(name, crop) for name, crop in crops],
    }


def as_json(report: dict[str, Any]) -> str:
    """A report as JSON text; only ASCII, so that a file name that is no text survives."""
    return json.dumps(report, indent=2, allow_nan=False)


def as_csv(comparison: Comparison) -> str:
    """One row per contender and image, with all digits; what failed has its error instead."""
    keys = [metric.key for metric in comparison.conditions.metrics]
    stream = io.StringIO(newline="")
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["model", "test_set", "image", *keys, "error"])
    for score in comparison.scores:
        values = [repr(score.values[key]) for key in keys]
        rows.writerow([score.model, score.test_set, score.image, *values, ""])
    for failure in comparison.failures:
        place = [failure.model or "", failure.test_set or "", failure.image or ""]
        rows.writerow([*place, *[""] * len(keys), failure.error])
    return stream.getvalue()


def as_markdown(comparison: Comparison, report: dict[str, Any]) -> str:
    """A page to read: tables, conditions, origin of every file, failures, pictures.

    Args:
        comparison: what to tell.
        report: the same from ``report_as_dict``.
    """
    parts = [
        f"# Results at x{report['scale']}",
        *(_set_table(comparison, test_set) for test_set in comparison.test_sets),
        " ".join(["PSNR in dB; the best of each column is bold.", *metric_notes(comparison)]),
        _conditions(report),
        _models(report),
        _test_sets(report),
    ]
    if report["failures"]:
        lines = [f"- {failure}" for failure in comparison.failures]
        parts.append("## What failed\n\n" + "\n".join(map(_one_line, lines)))
    if report["crops"]:
        pictures = [_picture(entry) for entry in report["crops"]]
        parts.append("## Where networks differ most\n\n" + "\n\n".join(pictures))
    return "\n\n".join(parts) + "\n"


def shown(value: float | None, metric: Metric) -> str:
    """A figure as tables show it; a dash where there is none."""
    return "-" if value is None else f"{value:.{metric.decimals}f}"


def best_of(comparison: Comparison, test_set: str, metric: Metric) -> str | None:
    """The best figure of a column as it is shown, among means of equally many images.

    Returns:
        None where fewer than two can be compared.
    """
    counts = {c.label: len(comparison.scores_of(c.label, test_set)) for c in comparison.contenders}
    most = max(counts.values())
    means = [comparison.mean(label, test_set, metric) for label in counts if counts[label] == most]
    known = [mean for mean in means if mean is not None]
    if len(known) < 2:
        return None
    return shown(max(known) if metric.higher_is_better else min(known), metric)


def label_with_count(comparison: Comparison, contender: Contender, test_set: TestSet) -> str:
    """A contender's label, with how many images its mean is of where some are missing."""
    judged, total = len(comparison.scores_of(contender.label, test_set.name)), len(test_set.pairs)
    return contender.label if judged == total else f"{contender.label} ({judged} of {total} images)"


def metric_notes(comparison: Comparison) -> list[str]:
    """What must be said of the metrics beside their figures."""
    return [metric.note for metric in comparison.conditions.metrics if metric.note]


def device_name(device: torch.device) -> str:
    """``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> dict[str, str]:
    return {
        "escsr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
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
        "parameters": contender.parameters,
        "licence": contender.licence,
        "sha256": contender.sha256,
        "padded_to_multiple_of": contender.padding_multiple(conditions.padding),
        "means": {
            test_set.name: {"images": len(comparison.scores_of(contender.label, test_set.name))}
            | {
                metric.key: _json_number(comparison.mean(contender.label, test_set.name, metric))
                for metric in conditions.metrics
            }
            for test_set in comparison.test_sets
        },
    }


def _test_set_entry(test_set: TestSet) -> dict[str, Any]:
    lr_paths = [pair.lr_path for pair in test_set.pairs if pair.lr_path is not None]
    return {
        "name": test_set.name,
        "folder": str(test_set.folder),
        "images": len(test_set.pairs),
        "lr_from_files": len(lr_paths),
        "lr_made": len(test_set.pairs) - len(lr_paths),
        "hr_sha256": hash_files(pair.hr_path for pair in test_set.pairs),
        "lr_sha256": hash_files(lr_paths) if lr_paths else None,
    }


def _json_number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    # JSON has no infinity; float() of this text gives it back, in Python and in JavaScript.
    return str(value).replace("inf", "Infinity")


def _set_table(comparison: Comparison, test_set: TestSet) -> str:
    metrics = comparison.conditions.metrics
    rows = [["Model", *(metric.title for metric in metrics)], ["---", *["---:"] * len(metrics)]]
    best = [best_of(comparison, test_set.name, metric) for metric in metrics]
    for contender in comparison.contenders:
        figures = [
            shown(comparison.mean(contender.label, test_set.name, metric), metric)
            for metric in metrics
        ]
        bold = [f"**{f}**" if f == b else f for f, b in zip(figures, best, strict=True)]
        rows.append([label_with_count(comparison, contender, test_set), *bold])
    count = f"{len(test_set.pairs)} images; LR: {test_set.lr_source}"
    return f"## {test_set.name}\n\n{count}.\n\n" + _markdown_table(rows)


def _conditions(report: dict[str, Any]) -> str:
    ensemble = "self-ensemble x8" if report["self_ensemble"] else "no self-ensemble"
    padding: Padding = report["padding"]
    return (
        f"## How it was measured\n\n{PROTOCOL}\n\nConditions: {PADDING_IN_WORDS[padding]}; "
        f"{ensemble}; {report['precision']} on {report['device']}. escsr {report['escsr']}, torch "
        f"{report['torch']}, Python {report['python']}, {report['date']}."
    )


def _models(report: dict[str, Any]) -> str:
    head = ["Model", "Source", "Architecture", "Parameters", "Padded to", "Licence", "SHA-256"]
    rows = [head, ["---"] * len(head)]
    for entry in report["models"]:
        multiple = entry["padded_to_multiple_of"]
        rows.append(
            [
                entry["name"],
                entry["source"],
                entry["architecture"],
                f"{entry['parameters']:,}",
                f"multiples of {multiple}" if multiple > 1 else "-",
                entry["licence"] or ("not stated" if entry["parameters"] else "-"),
                f"`{entry['sha256']}`" if entry["sha256"] else "-",
            ]
        )
    return "## Models\n\n" + _markdown_table(rows)


def _test_sets(report: dict[str, Any]) -> str:
    rows = [["Test set", "Images", "SHA-256 over HR", "SHA-256 over LR"], ["---"] * 4]
    for entry in report["test_sets"]:
        lr_hash = f"`{entry['lr_sha256']}`" if entry["lr_sha256"] else "-"
        rows.append([entry["name"], str(entry["images"]), f"`{entry['hr_sha256']}`", lr_hash])
    return "## Test sets\n\n" + _markdown_table(rows)


def _picture(entry: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{label} {float(psnr_db):.2f}" for label, psnr_db in entry["psnr_y_db"].items()
    )
    caption = f"{entry['test_set']}, {entry['image']}: PSNR-Y of the crop in dB: {figures}."
    return f"![{_one_line(caption)}]({entry['file']})\n\n{_one_line(caption)}"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())
