"""What the Upscaler refuses: wrong options, wrong models, and what is no image."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from escsr.errors import (
    ConfigurationError,
    ImageSizeError,
    ImageValueError,
    UnknownModelError,
)
from escsr.upscaling import Upscaler
from tests.networks import nearest_engine, smallest, upscaler_of


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """One that would enlarge anything."""
    return upscaler_of(nearest_engine(2))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4, 3), np.int32), "int32; allowed are uint8, uint16"),
        (np.zeros((4, 4), bool), "bool; allowed are uint8"),
        (np.zeros((4, 4), np.float16), "float16; allowed are"),
        (np.zeros(4, np.uint8), r"shape \(4,\); allowed are"),
        (np.zeros((3, 4, 4), np.uint8)[None], r"shape \(1, 3, 4, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"move the channels last"),
        (np.full((4, 4, 3), 255.0), "from 255 to 255; floating point is in"),
        (np.full((4, 4, 3), -0.5, np.float32), "from -0.5 to -0.5"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), np.inf, np.float32), "infinite"),
        ([[0, 1], [2, 3]], "is a list; allowed are a path"),
        (None, "is a NoneType"),
    ],
)
def test_what_is_no_image_is_refused(upscaler: Upscaler, image: Any, said: str) -> None:
    """The message says what came and what is allowed."""
    with pytest.raises(ImageValueError, match=said):
        upscaler(image)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0, 0, 1)])
def test_an_image_without_pixels_is_refused(upscaler: Upscaler, shape: tuple[int, ...]) -> None:
    """No side may be empty."""
    with pytest.raises(ImageSizeError):
        upscaler(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "F", "I", "HSV"])
def test_other_pil_modes_are_refused(upscaler: Upscaler, mode: str) -> None:
    """With the way out."""
    with pytest.raises(ImageValueError, match=rf"mode {mode}; .*convert\(\"RGB\"\)"):
        upscaler(Image.new(mode, (4, 4)))


def test_a_transparent_grey_of_16_bits_is_refused(upscaler: Upscaler) -> None:
    """Pillow has no mode for the result; without the mark the image is enlarged."""
    image = Image.fromarray(np.zeros((4, 4), np.uint16))
    image.info["transparency"] = 0
    with pytest.raises(ImageValueError, match=r"mode I;16.*transparent grey.*delete"):
        upscaler(image)
    del image.info["transparency"]
    assert upscaler(image).mode == "I;16"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": 0}, "scale is 0"),
        ({"scale": -4}, "scale is -4"),
        ({"scale": 100}, "at most 16"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"tile": "big"}, "tile is 'big'"),
        ({"overlap_pixels": -1}, "overlap_pixels is -1"),
        ({"memory_limit_bytes": 0.5}, "memory_limit_bytes is 0.5"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"attention_backend": "slow"}, "attention_backend is 'slow'"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], said: str) -> None:
    """Before any image is touched."""
    with pytest.raises(ConfigurationError, match=said):
        Upscaler(smallest(2), **options)


def test_an_unknown_model_names_the_nearest() -> None:
    """A slip of the finger is told."""
    with pytest.raises(UnknownModelError, match="esc-tiny"):
        Upscaler("esc-tini")
