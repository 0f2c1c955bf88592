"""The field's protocol: where it finds its pictures, and that its figures are right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from escsr.cli.app import app
from escsr.errors import ImageReadError
from escsr.evaluation import evaluate, find_test_pairs
from escsr.images.resize import resize_bicubic_uint8
from escsr.images.writer import write_image
from escsr.weights import bundled_models


class Bicubic(nn.Module):
    """MATLAB's bicubic enlargement of an 8-bit image."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, lr_image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3, scale*H, scale*W), by the uint8 rule."""
        pixels = (lr_image[0] * 255).round().byte().permute(1, 2, 0)
        larger = torch.from_numpy(resize_bicubic_uint8(pixels, scale=self.scale))
        return larger.permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("scale", "published_db"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_bicubic_scores_what_is_published(
    data_folder: Path, scale: int, published_db: float
) -> None:
    """The evaluator is trusted with networks once it gives Set5's bicubic figures, to 0.02 dB."""
    pairs = find_test_pairs(data_folder / "test" / "Set5", scale=scale)
    results = list(evaluate(Bicubic(scale), pairs, scale=scale))
    mean_db = sum(result.psnr_y_db for result in results) / len(results)
    assert mean_db == pytest.approx(published_db, abs=0.02)


@pytest.mark.parametrize(("scale", "least_db"), [(2, 36.6), (3, 32.7), (4, 30.5)])
def test_the_shipped_weights_are_as_good_as_their_header_says(
    data_folder: Path, scale: int, least_db: float
) -> None:
    """`escsr evaluate` on Set5; 0.01 dB allows for weights that were rounded to float16."""
    set5 = data_folder / "test" / "Set5"
    arguments = ["evaluate", "esc-tiny", "-s", str(scale), "--data", str(set5), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    measured_db = json.loads(result.stdout)["means"]["Set5"]["psnr_y_db"]
    (shipped,) = (model for model in bundled_models() if model.scale == scale)
    assert measured_db == pytest.approx(
        shipped.header.provenance.quality["Set5 PSNR-Y dB"], abs=0.01
    )
    assert measured_db >= least_db


def test_lr_images_are_made_where_there_are_none(tmp_path: Path) -> None:
    """A plain folder of HR images is a test set; odd sides are cropped to a multiple of scale."""
    noise = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    write_image(tmp_path / "noise.png", noise)
    pairs = find_test_pairs(tmp_path, scale=2)
    assert [(pair.name, pair.lr_path) for pair in pairs] == [("noise", None)]
    (result,) = evaluate(Bicubic(2), pairs, scale=2)
    assert 5 < result.psnr_y_db < 20


def test_evaluate_shows_a_table_and_plain_results_differ(tmp_path: Path) -> None:
    """The padding of the reference's tester is a choice, and it is visible in the figure."""
    rows, columns = np.mgrid[0:50, 0:70]
    waves = np.stack([128 + 90 * np.sin(rows / (3 + k) + columns / 4) for k in range(3)], axis=2)
    write_image(tmp_path / "waves.png", waves.astype(np.uint8))
    arguments = ["evaluate", "esc-tiny", "-s", "2", "--data", str(tmp_path)]
    padded, plain = (CliRunner().invoke(app, [*arguments, *more]) for more in ([], ["--plain"]))
    assert padded.exit_code == plain.exit_code == 0, padded.output + plain.output
    assert "PSNR-Y" in padded.stdout
    assert padded.stdout != plain.stdout


def test_a_test_set_that_is_no_folder_of_images_is_an_error(tmp_path: Path) -> None:
    """Missing, a file, and empty: each is named."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("missing", "file", "empty"):
        with pytest.raises(ImageReadError, match=name):
            find_test_pairs(tmp_path / name, scale=2)
