"""``escsr evaluate``: several models and test sets in one table."""

import json
import sys
from pathlib import Path

import pytest
import torch

from escsr.errors import CheckpointError

from .conftest import Escsr, MakePicture


@pytest.fixture
def two_sets(make_picture: MakePicture) -> tuple[Path, Path]:
    """Two test sets of one name, of one small picture each."""
    first = make_picture("ours/Small/HR/one.png", width=60, height=44)
    second = make_picture("theirs/Small/two.png", width=44, height=60)
    return first.parent.parent, second.parent


def test_models_and_sets_stand_in_one_table(
    escsr: Escsr, weights: Path, two_sets: tuple[Path, Path]
) -> None:
    """Sets of one name are told apart, and both paddings name themselves."""
    data = ("--data", two_sets[0], "--data", two_sets[1])
    padded = escsr("evaluate", weights, "bicubic", *data)
    plain = escsr("evaluate", weights, "bicubic", *data, "--padding", "none")
    assert padded.exit_code == plain.exit_code == 0, padded.output + plain.output
    words = ("ours/Small x2", "theirs/Small x2", "PSNR-Y", "SSIM-RGB", "small-x2", "bicubic")
    assert all(word in padded.stdout for word in words)
    assert "Padding window" in padded.stdout
    assert "Padding none" in plain.stdout


def test_the_back_end_stands_beside_the_figures(
    escsr: Escsr, weights: Path, two_sets: tuple[Path, Path], tmp_path: Path
) -> None:
    """Asked for or chosen; bicubic has none, and alone it is not spoken of."""
    data = ("--data", two_sets[0])
    out = tmp_path / "out"
    chosen = "native"
    result = escsr("evaluate", weights, "bicubic", *data, "--out", out, "--crops", "0")
    assert f"ESC networks with the back-end {chosen}" in " ".join(result.stdout.split())
    assert f"back-end {chosen}" in (out / "results.md").read_text(encoding="utf-8")
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [model["backend"] for model in report["models"]] == [chosen, None]
    plain = escsr("evaluate", weights, *data, "--backend", "reference", "--json")
    assert json.loads(plain.stdout)["models"][0]["backend"] == "reference"
    assert "back-end" not in escsr("evaluate", "bicubic", "-s", "2", *data).stdout
    # Two sums in another order, in float32, rounded to 8 bits: a few pixels are a level off.
    figures = [entry["images"][0]["psnr_y_db"] for entry in (report, json.loads(plain.stdout))]
    assert figures[0] == pytest.approx(figures[1], abs=0.01)


def test_json_is_for_programs_and_failures_are_told_on_stderr(
    escsr: Escsr, weights: Path, two_sets: tuple[Path, Path]
) -> None:
    """Broken models and images leave the rest of the table and exit status 1.

    The BigTIFF's first directory is said to stand at 2**64 - 1.
    """
    (two_sets[1] / "broken.png").write_bytes(b"no image")
    (two_sets[1] / "offset.tif").write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(16))
    models = ("bicubic", "esc-tny", "no_such_module:build", weights)
    result = escsr("evaluate", *models, "--data", two_sets[1], "--json")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert [model["name"] for model in report["models"]] == ["bicubic", "small-x2"]
    assert [entry["image"] for entry in report["images"]] == ["two", "two"]
    named = ("esc-tny", "no_such_module", "broken", "offset")
    assert all(word in result.stderr for word in named)
    assert result.stderr.count("FAILED") == 4


def test_a_missing_model_is_told_before_the_work(escsr: Escsr, two_sets: tuple[Path, Path]) -> None:
    """Whoever mistyped a name can stop what would take hours; the last line tells it again."""
    result = escsr("evaluate", "bicubic", "nothere.pth", "-s", "2", "--data", two_sets[0])
    assert result.exit_code == 1
    said = [result.output.index(text) for text in ("left out: nothere", "PSNR", "FAILED: nothere")]
    assert said == sorted(said)


def test_results_are_written_with_pictures(
    escsr: Escsr, weights: Path, two_sets: tuple[Path, Path], tmp_path: Path
) -> None:
    """And again into the same folder, which is ours by then."""
    out = tmp_path / "out"
    arguments = ("evaluate", weights, "bicubic", "--data", two_sets[0], "--out", out)
    first = escsr(*arguments, "--crops", "1")
    assert first.exit_code == 0, first.output
    assert [path.name for path in (out / "crops").iterdir()] == ["01-Small-one.png"]
    assert "crops/01-Small-one.png" in (out / "results.md").read_text(encoding="utf-8")
    second = escsr(*arguments, "--crops", "0", "--self-ensemble")
    assert second.exit_code == 0, second.output
    assert json.loads((out / "results.json").read_text())["self_ensemble"] is True
    assert not list((out / "crops").iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["bicubic", "--data", "."], 2, "say which"),
        (["bicubic", "-s", "2", "--data", "nowhere"], 1, "nowhere"),
        (["bicubic", "-s", "0", "--data", "."], 2, "scale"),
        (["bicubic", "-s", "2", "--data", ".", "--padding", "all"], 2, "window"),
        (["bicubic", "-s", "2", "--data", ".", "--device", "toaster"], 2, "toaster"),
        (["bicubic", "-s", "2", "--data", ".", "--backend", "magic"], 2, "native, eager"),
        (["bicubic", "-s", "2", "--data", ".", "--metric", "beauty"], 2, "niqe, lpips"),
        (["bicubic", "-s", "2", "--data", ".", "--niqe-parameters", "x"], 2, "--metric niqe"),
        (["bicubic", "-s", "2"], 2, "--data"),
        (["--data", "."], 2, "MODEL"),
        (["esc-tny", "--data", "."], 2, "esc-tiny"),
    ],
)
def test_what_cannot_be_asked_for_is_told(
    escsr: Escsr, arguments: list[str], status: int, told: str
) -> None:
    """2 for a wrong command, 1 for what is not there."""
    result = escsr("evaluate", *arguments)
    assert result.exit_code == status, result.output
    assert told in result.stderr


def test_a_folder_of_something_else_is_left_alone(
    escsr: Escsr, two_sets: tuple[Path, Path], tmp_path: Path
) -> None:
    """Before any work; --overwrite allows it."""
    arguments = ("evaluate", "bicubic", "-s", "2", "--data", two_sets[0], "--out", tmp_path)
    refused = escsr(*arguments)
    assert refused.exit_code == 1
    assert "not empty" in refused.stderr
    assert escsr(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "results.md").is_file()


def test_a_perceptual_metric_is_one_more_column(escsr: Escsr, make_picture: MakePicture) -> None:
    """With its note, which says what its values can be compared with."""
    folder = make_picture("Large/one.png", width=220, height=210).parent
    arguments = ("evaluate", "bicubic", "-s", "2", "--data", folder, "--metric", "niqe")
    table = escsr(*arguments)
    assert table.exit_code == 0, table.output
    assert "NIQE" in table.stdout
    assert "cannot be compared" in " ".join(table.stdout.split())
    report = json.loads(escsr(*arguments, "--json").stdout)
    assert report["images"][0]["niqe"] > 0
    assert "photographs" in report["metrics"][-1]["note"]


def test_a_picture_too_small_for_a_metric_keeps_its_other_figures(
    escsr: Escsr, two_sets: tuple[Path, Path]
) -> None:
    """A dash, the reason, and exit status 1."""
    result = escsr("evaluate", "bicubic", "-s", "2", "--data", two_sets[0], "--metric", "niqe")
    assert result.exit_code == 1
    row = next(line for line in result.stdout.splitlines() if line.startswith("bicubic"))
    assert row.split()[-1] == "-"
    assert row.split()[1] != "-"
    assert "FAILED: bicubic, Small, one, NIQE: " in result.stderr


def test_fid_without_pyiqa_is_refused_before_any_work(
    escsr: Escsr, two_sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra that brings it, and its licence."""
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    arguments = ("-s", "2", "--data", two_sets[0], "--metric", "fid", "--out", tmp_path / "out")
    result = escsr("evaluate", "bicubic", *arguments)
    assert result.exit_code == 1
    assert "escsr[metrics]" in result.stderr
    assert "non-commercial" in result.stderr
    assert not result.stdout
    assert not (tmp_path / "out").exists()


def test_a_metric_without_its_weights_is_named_and_the_rest_is_judged(
    escsr: Escsr, two_sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a model that cannot be loaded."""

    def no_weights(name: str, *, device: torch.device) -> None:
        raise CheckpointError(f"The weights of {name} could not be downloaded.")

    monkeypatch.setattr("escsr.evaluation.metrics.PyiqaNetwork", no_weights)
    arguments = ("evaluate", "bicubic", "-s", "2", "--data", two_sets[0], "--metric", "fid")
    result = escsr(*arguments)
    assert result.exit_code == 1
    assert "FAILED: FID: The weights of fid could not be downloaded." in result.stderr
    assert "PSNR-Y" in result.stdout
    assert "FID" not in result.stdout
