"""The named networks."""

import pytest

from escsr.errors import ConfigurationError, UnknownModelError
from escsr.model import VARIANTS, ESCConfig, variant


def test_the_table_holds_the_papers_four_and_ours():
    """Names are promised to users."""
    assert list(VARIANTS) == ["esc", "esc-light", "esc-fp", "esc-xl", "esc-tiny"]
    assert all(config.scale == 4 for config in VARIANTS.values())


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("esc", (64, 16, 5, 5, 32, 4, 13, 1.25, 2.0)),
        ("esc-light", (64, 16, 3, 5, 32, 4, 13, 1.25, 2.0)),
        ("esc-fp", (48, 16, 5, 5, 32, 3, 13, 1.25, 1.5)),
        ("esc-xl", (192, 48, 8, 5, 48, 12, 13, 1.25, 2.0)),
    ],
)
def test_the_papers_variants_have_the_papers_numbers(name, row):
    """As in the table of the official code."""
    config = VARIANTS[name]
    assert row == (
        config.dim,
        config.pdim,
        config.num_blocks,
        config.num_conv_layers,
        config.window_size,
        config.num_heads,
        config.large_kernel_size,
        config.expansion,
        config.first_expansion,
    )


def test_only_xl_and_fp_normalise_in_their_conv_layers_and_only_fp_is_decomposed():
    """What tells the variants apart beside their numbers."""
    special = {
        name: (
            config.norm_in_conv_layers,
            config.norm_before_last_conv,
            config.image_skip,
            config.large_kernel,
        )
        for name, config in VARIANTS.items()
    }
    plain = (False, False, "nearest", "dense")
    assert special == {
        "esc": plain,
        "esc-light": plain,
        "esc-fp": (True, True, "bicubic", "decomposed"),
        "esc-xl": (True, False, "nearest", "dense"),
        "esc-tiny": plain,
    }


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_a_variant_is_made_for_any_scale(scale):
    """Only the scale changes."""
    assert variant("esc-light", scale=scale) == ESCConfig(num_blocks=3, scale=scale)


def test_fields_can_be_overridden():
    """Everything else stays as in the table."""
    assert variant("esc", scale=2, num_blocks=7) == ESCConfig(scale=2, num_blocks=7)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("esc-lite", "esc-light"),
        ("ESC-Tiny", "esc-tiny"),
        ("esc_xl", "esc-xl"),
        ("escfp", "esc-fp"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    """The message repeats the name, suggests what is near, and lists all."""
    with pytest.raises(UnknownModelError) as caught:
        variant(name, scale=2)
    message = str(caught.value)
    assert repr(name) in message
    assert near in message.partition("Did you mean ")[2].partition("?")[0]
    assert "The names are esc, esc-light, esc-fp, esc-xl, esc-tiny" in message


def test_a_name_like_no_other_is_answered_with_the_list():
    """No suggestion is better than a wrong one."""
    with pytest.raises(UnknownModelError) as caught:
        variant("swinir", scale=2)
    assert "Did you mean" not in str(caught.value)
    assert "The names are esc," in str(caught.value)


def test_an_unknown_field_is_named_with_those_there_are():
    """A misspelt override is an error."""
    with pytest.raises(ConfigurationError) as caught:
        variant("esc", scale=2, blocks=3)
    assert "'blocks'" in str(caught.value)
    assert "num_blocks" in str(caught.value)


@pytest.mark.parametrize("scale", [0, -2, 2.5, "4", None], ids=repr)
def test_an_impossible_scale_is_refused(scale):
    """Networks enlarge by whole factors."""
    with pytest.raises(ConfigurationError, match="scale is"):
        variant("esc", scale=scale)
