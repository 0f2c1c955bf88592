"""Which models run for which size."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.errors import ConfigurationError, ImageSizeError
from escsr.upscaling.sizes import MAX_FACTOR, Enlargement, SizeRequest, plan_enlargement


def plan(
    source: tuple[int, int], scales: tuple[int, ...] = (2, 3, 4), **wish: object
) -> Enlargement:
    """Plan with the box's factors unless others are given."""
    return plan_enlargement(
        *source,
        SizeRequest(**wish),  # type: ignore[arg-type]
        scales=scales,
        default_scale=4,
    )


@pytest.mark.parametrize(
    ("scale", "passes"),
    [
        (2, (2,)),
        (2.7, (3,)),
        (1.5, (2,)),
        (4, (4,)),
        (5, (2, 3)),
        (6, (2, 3)),
        (8, (2, 4)),
        (9, (3, 3)),
        (10, (3, 4)),
        (16, (4, 4)),
    ],
)
def test_the_nearest_product_above_the_factor_runs(scale: float, passes: tuple[int, ...]) -> None:
    """As few passes as can be, and of those the nearest above; the smallest factor first."""
    assert plan((10, 20), scale=scale).passes == passes


def test_a_model_of_one_factor_runs_repeatedly() -> None:
    """x2 alone makes 16 in four passes, and 3 by shrinking from 4."""
    assert plan((10, 10), (2,), scale=16).passes == (2, 2, 2, 2)
    enlargement = plan((10, 10), (2,), scale=3)
    assert enlargement.passes == (2, 2)
    assert enlargement.network_size == (40, 40)
    assert enlargement.target_size == (30, 30)
    assert enlargement.shrinks


def test_nothing_said_means_the_default_factor() -> None:
    """Four times, in one pass, not shrunk."""
    enlargement = plan((7, 5))
    assert (enlargement.passes, enlargement.target_size) == ((4,), (28, 20))
    assert not enlargement.shrinks


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"width": 300}, (300, 150)),
        ({"height": 150}, (300, 150)),
        ({"longest": 300}, (300, 150)),
        ({"width": 301}, (301, 151)),  # 150.5 rounds up
        ({"width": 100, "height": 200}, (100, 200)),
        ({"width": 101, "height": 50}, (101, 50)),
        ({"scale": 2.71}, (271, 136)),  # 135.5 rounds up
    ],
)
def test_sizes_keep_the_shape_unless_both_sides_are_given(
    wish: dict[str, object], size: tuple[int, int]
) -> None:
    """A source of 100x50 pixels."""
    assert plan((100, 50), **wish).target_size == size


def test_a_model_for_any_size_makes_it_in_one_pass() -> None:
    """By any factor, and by different ones; nothing is shrunk."""
    for wish, size in (
        (SizeRequest(scale=2.7), (27, 54)),
        (SizeRequest(scale=16), (160, 320)),
        (SizeRequest(width=40, height=21), (40, 21)),
    ):
        enlargement = plan_enlargement(
            10, 20, wish, scales=(4,), default_scale=4, makes_any_size=True
        )
        assert enlargement.sizes == (enlargement.target_size,) == (size,)
        assert not enlargement.shrinks
        assert enlargement.factors(10, 20) == (max(size[0] / 10, size[1] / 20),)


def test_a_model_for_any_size_is_no_restorer_whatever_factor_it_is_known_by() -> None:
    """Trained or stored as x1, it still enlarges, and x1 is still nothing to enlarge."""
    any_size = {"scales": (1,), "default_scale": 1, "makes_any_size": True}
    enlargement = plan_enlargement(10, 20, SizeRequest(scale=2.7), **any_size)
    assert enlargement.sizes == ((27, 54),)
    with pytest.raises(ConfigurationError, match="enlarges nothing"):
        plan_enlargement(10, 20, SizeRequest(scale=1), **any_size)
    with pytest.raises(ImageSizeError, match="nothing to enlarge"):
        plan_enlargement(10, 20, SizeRequest(), **any_size)


def test_a_restorer_among_others_is_taken_for_x1_alone() -> None:
    """It is no pass on the way to a larger size."""
    assert plan((10, 10), (1, 2, 4), scale=1).passes == (1,)
    assert plan((10, 10), (1, 2, 4), scale=8).passes == (2, 4)
    assert plan((10, 10), (1,), width=10).target_size == (10, 10)


@pytest.mark.parametrize("scale", [0, -2, 0.5, 16.1, 1e9, math.nan, math.inf, True, "4"])
def test_a_factor_that_cannot_be_is_refused(scale: object) -> None:
    """Zero, negative, one or less, absurd, NaN, or no number at all."""
    with pytest.raises(ConfigurationError, match="above 1 and at most 16"):
        SizeRequest(scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [0, -5, 2.5, True, "300"])
@pytest.mark.parametrize("name", ["width", "height", "longest"])
def test_a_side_that_cannot_be_is_refused(name: str, side: object) -> None:
    """Not a whole number of pixels, or less than one."""
    with pytest.raises(ConfigurationError, match=f"{name} is .*whole number of pixels"):
        SizeRequest(**{name: side})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wish",
    [{"scale": 2, "width": 100}, {"scale": 2, "longest": 9}, {"width": 9, "longest": 9}],
)
def test_a_size_given_twice_is_refused(wish: dict[str, object]) -> None:
    """A factor beside pixels, or a side beside the longest."""
    with pytest.raises(ConfigurationError, match="given twice"):
        SizeRequest(**wish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wish", [{"width": 99}, {"width": 100}, {"longest": 50}, {"width": 400, "height": 49}]
)
def test_a_result_no_larger_than_the_source_is_refused(wish: dict[str, object]) -> None:
    """A source of 100x50 pixels; also where only one side would shrink."""
    with pytest.raises(ImageSizeError, match=r"100x50.*nothing to enlarge"):
        plan((100, 50), **wish)


def test_an_absurdly_large_result_is_refused() -> None:
    """More than 16 times, asked for in pixels."""
    with pytest.raises(ImageSizeError, match="at most 16 times"):
        plan((100, 50), width=1601)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    scale=st.floats(1, MAX_FACTOR, exclude_min=True),
    scales=st.sets(st.integers(2, 6), min_size=1, max_size=4),
)
def test_the_networks_always_reach_the_target(
    width: int, height: int, scale: float, scales: set[int]
) -> None:
    """The last step only ever shrinks, and no pass is wasted."""
    try:
        enlargement = plan((width, height), tuple(scales), scale=scale)
    except ImageSizeError:
        # A factor so near 1 that the size stays: rightly refused.
        assert round(min(width, height) * scale) <= min(width, height) + 1
        return
    product = math.prod(enlargement.passes)
    assert enlargement.network_size == (width * product, height * product)
    assert enlargement.target_size[0] <= enlargement.network_size[0]
    assert enlargement.target_size[1] <= enlargement.network_size[1]
    assert product // enlargement.passes[0] < scale
