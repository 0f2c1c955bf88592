"""ESC+LTE's own protocol: each of its steps, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from escsr.errors import ConfigurationError, ImageSizeError, ImageValueError
from escsr.evaluation.lte_protocol import evaluate_lte, lte_psnr_y_db, make_lte_pair
from escsr.evaluation.test_sets import find_test_pairs
from escsr.images.writer import write_image
from escsr.model import ESC
from tests.model.networks import small_config


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth waves, (H, W, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 5 + channel) * np.cos(columns / 4) for channel in range(3)]
    return (127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.mark.parametrize(
    ("scale", "lr_size", "hr_size"),
    [(2, (15, 20), (30, 40)), (2.7, (11, 15), (30, 40)), (4, (7, 10), (28, 40))],
)
def test_lr_is_pillow_s_of_the_cropped_hr(
    scale: float, lr_size: tuple[int, int], hr_size: tuple[int, int]
) -> None:
    """From 31x41 pixels: floor(side / s) pixels, made of round(s x that)."""
    pixels = photograph(31, 41)
    lr_image, hr_image = make_lte_pair(pixels, scale=scale)
    assert lr_image.shape[2:] == lr_size and hr_image.shape[2:] == hr_size
    cropped = pixels[: hr_size[0], : hr_size[1]]
    shrunk = Image.fromarray(cropped).resize(lr_size[::-1], Image.Resampling.BICUBIC)
    for image, expected in ((hr_image, cropped), (lr_image, np.array(shrunk))):
        assert np.array_equal((image[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_psnr_is_of_the_weighted_difference() -> None:
    """Green off by 0.1: Y by 0.1 x 129.057/256, so -20 log10 of that; nothing is rounded."""
    hr_image = torch.full((1, 3, 20, 20), 0.5)
    sr_image = hr_image.clone()
    sr_image[:, 1] += 0.1
    expected = -20 * math.log10(0.1 * 129.057 / 256)
    assert lte_psnr_y_db(sr_image, hr_image, scale=2) == pytest.approx(expected, abs=1e-5)


def test_borders_of_the_scale_do_not_count_and_results_are_clamped() -> None:
    """2.5 pixels are 3; white beyond 1 is white."""
    hr_image = torch.ones(1, 3, 12, 12)
    sr_image = hr_image + 0.3
    sr_image[..., :3, :] = 0
    assert lte_psnr_y_db(sr_image, hr_image, scale=2.5) == math.inf
    assert lte_psnr_y_db(sr_image, hr_image, scale=2) < 30


def test_a_network_is_judged_at_any_scale(tmp_path: Path) -> None:
    """By names, with its own result; random weights give a figure all the same."""
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", photograph(31, 41))
    config = small_config(
        scale=4, upsampler="lte", image_skip="none", texture_dim=8, texture_mlp_dim=8
    )
    network = ESC(config).eval()
    pairs = find_test_pairs(tmp_path, scale=4)
    results = list(evaluate_lte(network, pairs, scale=2.7))
    assert [result.name for result in results] == ["a", "b"]
    lr_image, hr_image = make_lte_pair(photograph(31, 41), scale=2.7)
    with torch.no_grad():
        own = lte_psnr_y_db(network(lr_image, (30, 40)), hr_image, scale=2.7)
    assert results[0].psnr_y_db == pytest.approx(own, abs=1e-6)


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    """A network of one scale, a scale below 1, images too small or of different sizes."""
    with pytest.raises(ConfigurationError, match="enlarges by 2 alone"):
        list(evaluate_lte(ESC(small_config()), [], scale=2))
    with pytest.raises(ConfigurationError, match="1 or more"):
        make_lte_pair(photograph(9, 9), scale=0.5)
    with pytest.raises(ImageSizeError, match="cannot be made 20 times smaller"):
        make_lte_pair(photograph(9, 9), scale=20)
    with pytest.raises(ImageSizeError, match="leave nothing"):
        lte_psnr_y_db(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), scale=4)
    with pytest.raises(ImageValueError, match="one shape"):
        lte_psnr_y_db(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9), scale=1)
