"""The values of options, and what is said of those that cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.cli.upscale_plan import (
    check_name_suffix,
    existing_rule,
    parse_format,
    parse_max_pixels,
    parse_memory,
    parse_tile,
)
from escsr.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("2GB", 2_000_000_000),
        ("2g", 2_000_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("800M", 800_000_000),
        ("4096", 4096),
        ("1KiB", 1024),
    ],
)
def test_memory_is_read_in_the_units_people_write(text: str, num_bytes: int) -> None:
    """Decimal units count in thousands, binary ones in 1024s."""
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "GB", "-2GB", "2XB", "0", "0.1", "nan", "1e9", "2 2GB", "²GB"]
)
def test_memory_that_cannot_be_is_refused(text: str) -> None:
    """The message shows what was given and how it is written."""
    with pytest.raises(ConfigurationError, match=r"--memory is .*2GB"):
        parse_memory(text)


@given(side=st.integers(min_value=1, max_value=10**6))
def test_a_tile_is_a_side_in_pixels(side: int) -> None:
    """Any positive number is a side."""
    assert parse_tile(str(side)) == side


def test_a_tile_may_be_left_to_the_program_or_to_the_whole_image() -> None:
    """0 is how the field says no tiles."""
    assert parse_tile("AUTO") == "auto"
    assert parse_tile("0") == parse_tile("whole") == "whole"


@pytest.mark.parametrize("text", ["-1", "2.5", "big", "", "nan", "²"])
def test_a_tile_that_cannot_be_is_refused(text: str) -> None:
    """The message lists what is allowed."""
    with pytest.raises(ConfigurationError, match=r"--tile is .*auto"):
        parse_tile(text)


def test_formats_are_known_with_and_without_dot_and_case() -> None:
    """``png``, ``.png`` and ``PNG`` are one."""
    assert {parse_format(text) for text in ("png", ".png", "PNG", " .Png")} == {".png"}
    for text in ("gif", "xyz", "", "."):
        with pytest.raises(ConfigurationError, match=r"--format is .*avif, .*png"):
            parse_format(text)


def test_a_suffix_stays_in_its_folder() -> None:
    """A slash in it would lead elsewhere."""
    check_name_suffix("_big [2]")
    check_name_suffix("")
    for text in ("/../x", "a\\b", "\0"):
        with pytest.raises(ConfigurationError, match="--suffix"):
            check_name_suffix(text)


@pytest.mark.parametrize("megapixels", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_of_pixels_is_a_positive_number(megapixels: float) -> None:
    """Megapixels become pixels."""
    assert parse_max_pixels(0.5) == 500_000
    with pytest.raises(ConfigurationError, match="--max-megapixels"):
        parse_max_pixels(megapixels)


def test_replacing_and_leaving_contradict_each_other() -> None:
    """One of the two, or neither, which refuses."""
    assert existing_rule(overwrite=False, skip_existing=False) == "refuse"
    assert existing_rule(overwrite=True, skip_existing=False) == "overwrite"
    assert existing_rule(overwrite=False, skip_existing=True) == "skip"
    with pytest.raises(ConfigurationError, match="not both"):
        existing_rule(overwrite=True, skip_existing=True)
