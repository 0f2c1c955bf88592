"""Self-ensemble: the mean over the eight flips and rotations."""

from dataclasses import replace

import numpy as np
import pytest

from escsr.engines.engine import Floats
from escsr.engines.self_ensemble import run_eight_ways
from escsr.family.axis_view import AxisView
from tests.family_networks import FAMILY
from tests.networks import ArrayEngine, batches, engine_of, nearest_engine, network_file


def lopsided(images: Floats) -> Floats:
    """A mean of neighbours that no flip and no rotation leaves as it is."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = images.shape[2:]
    weights = np.random.default_rng(0).random((3, 3)).astype(np.float32)
    total = np.zeros_like(images)
    for row, column in np.ndindex(3, 3):
        total += weights[row, column] * padded[:, :, row : row + height, column : column + width]
    return total.repeat(2, 2).repeat(2, 3)


def turned(images: Floats, turns: int, mirrored: bool) -> Floats:
    """Flip and rotate."""
    flipped = images[..., ::-1] if mirrored else images
    return np.ascontiguousarray(np.rot90(flipped, turns, (2, 3)))


def test_a_network_that_turns_with_its_image_is_left_as_it_is() -> None:
    """Repeating pixels is symmetric; 1e-6 is float32's rounding of a mean of eight."""
    images = batches(2, 9, 13)
    result = run_eight_ways(nearest_engine(2), images)
    assert np.abs(result - images.repeat(2, 2).repeat(2, 3)).max() < 1e-6


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_result_turns_with_the_image(turns: int, mirrored: bool) -> None:
    """For a network that does not do so itself."""
    engine, images = ArrayEngine(lopsided), batches(2, 9, 13)
    expected = turned(run_eight_ways(engine, images), turns, mirrored)
    result = run_eight_ways(engine, turned(images, turns, mirrored))
    # 1e-5: values of up to 9, summed in another order.
    assert np.abs(result - expected).max() < 1e-5
    if turns or mirrored:
        alone = lopsided(turned(images, turns, mirrored))
        assert np.abs(alone - turned(lopsided(images), turns, mirrored)).max() > 0.1


def test_it_is_the_mean_of_eight_different_answers() -> None:
    """Each transform is asked once, and undone."""
    seen: list[Floats] = []

    def recording(images: Floats) -> Floats:
        seen.append(images.copy())
        return lopsided(images)

    result = run_eight_ways(ArrayEngine(recording), batches(2, 9, 13))
    assert len({tuple(images.flatten()[:20].tolist()) for images in seen}) == 8
    assert result.shape == (2, 3, 18, 26)


def test_it_works_with_a_trained_network_on_an_odd_size() -> None:
    """Another answer than the single one, though a near one."""
    engine = engine_of("esc-tiny-x2")
    y, x = np.mgrid[:21, :30]
    waves = [np.sin(y / 3 + x / 4), np.cos(y / 5), np.sin(x / 3 - y / 6)]
    smooth = (0.5 + 0.4 * np.stack(waves))[None].astype(np.float32)
    single, ensemble = engine.run(smooth), run_eight_ways(engine, smooth)
    assert ensemble.shape == single.shape
    assert 0 < np.abs(ensemble - single).mean() < 0.02


def test_parts_are_turned_with_their_place() -> None:
    """A network for any size makes each part where it lies, whichever way the image is turned.

    Without a dynamic kernel, which looks at all of the image; what a part's border spoils reaches
    13 pixels.
    """
    engine = engine_of(network_file(replace(FAMILY["esc-lte-x4"], dynamic_kernel=False)))
    images = batches(1, 64, 41)
    whole = (
        AxisView.whole(length=64, output_length=149),
        AxisView.whole(length=41, output_length=90),
    )
    rows = AxisView(length=64, output_length=149, start=16, first=40, stop=100)
    expected = run_eight_ways(engine, images, "float32", whole)[:, :, 40:100]
    part = run_eight_ways(engine, images[:, :, 16:], "float32", (rows, whole[1]))
    assert part.shape == (1, 3, 60, 90)
    # 1e-4: frequencies of waves make more of the rounding of features.
    assert np.abs(part[:, :, 40:] - expected[:, :, 40:]).max() < 1e-4
