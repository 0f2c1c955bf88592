"""The field's protocol: that its figures are right, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from escsr.cli.app import app
from escsr.errors import ImageReadError, ImageSizeError, ImageValueError
from escsr.evaluation import (
    Conditions,
    TestPair,
    compare,
    enter,
    evaluate,
    evaluate_officially,
    find_test_pairs,
    mean_quality,
)
from escsr.evaluation.contenders import MatlabBicubic
from escsr.evaluation.metrics import FIDELITY_METRICS, PSNR_Y
from escsr.evaluation.protocol import read_pair, to_pixels, upscale_rounded
from escsr.images.resize import resize_bicubic_uint8
from escsr.images.writer import write_image
from escsr.model import ESC
from escsr.weights import bundled_models, load_model, open_network
from tests.model.networks import small_network

from .pictures import waves, write_waves

PUBLISHED_BICUBIC_DB = [
    ("Set5", 2, 33.67),
    ("Set5", 3, 30.40),
    ("Set5", 4, 28.43),
    ("Set14", 2, 30.32),
    ("Set14", 3, 27.63),
    ("Set14", 4, 26.09),
    ("B100", 2, 29.56),
    ("B100", 3, 27.21),
    ("B100", 4, 25.96),
]
"""Y-PSNR of MATLAB's bicubic by this protocol; Set14 with its one grey image read as RGB."""


@pytest.mark.parametrize(("name", "scale", "published_db"), PUBLISHED_BICUBIC_DB)
def test_bicubic_scores_what_is_published(
    data_folder: Path, name: str, scale: int, published_db: float
) -> None:
    """The evaluator is trusted with networks once it gives these figures, to 0.02 dB.

    Tables round to 0.01, and decoders of the JPEG files of B100 differ by as much.
    """
    entrants = enter(["bicubic"], [data_folder / "test" / name], scale=scale)
    comparison = compare(entrants, Conditions(scale=scale, metrics=(PSNR_Y,)))
    assert not comparison.failures
    assert comparison.figure("bicubic", name, PSNR_Y) == pytest.approx(published_db, abs=0.02)


@pytest.mark.parametrize(("scale", "least_db"), [(2, 37.2), (3, 33.4), (4, 31.0)])
def test_the_shipped_weights_are_as_good_as_their_header_says(
    data_folder: Path, scale: int, least_db: float
) -> None:
    """`escsr evaluate` on Set5; 0.01 dB allows for weights that were rounded to float16."""
    set5 = data_folder / "test" / "Set5"
    arguments = ["evaluate", "esc-tiny", "-s", str(scale), "--data", str(set5), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    measured_db = json.loads(result.stdout)["models"][0]["means"]["Set5"]["psnr_y_db"]
    (shipped,) = (
        model for model in bundled_models() if (model.name, model.scale) == ("esc-tiny", scale)
    )
    assert measured_db == pytest.approx(
        shipped.header.provenance.quality["Set5 PSNR-Y dB"], abs=0.01
    )
    assert measured_db >= least_db


def test_lr_images_are_made_by_matlabs_rule_where_there_are_none(tmp_path: Path) -> None:
    """From HR cropped at the bottom and right to a multiple of the scale."""
    write_waves(tmp_path / "waves.png", 41, 53)
    (pair,) = find_test_pairs(tmp_path, scale=2)
    lr_image, hr_image = read_pair(pair, scale=2)
    cropped = waves(41, 53)[:40, :52]
    assert np.array_equal(to_pixels(hr_image), cropped)
    assert np.array_equal(to_pixels(lr_image), resize_bicubic_uint8(cropped, scale=0.5))


def test_a_grey_file_is_judged_as_rgb(tmp_path: Path) -> None:
    """Its figures are those of the same picture stored with three equal channels."""
    grey = waves(40, 40, channels=1)
    write_image(tmp_path / "a-grey.png", grey)
    write_image(tmp_path / "b-colour.png", np.repeat(grey, 3, axis=2))
    a, b = evaluate(MatlabBicubic(2), find_test_pairs(tmp_path, scale=2), scale=2)
    assert a.values == b.values


def test_lr_files_of_another_size_are_refused_with_both_sizes(tmp_path: Path) -> None:
    """An x2 file in the folder of x4, for instance."""
    hr_path = write_waves(tmp_path / "HR" / "a.png", 64, 48)
    lr_path = write_waves(tmp_path / "LR_bicubic" / "X4" / "ax4.png", 32, 24)
    pair = TestPair(name="a", hr_path=hr_path, lr_path=lr_path)
    with pytest.raises(ImageSizeError, match=r"24x32 pixels.*48x64, x4 needs 12x16"):
        read_pair(pair, scale=4)


@pytest.mark.parametrize(("side", "is_large_enough"), [(18, False), (19, False), (20, True)])
def test_an_image_must_keep_the_window_of_ssim_within_its_border(
    tmp_path: Path, side: int, is_large_enough: bool
) -> None:
    """At x4, 20 - 2*4 = 12 pixels are enough for 11; 19 is cropped to 16 first."""
    path = write_waves(tmp_path / "small.png", side, 40)
    pair = TestPair(name="small", hr_path=path, lr_path=None)
    if is_large_enough:
        (result,) = evaluate(MatlabBicubic(4), [pair], scale=4, metrics=FIDELITY_METRICS)
        assert len(result.values) == 4
        return
    with pytest.raises(ImageSizeError, match=rf"40x{side} pixels.*11 a side"):
        read_pair(pair, scale=4)


def test_16_bit_images_are_refused(tmp_path: Path) -> None:
    """Published figures are of 8 bits."""
    path = tmp_path / "deep.png"
    write_image(path, waves(40, 40).astype(np.uint16) * 257)
    with pytest.raises(ImageReadError, match="16 bits"):
        read_pair(TestPair(name="deep", hr_path=path, lr_path=None), scale=2)


def test_a_perfect_result_has_infinite_psnr_and_ssim_1(tmp_path: Path) -> None:
    """On Y and on RGB."""
    write_waves(tmp_path / "waves.png", 40, 40)
    pairs = find_test_pairs(tmp_path, scale=2)
    _, truth = read_pair(pairs[0], scale=2)
    (result,) = evaluate(lambda _: truth, pairs, scale=2, metrics=FIDELITY_METRICS)
    assert result.values == {
        "psnr_y_db": float("inf"),
        "ssim_y": 1.0,
        "psnr_rgb_db": float("inf"),
        "ssim_rgb": 1.0,
    }


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (np.zeros((1, 3, 16, 16), np.float32), r"\(1, 3, 16, 16\).*\(1, 3, 16, 24\)"),
        (np.full((1, 3, 16, 24), np.nan, np.float32), "NaN"),
    ],
    ids=["another size", "NaN"],
)
def test_a_result_that_cannot_be_judged_is_refused(result: np.ndarray, told: str) -> None:
    """The message says what came."""
    with pytest.raises(ImageValueError, match=told):
        upscale_rounded(lambda _: result, np.zeros((1, 3, 8, 12), np.float32), scale=2)


def test_the_official_padding_is_a_choice_that_shows(tmp_path: Path) -> None:
    """Windows reach over the whole padded image, so that its pooled statistics differ."""
    write_waves(tmp_path / "waves.png", 50, 70)
    pairs = find_test_pairs(tmp_path, scale=2)
    network = load_model("esc-tiny", scale=2)
    (official,) = evaluate_officially(network, pairs)
    core = open_network("esc-tiny", scale=2)
    (plain,) = evaluate(core, pairs, scale=2)
    (by_hand,) = evaluate(core, pairs, scale=2, pad_to_multiple=network.config.window_size)
    # The core and PyTorch differ by some roundings of float32, which may move a pixel by a level.
    assert official.psnr_y_db == pytest.approx(by_hand.psnr_y_db, abs=0.01)
    assert abs(official.psnr_y_db - plain.psnr_y_db) > 1


def test_results_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """One thread or two: the same to 1e-6 dB, on an image of odd sides."""
    write_waves(tmp_path / "odd.png", 37, 29)
    pairs = find_test_pairs(tmp_path, scale=2)
    network = small_network()
    before = torch.get_num_threads()
    try:
        means = [_mean_with_threads(network, pairs, count) for count in (1, 2)]
    finally:
        torch.set_num_threads(before)
    assert means[0] == pytest.approx(means[1], abs=1e-6)


def test_results_do_not_depend_on_the_images_beside(tmp_path: Path) -> None:
    """Each image is judged by itself: alone, or as one of several of another size."""
    for number, (height, width) in enumerate([(50, 70), (97, 61)]):
        write_waves(tmp_path / f"{number}.png", height, width, shift=number)
    pairs = find_test_pairs(tmp_path, scale=2)
    network = load_model("esc-tiny", scale=2)
    together = list(evaluate_officially(network, pairs))
    alone = [next(evaluate_officially(network, [pair])) for pair in pairs]
    assert together == alone


def _mean_with_threads(network: ESC, pairs: list[TestPair], count: int) -> tuple[float, float]:
    torch.set_num_threads(count)
    return mean_quality(evaluate_officially(network, pairs))
