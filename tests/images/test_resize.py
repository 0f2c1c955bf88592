"""MATLAB's bicubic, against recorded numbers, real LR images and invariants."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic, resize_bicubic_uint8


def _rgb(path: Path, multiple: int = 1) -> np.ndarray:
    pixels = read_image(path).pixels
    height, width = (side - side % multiple for side in pixels.shape[:2])
    pixels = pixels[:height, :width]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("0.5000", 1 / 2),
        ("0.3333", 1 / 3),
        ("0.2500", 1 / 4),
        ("0.3700", 0.37),
        ("2.0000", 2.0),
        ("2.5000", 2.5),
        ("3.0000", 3.0),
    ],
)
def test_resizing_equals_the_recorded_reference(
    golden_folder: Path, name: str, scale: float
) -> None:
    """Every recorded factor comes out with the recorded size and values."""
    recorded = np.load(golden_folder / "metrics_and_resize.npz")
    image = recorded["resize_input"].transpose(2, 0, 1)[None].astype(np.float64)
    ours = resize_bicubic(image, scale=scale)[0].transpose(1, 2, 0)
    assert ours.shape == recorded[f"resize_{name}"].shape
    # The recording computes positions in float32, which moves them by some 1e-6 pixel.
    assert np.abs(ours - recorded[f"resize_{name}"]).max() < 5e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_lr_images_come_out_pixel_identical(data_folder: Path, scale: int) -> None:
    """Shrinking Set5's HR images gives MATLAB's LR images to the last pixel."""
    paths = sorted((data_folder / "test/Set5/HR").iterdir())
    assert len(paths) == 5
    for path in paths:
        (lr_path,) = (data_folder / f"test/Set5/LR_bicubic/X{scale}").glob(f"{path.stem}*")
        ours = resize_bicubic_uint8(_rgb(path, scale), scale=1 / scale)
        np.testing.assert_array_equal(ours, _rgb(lr_path), err_msg=path.name)


def test_b100_lr_images_come_out_pixel_identical(data_folder: Path) -> None:
    """All 100 LR x4 images of B100 are MATLAB's to the last pixel."""
    paths = sorted((data_folder / "test/B100/HR_jpg").iterdir())
    assert len(paths) == 100
    for path in paths:
        (lr_path,) = (data_folder / "test/B100/LR_bicubic/X4").glob(f"{path.stem}*")
        ours = resize_bicubic_uint8(_rgb(path, 4), scale=1 / 4)
        np.testing.assert_array_equal(ours, _rgb(lr_path), err_msg=path.name)


def test_halving_a_step_gives_the_weights_worked_by_hand() -> None:
    """A unit impulse halved shows the widened cubic kernel, worked by hand."""
    row = np.zeros((1, 1, 1, 16))
    row[..., 6] = 1.0
    halved = resize_bicubic(row, output_size=(1, 8))[0, 0, 0] * 256
    # Output j is centred on 2j + 0.5, so outputs 1 to 4 lie 3.5, 1.5, 0.5, 2.5 from the impulse;
    # cubic(d / 2) / 2 with a = -0.5 is -3, 29, 111, -9 of 256 there.
    np.testing.assert_allclose(halved, [0, -3, 29, 111, -9, 0, 0, 0], atol=1e-12, rtol=0)


def test_borders_are_mirrored_with_the_edge_repeated() -> None:
    """Shrinking equals shrinking the image padded by mirroring, cropped again."""
    image = np.random.default_rng(1).random((1, 3, 24, 36))
    padded = np.pad(image, ((0, 0), (0, 0), (24, 24), (36, 36)), mode="symmetric")
    whole = resize_bicubic(padded, scale=1 / 3)[..., 8:16, 12:24]
    np.testing.assert_allclose(resize_bicubic(image, scale=1 / 3), whole, atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.floats(0.1, 4.0),
    value=st.floats(0.0, 1.0),
)
def test_a_constant_stays_constant(height: int, width: int, scale: float, value: float) -> None:
    """Weights sum to one for every size and factor, borders included."""
    resized = resize_bicubic(np.full((1, 1, height, width), value), scale=scale)
    assert np.abs(resized - value).max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from([1.5, 2.0, 3.0, 4.0, 0.5, 0.25]), slope=st.floats(-1.0, 1.0))
def test_a_ramp_stays_a_ramp_inside(scale: float, slope: float) -> None:
    """Away from the borders a linear ramp is sampled at the shifted positions exactly."""
    ramp = slope * np.arange(64, dtype=np.float64)
    resized = resize_bicubic(ramp[None, None, None], output_size=(1, round(64 * scale)))[0, 0, 0]
    position = (np.arange(len(resized)) + 0.5) / scale - 0.5
    margin = round(10 * max(scale, 1))
    inside = slice(margin, -margin) if scale >= 1 else slice(3, -3)
    assert np.allclose(resized[inside], slope * position[inside], atol=1e-10, rtol=0)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), channels=st.integers(1, 4))
def test_scale_one_is_the_identity(height: int, width: int, channels: int) -> None:
    """Scale 1 changes nothing, in floating point and in uint8."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)
    np.testing.assert_array_equal(resize_bicubic_uint8(pixels, scale=1), pixels)
    image = pixels.transpose(2, 0, 1)[None].astype(np.float64)
    np.testing.assert_array_equal(resize_bicubic(image, scale=1.0), image)


def test_a_rounding_error_of_the_factor_adds_no_pixel() -> None:
    """30 rows times 0.1 are 3, although 0.1 is a little more than a tenth in binary."""
    assert resize_bicubic(np.zeros((1, 1, 30, 9)), scale=0.1).shape == (1, 1, 3, 1)
    assert resize_bicubic(np.zeros((1, 1, 9, 9)), scale=1 / 3).shape == (1, 1, 3, 3)
    assert resize_bicubic(np.zeros((1, 1, 10, 9)), scale=1 / 3).shape == (1, 1, 4, 3)


def test_float32_agrees_with_float64(golden_folder: Path) -> None:
    """float32 loses no more than its own rounding."""
    recorded = np.load(golden_folder / "metrics_and_resize.npz")["resize_input"]
    image = recorded.transpose(2, 0, 1)[None]
    for scale in (0.25, 0.37, 2.5):
        resized = resize_bicubic(image, scale=scale)
        assert resized.dtype == image.dtype == np.float32
        assert np.abs(resized - resize_bicubic(image.astype(np.float64), scale=scale)).max() < 1e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_strips_of_a_long_axis_change_nothing(axis: int) -> None:
    """A part of 9000 pixels is resized to the same alone, away from its ends."""
    size = (9000, 40) if axis == 0 else (40, 9000)
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    image = pixels.transpose(2, 0, 1)[None] / 255
    for start in (0, 1960, 4000):
        part, made = range(start, start + 5000), range(start // 2 + 20, start // 2 + 2480)
        alone = resize_bicubic_uint8(pixels.take(part, axis), scale=0.5)
        whole = resize_bicubic_uint8(pixels, scale=0.5)
        np.testing.assert_array_equal(alone.take(range(20, 2480), axis), whole.take(made, axis))
        alone = resize_bicubic(image.take(part, axis + 2), scale=0.5)
        whole = resize_bicubic(image, scale=0.5)
        alone, whole = alone.take(range(20, 2480), axis + 2), whole.take(made, axis + 2)
        np.testing.assert_allclose(alone, whole, atol=1e-12, rtol=0)


def test_uint8_needs_no_channel_axis() -> None:
    """(H, W) comes back as (H', W')."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8)
    flat = resize_bicubic_uint8(pixels, scale=0.5)
    deep = resize_bicubic_uint8(pixels[..., None], scale=0.5)
    assert flat.shape == (6, 10)
    np.testing.assert_array_equal(flat, deep[..., 0])


@pytest.mark.parametrize("scale", [0.0, -2.0, float("nan"), float("inf")])
def test_a_senseless_factor_is_refused(scale: float) -> None:
    """A factor that is zero, negative, infinite or no number is named in the error."""
    with pytest.raises(ImageSizeError, match="positive number"):
        resize_bicubic(np.zeros((1, 3, 4, 4)), scale=scale)


def test_senseless_arguments_are_refused() -> None:
    """Wrong dtype, shape or both kinds of size are told apart."""
    with pytest.raises(ImageValueError, match="floating-point"):
        resize_bicubic(np.zeros((1, 3, 4, 4), np.uint8), scale=2)
    with pytest.raises(ImageValueError, match="uint8"):
        resize_bicubic_uint8(np.zeros((4, 4, 3)), scale=2)
    with pytest.raises(ImageValueError, match="either"):
        resize_bicubic(np.zeros((1, 3, 4, 4)), scale=2, output_size=(8, 8))
    with pytest.raises(ImageSizeError, match="empty"):
        resize_bicubic(np.zeros((1, 3, 0, 4)), scale=2)
    with pytest.raises(ImageSizeError, match="at least 1"):
        resize_bicubic(np.zeros((1, 3, 4, 4)), output_size=(0, 4))


def test_pixels_come_from_libvips_as_expected(picture, tmp_path: Path) -> None:
    """Reading a PNG gives the array that was written, so that the proofs above compare pixels."""
    pixels = picture()
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    image.write_to_file(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(_rgb(tmp_path / "a.png"), pixels)
