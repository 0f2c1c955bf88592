"""PSNR and SSIM, against recorded numbers, hand-worked values and the formula written out.

That bicubic reaches the field's figures is in ``tests/evaluation/test_protocol.py``.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.metrics import psnr_db, psnr_y_db, round_to_8_bit, ssim, ssim_y


def _batch(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)[None] / 255


def test_metrics_equal_the_recorded_reference(golden_folder: Path) -> None:
    """PSNR and SSIM of six pairs, on RGB and on Y, are the recorded ones."""
    recorded = np.load(golden_folder / "metrics_and_resize.npz")
    entries = json.loads(recorded["metrics_json"].tobytes())
    assert len(entries) == 6
    for entry in entries:
        a, b = (
            _batch(recorded[f"pair{entry['pair']}_{side}_rgb"])
            for side in ("reference", "distorted")
        )
        border = entry["crop_border"]
        assert psnr_db(a, b, border_pixels=border).item() == pytest.approx(entry["psnr_rgb"])
        assert ssim(a, b, border_pixels=border).item() == pytest.approx(entry["ssim_rgb"])
        # The recording computed Y in float32: 7e-7 dB and 4e-9 of it are its rounding.
        psnr_y = psnr_y_db(a, b, border_pixels=border).item()
        assert psnr_y == pytest.approx(entry["psnr_y"], abs=2e-6)
        assert ssim_y(a, b, border_pixels=border).item() == pytest.approx(entry["ssim_y"], abs=1e-8)


def test_psnr_is_what_hand_and_pencil_give() -> None:
    """A difference of 0.1 everywhere is 20 dB; of 1 in one pixel of four, 6.02 dB."""
    a = np.full((1, 3, 8, 8), 0.5)
    assert psnr_db(a, a + 0.1).item() == pytest.approx(20.0)
    b = np.zeros((1, 1, 2, 2))
    c = b.copy()
    c[..., 0, 0] = 1.0
    assert psnr_db(b, c).item() == pytest.approx(10 * math.log10(4))
    assert psnr_db(a, a).item() == math.inf


def test_luma_psnr_weighs_channels_as_bt601() -> None:
    """Red off by 0.1 moves Y by 65.481 * 0.1 / 255."""
    a = np.full((1, 3, 4, 4), 0.5)
    b = a.copy()
    b[:, 0] += 0.1
    assert psnr_y_db(a, b).item() == pytest.approx(-20 * math.log10(6.5481 / 255))


def test_ssim_of_two_constants_is_the_luminance_term() -> None:
    """Without structure, SSIM is (2ab + C1) / (a² + b² + C1)."""
    a, b = np.full((1, 1, 16, 16), 0.2), np.full((1, 1, 16, 16), 0.6)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-12)
    assert ssim(a, a).item() == pytest.approx(1.0)


def test_metrics_answer_per_image_of_a_batch() -> None:
    """A batch gives each image's own number."""
    a, b = np.random.default_rng(3).random((2, 3, 3, 20, 24), np.float32)
    for metric in (psnr_db, psnr_y_db, ssim, ssim_y):
        single = np.concatenate([metric(a[i : i + 1], b[i : i + 1]) for i in range(3)])
        assert metric(a, b).dtype == np.float64
        np.testing.assert_allclose(metric(a, b), single, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(11, 11), (26, 2100), (45, 2100), (90, 40)])
def test_ssim_is_the_formula_with_the_whole_window(size: tuple[int, int]) -> None:
    """The 11x11 window in one piece, over the whole image: tiles and two passes change nothing.

    Sizes of one position, of one tile with and without a rest, of several, and of few columns;
    1e-12 is some thousand roundings of float64.
    """
    generator = np.random.default_rng(5)
    a = generator.random((1, 2, *size))
    b = (a + 0.1 * generator.standard_normal(a.shape)).clip(0, 1)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        views = sliding_window_view(values, (11, 11), axis=(2, 3))
        return np.einsum("bchwij,ij->bchw", views, window)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    upper = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    lower = (mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4)
    np.testing.assert_allclose(ssim(a, b), [(upper / lower).mean()], atol=1e-12, rtol=0)
    expected_db = -10 * math.log10(np.square(a - b).mean())
    np.testing.assert_allclose(psnr_db(a, b), [expected_db], atol=1e-12, rtol=0)


def test_an_image_is_like_itself() -> None:
    """SSIM is exactly 1, in every tile."""
    a = np.random.default_rng(6).random((1, 3, 61, 2100), np.float32)
    assert ssim(a, a).item() == ssim_y(a, a).item() == 1.0


def test_border_is_cropped() -> None:
    """Errors within the border do not count."""
    a = np.zeros((1, 3, 20, 20))
    b = a.copy()
    b[..., :4, :] = 1
    assert psnr_db(a, b, border_pixels=4).item() == math.inf
    assert psnr_db(a, b, border_pixels=3).item() < 20


def test_rounding_to_8_bit_is_half_up_and_clamped() -> None:
    """-1, 0.5 / 255, 0.49 / 255 and 2 become 0, 1, 0 and 255."""
    values = np.array([-1.0, 0.5 / 255, 0.49 / 255, 2.0])
    assert (round_to_8_bit(values) * 255).tolist() == [0.0, 1.0, 0.0, 255.0]


def test_images_that_cannot_be_compared_are_refused() -> None:
    """Shapes, dtypes and borders are checked before anything is computed."""
    a = np.zeros((1, 3, 12, 12))
    with pytest.raises(ImageValueError, match="one shape"):
        psnr_db(a, np.zeros((1, 3, 12, 13)))
    with pytest.raises(ImageValueError, match="floating point"):
        psnr_db(a.astype(np.uint8), a.astype(np.uint8))
    with pytest.raises(ImageValueError, match="Luma needs"):
        psnr_y_db(a[:, :1], a[:, :1])
    with pytest.raises(ImageSizeError, match="11x11"):
        ssim(a, a, border_pixels=1)
    with pytest.raises(ImageSizeError, match="1x1"):
        psnr_db(a, a, border_pixels=6)
