"""The part of an image that is looked at, and its patch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from escsr.analysis.pictures import Patch, most_detailed_patch, read_picture
from escsr.errors import ConfigurationError
from escsr.images.writer import write_image


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """A grey picture of 20x10 pixels, each of its own value."""
    path = tmp_path / "numbered.png"
    write_image(path, np.arange(200, dtype=np.uint8).reshape(10, 20, 1))
    return path


def test_the_middle_is_kept(numbered: Path) -> None:
    """And grey becomes three equal channels."""
    picture = read_picture(numbered, crop_pixels=4)
    assert (picture.left, picture.top, picture.width, picture.height) == (8, 3, 20, 10)
    assert picture.image.shape == (1, 3, 4, 4)
    assert float(picture.image[0, 2, 0, 0] * 255) == pytest.approx(3 * 20 + 8)


def test_the_part_lies_around_a_patch(numbered: Path) -> None:
    """Moved to stay inside the image."""
    picture = read_picture(numbered, crop_pixels=6, patch=Patch(x=18, y=0, side=2))
    assert (picture.left, picture.top) == (14, 0)


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        (Patch(x=15, y=0, side=6), "20x10 pixels: X"),
        (Patch(x=0, y=8, side=3), "reaches outside"),
        (Patch(x=0, y=0, side=0), "SIDE 1 or more"),
        (Patch(x=0, y=0, side=9), "--crop"),
    ],
)
def test_a_patch_that_is_not_inside_is_refused(numbered: Path, patch: Patch, told: str) -> None:
    """With the size that there is."""
    with pytest.raises(ConfigurationError, match=told):
        read_picture(numbered, crop_pixels=8, patch=patch)


def test_the_patch_of_strong_edges_is_found() -> None:
    """In the middle, where surroundings are left."""
    image = torch.full((1, 3, 40, 40), 0.5)
    image[..., 20:24, 24:28] = torch.eye(4)
    image[..., 0:3, 0:3] = torch.eye(3)
    patch = most_detailed_patch(image, 4)
    assert (patch.x, patch.y, patch.side) in {(x, y, 4) for x in (23, 24) for y in (19, 20)}


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (8, 8)])
def test_tiny_images_have_a_patch(size: tuple[int, int]) -> None:
    """As large as they allow."""
    patch = most_detailed_patch(torch.rand(1, 3, *size))
    assert patch.side == min(8, *size)
    assert patch.x + patch.side <= size[1]
    assert patch.y + patch.side <= size[0]
