"""The Upscaler, called with images in memory: the same kind comes back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from escsr.errors import ImageReadError, ImageValueError
from escsr.images.writer import resize_pixels, write_image
from escsr.upscaling import Upscaler
from escsr.weights import bundled_models
from tests.networks import engine_of, nearest_engine, smallest, tiny, upscaler_of


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """A small network with seeded weights, x2, on the CPU."""
    return Upscaler(smallest(2), device="cpu")


def picture_of(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random pixels over the whole range of a dtype."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_an_array_gives_an_array_of_its_kind(
    upscaler: Upscaler, dtype: Any, channels: tuple[int, ...]
) -> None:
    """Same dtype, same number of axes and channels, twice as large, near the source."""
    image = picture_of(12, 10, *channels, dtype=dtype)
    if channels in ((2,), (4,)):
        image[..., -1] = image[..., -1] // 2 + 100 if image.dtype.kind == "u" else 0.5
    result = upscaler(image)
    assert result.dtype == image.dtype
    assert result.shape == (24, 20, *channels)
    peak = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    enlarged = image.repeat(2, 0).repeat(2, 1).astype(float) / peak
    assert np.abs(result / peak - enlarged).mean() < 0.1


def test_16_bits_are_not_cut_to_8(upscaler: Upscaler) -> None:
    """A faint ramp that 8 bits would flatten keeps more levels than 8 bits have there."""
    ramp = np.linspace(30000, 30500, 32).astype(np.uint16)
    image = np.broadcast_to(ramp[None, :, None], (32, 32, 3))
    assert len(np.unique(upscaler(image))) > 100


def test_grey_equals_its_rgb_without_tint(upscaler: Upscaler) -> None:
    """One channel is the mean of what three equal ones give, within its rounding."""
    grey = picture_of(16, 16) // 2 + 64  # nothing overshoots, so nothing is clamped
    rgb = upscaler(grey[..., None].repeat(3, 2)).astype(float)
    assert np.abs(upscaler(grey) - rgb.mean(axis=2)).max() <= 1


def test_hidden_colours_leave_no_fringes(upscaler: Upscaler) -> None:
    """Whatever stands under alpha 0, the visible result is the same."""
    image = picture_of(16, 16, 4)
    image[..., 3] = 255
    image[:, 8:, 3] = 0
    other = image.copy()
    other[:, 8:, :3] = 255 - other[:, 8:, :3]
    assert np.array_equal(upscaler(image), upscaler(other))


@pytest.mark.parametrize(
    ("mode", "result_mode"),
    [
        ("L", "L"),
        ("LA", "LA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("I;16", "I;16"),
        ("1", "L"),
        ("P", "RGB"),
    ],
)
def test_a_pil_image_gives_a_pil_image(upscaler: Upscaler, mode: str, result_mode: str) -> None:
    """Of the same mode; palettes and 1-bit images, which hold no new colours, become full."""
    if mode == "I;16":
        image = Image.fromarray(picture_of(8, 6, dtype=np.uint16))
    else:
        channels = 4 if mode in ("LA", "RGBA") else 3
        image = Image.fromarray(picture_of(8, 6, channels)).convert(mode)
    image.info["icc_profile"] = b"profile"
    result = upscaler(image)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (result_mode, (12, 16))
    assert result.info["icc_profile"] == b"profile"


def test_a_palette_with_a_transparent_colour_becomes_rgba(upscaler: Upscaler) -> None:
    """Transparency is kept as alpha."""
    image = Image.fromarray(picture_of(8, 8) // 64).convert("P")
    image.info["transparency"] = 0
    result = upscaler(image)
    assert result.mode == "RGBA"
    assert "transparency" not in result.info


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (1, 2, 3)), ("1", 255)])
def test_a_transparent_colour_becomes_alpha(
    upscaler: Upscaler, mode: str, key: int | tuple[int, ...]
) -> None:
    """As in a PNG that marks one grey or colour instead of storing alpha."""
    image = Image.new(mode, (6, 8), key)
    image.info["transparency"] = key
    result = upscaler(image)
    assert result.mode == ("RGBA" if mode == "RGB" else "LA")
    # Not 0: the alpha of a network with random weights strays by a level or two.
    assert result.getchannel("A").getextrema()[1] < 8
    assert "transparency" not in result.info


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_pil_image_of_several_frames_is_refused_and_one_of_its_frames_is_not(
    upscaler: Upscaler, tmp_path: Path, form: str
) -> None:
    """As the command line refuses it; the message says how to take one."""
    frames = [Image.fromarray(picture_of(8, 8, 3, seed=seed)) for seed in (0, 1)]
    path = tmp_path / "frames"
    frames[0].save(path, form, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(path) as image:
        with pytest.raises(ImageValueError, match=rf"2 frames .*{form}.*image.copy\(\)") as caught:
            upscaler(image)
        assert "\n" not in str(caught.value)
        image.seek(1)
        assert upscaler(image.copy()).size == (16, 16)


def test_a_pil_image_of_one_frame_and_the_first_of_a_stereo_photo_are_taken(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    """A GIF of one frame is a picture; what a phone adds behind the photo is no other page."""
    photo, other = (Image.fromarray(picture_of(16, 16, 3, seed=seed)) for seed in (0, 1))
    photo.save(tmp_path / "one.gif")
    photo.save(tmp_path / "pair.mpo", "MPO", save_all=True, append_images=[other])
    for name in ("one.gif", "pair.mpo"):
        with Image.open(tmp_path / name) as image:
            assert upscaler(image).size == (32, 32)
    with Image.open(tmp_path / "pair.mpo") as image:
        assert image.n_frames == 2
        first = np.asarray(image.convert("RGB"))
        assert np.array_equal(np.asarray(upscaler(image)), upscaler(first))


def test_a_path_gives_pixels(upscaler: Upscaler, tmp_path: Path) -> None:
    """What the file holds, enlarged; as (H, W, C), given as text or as a path."""
    pixels = picture_of(9, 7, 1)
    path = tmp_path / "grün.png"
    write_image(path, pixels)
    assert np.array_equal(upscaler(path), upscaler(pixels))
    assert np.array_equal(upscaler(str(path)), upscaler(pixels))
    with pytest.raises(ImageReadError):
        upscaler(tmp_path / "absent.png")


def test_the_smallest_image_works(upscaler: Upscaler) -> None:
    """One pixel."""
    assert upscaler(np.zeros((1, 1), np.uint8)).shape == (2, 2)


def test_the_input_is_left_as_it_is(upscaler: Upscaler) -> None:
    """Also where values are clamped, or colours continued below opacity."""
    for channels in (3, 4):
        array = picture_of(8, 8, channels, dtype=np.float32)
        array[0, 0] = 1.0005
        array[1:3, 1:3, -1] = 0
        copy = array.copy()
        upscaler(array)
        assert np.array_equal(array, copy)


def test_odd_strides_and_byte_orders_are_understood(upscaler: Upscaler) -> None:
    """Flipped, transposed, big-endian: what counts is the values."""
    image = picture_of(10, 12, 3, dtype=np.uint16)
    flipped = np.ascontiguousarray(image[::-1])
    assert np.array_equal(upscaler(image[::-1]), upscaler(flipped))
    big = image.astype(">u2")
    assert np.array_equal(upscaler(big), upscaler(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 4])
def test_any_factor_runs_the_network_above_and_shrinks(
    upscaler: Upscaler, dtype: Any, channels: int
) -> None:
    """x1.5 is x2 shrunk; x3 is x2 twice, shrunk."""
    image = picture_of(20, 30, channels, dtype=dtype)
    assert upscaler(image, scale=1.5).shape == (30, 45, channels)
    assert upscaler(image, longest=90).shape == (60, 90, channels)
    assert upscaler(image, width=31, height=40).shape == (40, 31, channels)
    if dtype == np.uint8:
        expected = resize_pixels(upscaler(image), width=45, height=30, weighs_opacity=False)
        assert np.array_equal(upscaler(image, scale=1.5), expected)


def test_two_passes_are_two_calls(upscaler: Upscaler) -> None:
    """x4 of an x2 network is the network applied to its own result."""
    image = picture_of(10, 12, 3)
    assert np.array_equal(upscaler(image, scale=4), upscaler(upscaler(image)))


def test_the_scale_of_the_constructor_is_the_default() -> None:
    """And a call's size goes before it."""
    upscaler = upscaler_of(nearest_engine(2), scale=3)
    image = picture_of(8, 8)
    assert upscaler(image).shape == (24, 24)
    assert upscaler(image, scale=2).shape == (16, 16)
    assert upscaler(image, width=20).shape == (20, 20)
    assert upscaler.output_size((8, 8)) == (24, 24)


def test_a_checkpoint_is_loaded_from_its_path() -> None:
    """Its own factor, its own weights."""
    path, image = smallest(3), picture_of(8, 8, 3, dtype=np.float32)
    upscaler = Upscaler(path, device="cpu", keep_colours=False)
    assert (upscaler.scales, upscaler.model_name) == ((3,), path.name)
    expected = engine_of(path).run(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    assert np.array_equal(upscaler(image), expected.clip(0, 1))


def test_the_box_comes_in_several_factors() -> None:
    """A name loads each factor when it is first needed."""
    scales = tuple(sorted(model.scale for model in bundled_models() if model.name == "esc-tiny"))
    if not scales:
        pytest.skip("no weights are in the box yet")
    upscaler = Upscaler("ESC_tiny", device="cpu")
    assert upscaler.scales == scales
    for scale in scales:
        assert upscaler(picture_of(8, 8, 3), scale=scale).shape == (8 * scale, 8 * scale, 3)


def from_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    """Start all of them together."""
    barrier = threading.Barrier(count)

    def task(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(task, range(count)))


def test_threads_get_what_serial_calls_get() -> None:
    """Four threads, one new Upscaler, four images of different sizes and kinds."""
    images = [
        picture_of(40, 33, 3, seed=1),
        picture_of(17, 50, seed=2),
        picture_of(33, 33, 4, seed=3),
        picture_of(48, 20, 3, dtype=np.uint16, seed=4),
    ]
    network = tiny(2)
    serial = [Upscaler(network, device="cpu", tile=32)(image) for image in images]
    shared = Upscaler(network, device="cpu", tile=32)
    parallel = from_threads(lambda index: shared(images[index]), 4)
    for one, other in zip(serial, parallel, strict=True):
        assert np.array_equal(one, other)
