"""NIQE: it tells good photographs from damaged ones, and reads the parameters of others."""

import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    ImageSizeError,
    ImageValueError,
    MissingExtraError,
)
from escsr.evaluation.niqe import (
    SHIPPED_FILE,
    NiqeParameters,
    describe_patches,
    fit_asymmetric_gaussian,
    load_niqe_parameters,
    niqe,
    normalize_contrast,
    save_niqe_parameters,
)
from escsr.evaluation.protocol import to_pixels
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.images.metrics import round_to_8_bit
from escsr.images.resize import resize_bicubic

FIT = Path(__file__).parents[2] / "benchmarks" / "fit_niqe.py"
fit_niqe_parameters = runpy.run_path(str(FIT))["fit_niqe_parameters"]


def natural_like(seed: int, height: int = 384, width: int = 384) -> np.ndarray:
    """Overlapping discs of random size and brightness, with ripples: natural statistics."""
    random = np.random.default_rng(seed)
    rows, columns = np.ogrid[:height, :width]
    picture = np.full((height, width), 0.5)
    for _ in range(1500):
        radius = 3.0 / np.sqrt(random.uniform(0.002, 1.0))
        row, column = random.uniform(0, height), random.uniform(0, width)
        top, left = max(0, int(row - radius)), max(0, int(column - radius))
        box = slice(top, int(row + radius) + 2), slice(left, int(column + radius) + 2)
        y, x = rows[box[0]], columns[:, box[1]]
        paint = random.uniform() + 0.05 * np.sin(x / random.uniform(1, 4))
        is_inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        picture[box] = np.where(is_inside, paint, picture[box])
    return round_to_8_bit(np.broadcast_to(picture, (1, 3, *picture.shape)))


def blurred(image: np.ndarray) -> np.ndarray:
    """Shrunk to a third and enlarged again."""
    height, width = image.shape[2:]
    small = resize_bicubic(image, scale=1 / 3)
    return round_to_8_bit(resize_bicubic(small, output_size=(height, width)))


def noisy(image: np.ndarray) -> np.ndarray:
    """With white noise of 15 levels."""
    noise = np.random.default_rng(0).standard_normal(image.shape)
    return round_to_8_bit(image + 15 / 255 * noise)


def compressed(image: np.ndarray) -> np.ndarray:
    """As JPEG of quality 10."""
    pixels = to_pixels(image)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=10)
    decoded = np.array(Image.open(stream).convert("RGB"))
    return decoded.transpose(2, 0, 1)[None] / 255


DAMAGES = [blurred, noisy, compressed]


@pytest.fixture(scope="module")
def shipped() -> NiqeParameters:
    """The parameters in the package."""
    return load_niqe_parameters()


@pytest.mark.parametrize("damage", DAMAGES)
def test_niqe_rises_when_a_photograph_is_damaged(
    data_folder: Path, shipped: NiqeParameters, damage: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Each of six photographs of B100, not among those of the fit, gets a worse value."""
    paths = sorted((data_folder / "test" / "B100" / "HR_jpg").glob("*.jpg"))[::17]
    assert len(paths) == 6
    for path in paths:
        pixels = to_rgb_uint8(read_image(path).pixels)
        photograph = pixels.transpose(2, 0, 1)[None] / 255
        assert niqe(damage(photograph), shipped) > niqe(photograph, shipped) + 0.5, path.name


def test_niqe_rises_when_a_synthetic_picture_is_damaged() -> None:
    """With parameters fitted on pictures of the same kind, as with photographs."""
    parameters = fit_niqe_parameters([natural_like(seed) for seed in range(1, 6)], provenance={})
    assert parameters.provenance["photographs"] == "5"
    picture = natural_like(0)
    value = niqe(picture, parameters)
    for damage in DAMAGES:
        assert niqe(damage(picture), parameters) > value + 0.5, damage.__name__


@pytest.mark.parametrize(("seed", "recorded"), [(0, 7.67236), (3, 6.62438)])
def test_niqe_is_what_another_implementation_gives(seed: int, recorded: float) -> None:
    """Against a standard Gaussian, so that the value depends on nothing but the method.

    Recorded from pyiqa 0.1.16 on the same pictures, which are grey: it rounds colour otherwise.
    """
    standard = NiqeParameters(mean=np.zeros(36), covariance=np.eye(36), provenance={})
    torch = pytest.importorskip("torch")  # its noise was added when the values were recorded
    picture = natural_like(seed)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(picture.shape, generator=generator, dtype=torch.float64).numpy()
    noisy_picture = round_to_8_bit(picture + 15 / 255 * noise)
    grey = round_to_8_bit(noisy_picture.mean(axis=1, keepdims=True))
    # One step of the table of shapes, where a ratio lies between two, moves the value by 1e-5.
    assert niqe(grey.repeat(3, axis=1), standard) == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 0.5, 2.0)])
def test_the_fit_finds_the_parameters_of_what_was_drawn(
    shape: float, left: float, right: float
) -> None:
    """|x| / scale is the shape-th root of a gamma variate; a side is as likely as it is wide."""
    random = np.random.default_rng(0)
    size = (1, 1_000_000)
    magnitude = random.gamma(1 / shape, size=size) ** (1 / shape)
    is_right = random.uniform(size=size) < right / (left + right)
    samples = np.where(is_right, right * magnitude, -left * magnitude)
    found = np.stack(fit_asymmetric_gaussian(samples))
    expected = np.array([shape, left, right])[:, None]
    # A million samples tell a scale to about a hundredth.
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0)


def test_contrast_is_normalised_by_the_deviation_of_a_7x7_window() -> None:
    """Beside one bright pixel on black, mean and deviation are the window's weights, by hand."""
    grey = np.zeros((1, 1, 15, 15))
    grey[0, 0, 7, 7] = 100.0
    offsets = np.arange(-3, 4)
    gauss = np.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    weight = float(gauss[3] * gauss[5] / gauss.sum() ** 2)
    deviation = (weight * 100**2 - (weight * 100) ** 2) ** 0.5
    coefficients, deviations = normalize_contrast(grey)
    assert float(deviations[0, 0, 7, 9]) == pytest.approx(deviation)
    assert float(coefficients[0, 0, 7, 9]) == pytest.approx(-weight * 100 / (deviation + 1))
    assert float(coefficients[0, 0, 7, 11]) == 0.0


def test_a_constant_area_is_zero() -> None:
    """At every level, although the window's weights do not sum to exactly 1 in float64."""
    for level in range(0, 256, 5):
        plane = np.full((1, 1, 9, 9), float(level))
        assert not normalize_contrast(plane)[0].any(), level


def test_what_is_left_over_beyond_whole_patches_is_not_looked_at(shipped: NiqeParameters) -> None:
    """300x200 pixels are 3x2 patches."""
    picture = natural_like(3)[..., :200, :300]
    assert describe_patches(picture).features.shape == (6, 36)
    assert niqe(picture, shipped) == niqe(picture[..., :192, :288], shipped)


@pytest.mark.parametrize("size", [(95, 400), (191, 191), (96, 96), (0, 0)])
def test_an_image_of_fewer_than_two_patches_is_refused(
    shipped: NiqeParameters, size: tuple[int, int]
) -> None:
    """With its size."""
    with pytest.raises(ImageSizeError, match=f"{size[1]}x{size[0]}.*larger"):
        niqe(np.random.default_rng(0).random((1, 3, *size), np.float32), shipped)


def test_a_constant_image_is_refused_for_its_lack_of_texture(shipped: NiqeParameters) -> None:
    """Nothing can be told of it."""
    with pytest.raises(ImageValueError, match="texture"):
        niqe(np.full((1, 3, 192, 192), 0.4), shipped)


def test_constant_patches_beside_others_do_not_count(shipped: NiqeParameters) -> None:
    """A black bar under a picture leaves its value finite."""
    picture = natural_like(3)
    picture = np.concatenate((picture, np.zeros((1, 3, 192, 384))), axis=2)
    assert 0 < niqe(picture, shipped) < 100


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 3, 192, 192)),
        np.zeros((1, 1, 192, 192)),
        np.zeros((1, 3, 192, 192), np.uint8),
        np.full((1, 3, 192, 192), np.nan),
    ],
    ids=["batch", "grey", "integers", "nan"],
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray, shipped: NiqeParameters) -> None:
    """One image, three channels, floating point, no NaN."""
    with pytest.raises(ImageValueError):
        niqe(image, shipped)


def test_too_few_photographs_to_fit_are_refused() -> None:
    """Sixteen patches cannot tell the covariance of 36 features."""
    with pytest.raises(ImageValueError, match="Add photographs"):
        fit_niqe_parameters([natural_like(0)], provenance={})


def test_the_shipped_parameters_say_where_they_are_from(shipped: NiqeParameters) -> None:
    """Licence, photographs, patches; small, and invertible."""
    assert shipped.provenance["licence"] == "MIT"
    assert int(shipped.provenance["photographs"]) == 195
    assert int(shipped.provenance["patches"]) > 1000
    assert SHIPPED_FILE.stat().st_size < 100_000
    assert (np.linalg.eigvalsh(shipped.covariance) > 0).all()


def test_parameters_survive_a_file(tmp_path: Path, shipped: NiqeParameters) -> None:
    """Ours, written and read."""
    save_niqe_parameters(shipped, tmp_path / "mine.safetensors")
    read = load_niqe_parameters(tmp_path / "mine.safetensors")
    assert read.provenance == shipped.provenance
    assert np.array_equal(read.mean, shipped.mean)
    assert np.array_equal(read.covariance, shipped.covariance)


@pytest.mark.parametrize("spelling", ["prisparam", "pris_param"])
def test_published_parameters_are_read_from_npz(
    tmp_path: Path, shipped: NiqeParameters, spelling: str
) -> None:
    """As the authors spell the arrays, and as their NumPy copies do; the mean is a row."""
    arrays = {f"mu_{spelling}": shipped.mean[None], f"cov_{spelling}": shipped.covariance}
    np.savez(tmp_path / "published.npz", **arrays, gaussian_window=np.ones((7, 7)))
    read = load_niqe_parameters(tmp_path / "published.npz")
    assert np.array_equal(read.mean, shipped.mean)
    assert np.array_equal(read.covariance, shipped.covariance)


def test_published_parameters_are_read_from_mat(tmp_path: Path, shipped: NiqeParameters) -> None:
    """The authors' own file kind, where SciPy is installed."""
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "modelparameters.mat"
    mean, covariance = shipped.mean[None], shipped.covariance
    scipy_io.savemat(path, {"mu_prisparam": mean, "cov_prisparam": covariance})
    read = load_niqe_parameters(path)
    assert np.array_equal(read.mean, shipped.mean)
    assert np.array_equal(read.covariance, shipped.covariance)


def test_a_mat_file_without_scipy_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SciPy is no dependency of the package."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    (tmp_path / "modelparameters.mat").touch()
    with pytest.raises(MissingExtraError, match=r"escsr\[metrics\]"):
        load_niqe_parameters(tmp_path / "modelparameters.mat")
    with pytest.raises(CheckpointError, match="absent"):
        load_niqe_parameters(tmp_path / "absent.mat")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("content", [None, b"", b"no parameters at all" * 10])
def test_a_missing_or_damaged_file_is_named(
    tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    """And what to give instead."""
    path = tmp_path / f"broken{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken.*modelparameters\.mat"):
        load_niqe_parameters(path)


def test_arrays_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    """The message says what is there."""
    np.savez(tmp_path / "small.npz", mu_prisparam=np.zeros(5), cov_prisparam=np.zeros((5, 5)))
    with pytest.raises(CheckpointError, match=r"shape \(5,\)"):
        load_niqe_parameters(tmp_path / "small.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(5))
    with pytest.raises(CheckpointError, match=r"no mu_prisparam.*weights"):
        load_niqe_parameters(tmp_path / "other.npz")


def test_weights_of_a_network_are_no_parameters(tmp_path: Path) -> None:
    """A .safetensors of another kind is told by its header."""
    from safetensors.numpy import save_file

    save_file({"mean": np.zeros(36)}, tmp_path / "network.safetensors")
    with pytest.raises(CheckpointError, match="kind"):
        load_niqe_parameters(tmp_path / "network.safetensors")


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    """A pickle is not opened."""
    with pytest.raises(ConfigurationError, match=r"\.safetensors, \.npz, \.mat"):
        load_niqe_parameters(tmp_path / "parameters.pkl")
