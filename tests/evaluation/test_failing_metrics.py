"""A metric that fails costs no other figure, and is named."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from escsr.evaluation.comparison import Comparison, Conditions, compare, enter
from escsr.evaluation.metrics import PSNR_Y, SSIM_Y, SetMetric, load_metric
from escsr.evaluation.report import as_csv, as_json, as_markdown, report_as_dict
from escsr.images.files import read_image

from .pictures import waves, write_waves

LUMA = Conditions(scale=2, metrics=(PSNR_Y, SSIM_Y))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A tiny picture and one that is large enough for NIQE."""
    write_waves(tmp_path / "Set" / "a-tiny.png", 48, 60)
    return write_waves(tmp_path / "Set" / "b-large.png", 200, 201).parent


@pytest.fixture
def judged_by_niqe(pictures: Path) -> Comparison:
    """By the real NIQE, beside PSNR and SSIM."""
    conditions = replace(LUMA, metrics=(PSNR_Y, SSIM_Y, load_metric("niqe").column()))
    return compare(enter(["bicubic"], [pictures], scale=2), conditions)


def set_metric(measure: Callable[[Path, Path], float]) -> Conditions:
    """One metric of whole sets, low is good."""
    metric = SetMetric(
        key="far", title="FAR", decimals=2, higher_is_better=False, measure=measure, note="Far."
    )
    return replace(LUMA, set_metrics=[metric])


def test_an_image_too_small_for_niqe_keeps_its_psnr(judged_by_niqe: Comparison) -> None:
    """The reason is named, with the metric."""
    tiny, large = judged_by_niqe.scores
    assert set(tiny.values) == {"psnr_y_db", "ssim_y"}
    assert set(large.values) == {"psnr_y_db", "ssim_y", "niqe"}
    (failure,) = judged_by_niqe.failures
    assert str(failure).startswith("bicubic, Set, a-tiny, NIQE: ")
    assert "60x48" in failure.error


def test_a_mean_is_of_the_images_that_have_the_value(judged_by_niqe: Comparison) -> None:
    """In tables their number stands beside it, and only there where it is another."""
    niqe = judged_by_niqe.scores[1].values["niqe"]
    page = as_markdown(judged_by_niqe, report_as_dict(judged_by_niqe))
    row = next(line for line in page.splitlines() if line.startswith("| bicubic |"))
    assert row.endswith(f"| {niqe:.4f} (1 of 2) |")
    assert row.count(" of 2)") == 1
    report = json.loads(as_json(report_as_dict(judged_by_niqe)))
    means = report["models"][0]["means"]["Set"]
    assert means["niqe"] == niqe
    assert (means["images"], means["images_per_metric"]["niqe"]) == (2, 1)


def test_a_value_that_is_missing_is_null_in_json_and_empty_in_csv(
    judged_by_niqe: Comparison,
) -> None:
    """In CSV, the reason stands in the same row."""
    report = report_as_dict(judged_by_niqe)
    assert report["images"][0]["niqe"] is None
    assert report["failures"][0]["metric"] == "NIQE"
    tiny, large = csv.DictReader(io.StringIO(as_csv(judged_by_niqe)))
    assert (tiny["niqe"], tiny["error"].partition(":")[0]) == ("", "NIQE")
    assert float(tiny["psnr_y_db"]) > 0
    assert (float(large["niqe"]) > 0, large["error"]) == (True, "")


def test_a_metric_without_any_value_is_a_dash(tmp_path: Path) -> None:
    """A set of tiny pictures alone."""
    folder = write_waves(tmp_path / "Tiny" / "a.png", 48, 60).parent
    conditions = replace(LUMA, metrics=(PSNR_Y, load_metric("niqe").column()))
    tiny = compare(enter(["bicubic"], [folder], scale=2), conditions)
    page = as_markdown(tiny, report_as_dict(tiny))
    assert next(line for line in page.splitlines() if line.startswith("| bicubic |")).endswith(
        "| - |"
    )
    assert report_as_dict(tiny)["models"][0]["means"]["Tiny"]["niqe"] is None


def test_a_metric_of_whole_sets_sees_what_was_judged_as_png(
    pictures: Path, temporary: Path
) -> None:
    """HR cropped to the scale, results rounded; and the folder is gone afterwards."""
    seen: list[Path] = []

    def measure(results: Path, truths: Path) -> float:
        assert {temporary} == {folder.parent.parent for folder in (results, truths)}
        names = sorted(path.name for path in results.iterdir())
        assert names == sorted(path.name for path in truths.iterdir())
        assert np.array_equal(read_image(truths / names[1]).pixels, waves(200, 201)[:, :200])
        assert read_image(results / names[1]).pixels.shape == (200, 200, 3)
        seen.append(results)
        return 12.345

    entrants = enter(["bicubic", "bicubic"], [pictures], scale=2)
    told: list[tuple[str, str, str]] = []
    conditions = set_metric(measure)
    comparison = compare(entrants, conditions, on_result=lambda *place: told.append(place))
    assert len(set(seen)) == 2
    assert not list(temporary.iterdir())
    assert [score.value for score in comparison.set_scores] == [12.345] * 2
    assert told[-1] == ("bicubic #2", "Set", "FAR")
    assert len(told) == entrants.num_results(conditions) == 6


def test_a_figure_of_a_whole_set_stands_beside_the_means(pictures: Path) -> None:
    """In the table and in JSON, with its note; CSV is of images."""
    comparison = compare(
        enter(["bicubic"], [pictures], scale=2), set_metric(lambda results, truths: 12.345)
    )
    report = report_as_dict(comparison)
    assert report["models"][0]["means"]["Set"]["far"] == 12.345
    assert (report["metrics"][-1]["key"], report["metrics"][-1]["per"]) == ("far", "test set")
    page = as_markdown(comparison, report)
    assert "| FAR |" in page
    assert "| 12.35 |" in page or "| 12.34 |" in page
    assert "Far." in page
    assert "far" not in as_csv(comparison)


def test_a_metric_of_whole_sets_that_fails_is_named_and_costs_nothing_else(
    pictures: Path, temporary: Path
) -> None:
    """Whatever it raises."""

    def measure(results: Path, truths: Path) -> float:
        raise ArithmeticError("no square root")

    comparison = compare(enter(["bicubic"], [pictures], scale=2), set_metric(measure))
    assert len(comparison.scores) == 2
    (failure,) = comparison.failures
    assert str(failure) == "bicubic, Set, FAR: ArithmeticError: no square root"
    *_, last = csv.DictReader(io.StringIO(as_csv(comparison)))
    assert (last["model"], last["image"]) == ("bicubic", "")
    assert last["error"] == "FAR: ArithmeticError: no square root"
    assert not list(temporary.iterdir())


def test_one_image_is_no_set(tmp_path: Path) -> None:
    """The metric is not even asked."""
    folder = write_waves(tmp_path / "One" / "a.png", 48, 60).parent
    comparison = compare(enter(["bicubic"], [folder], scale=2), set_metric(lambda a, b: 0.0))
    (failure,) = comparison.failures
    assert failure.error.startswith("FAR compares at least 2 images; there are 1.")
    assert len(comparison.scores) == 1


def test_results_that_cannot_be_stored_cost_only_metrics_of_whole_sets(
    pictures: Path, temporary: Path
) -> None:
    """No temporary folder can be made."""
    temporary.rmdir()
    comparison = compare(enter(["bicubic"], [pictures], scale=2), set_metric(lambda a, b: 0.0))
    assert len(comparison.scores) == 2
    assert not comparison.set_scores
    (failure,) = comparison.failures
    assert failure.error.startswith("FileNotFoundError")


def test_an_interrupted_comparison_leaves_no_temporary_folder(
    pictures: Path, temporary: Path
) -> None:
    """Ctrl-C in the middle of a set."""

    def interrupt(model: str, test_set: str, image: str) -> None:
        if image == "b-large":
            assert list(temporary.rglob("*.png"))
            raise KeyboardInterrupt

    entrants = enter(["bicubic"], [pictures], scale=2)
    with pytest.raises(KeyboardInterrupt):
        compare(entrants, set_metric(lambda a, b: 0.0), on_result=interrupt)
    assert not list(temporary.iterdir())


def test_without_metrics_of_whole_sets_nothing_is_stored(pictures: Path, temporary: Path) -> None:
    """Not even where no temporary folder can be made."""
    temporary.rmdir()
    assert not compare(enter(["bicubic"], [pictures], scale=2), LUMA).failures
