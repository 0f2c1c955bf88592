"""The named networks."""

import pytest

from escsr.errors import ConfigurationError, UnknownModelError
from escsr.family import VARIANTS, ESCConfig, variant
from escsr.family.variants import variant_scales

REAL = {"norm_in_conv_layers": True, "image_skip": "none", "feature_skip": True}
"""What tells ESC-Real from ESC beside its size."""


def test_the_table_holds_the_whole_family_and_ours():
    """Names are promised to users; every one but the restorer's stands for its x4."""
    assert set(VARIANTS) >= {
        *("esc", "esc-light", "esc-fp", "esc-xl", "esc-tiny"),
        *("esc-real", "esc-real-dysample", "esc-lte", "esc-rib"),
        *("esc-real-m", "esc-real-m-pixelshuffledirect", "esc-real-m-pixelshuffle"),
        *("esc-real-m-dysample", "esc-real-m-conv"),
        *("esc-real-m-transpose-conv", "esc-real-m-lda", "esc-real-m-pa-up"),
    }
    scales = {name: config.scale for name, config in VARIANTS.items()}
    assert scales.pop("esc-real-m-conv") == 1
    assert set(scales.values()) == {4}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("esc", (64, 16, 5, 5, 32, 4, 13, 1.25, 2.0)),
        ("esc-light", (64, 16, 3, 5, 32, 4, 13, 1.25, 2.0)),
        ("esc-fp", (48, 16, 5, 5, 32, 3, 13, 1.25, 1.5)),
        ("esc-xl", (192, 48, 8, 5, 48, 12, 13, 1.25, 2.0)),
        ("esc-real", (64, 16, 10, 5, 32, 4, 13, 2.0, 2.0)),
        ("esc-real-m", (64, 16, 10, 5, 32, 4, 13, 2.0, 2.0)),
        ("esc-lte", (64, 16, 5, 5, 32, 4, 13, 1.25, 2.0)),
        ("esc-rib", (64, 16, 5, 5, 64, 4, 13, 1.25, 4.0)),
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


SIZES = {
    *("scale", "dim", "pdim", "num_blocks", "num_conv_layers", "window_size", "num_heads"),
    *("expansion", "first_expansion"),
}
"""Fields that are numbers of the table above."""


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("esc", {}),
        ("esc-light", {}),
        ("esc-tiny", {}),
        (
            "esc-fp",
            {
                "norm_in_conv_layers": True,
                "norm_before_last_conv": True,
                "image_skip": "bicubic",
                "large_kernel": "decomposed",
            },
        ),
        ("esc-xl", {"norm_in_conv_layers": True}),
        ("esc-real", {**REAL, "upsampler": "nearest+conv"}),
        ("esc-real-dysample", {**REAL, "upsampler": "dysample", "upsampler_dim": 64}),
        ("esc-real-m", {**REAL, "upsampler": "conv+nearest"}),
        ("esc-real-m-pixelshuffledirect", REAL),
        ("esc-real-m-pixelshuffle", {**REAL, "upsampler": "pixelshuffle"}),
        ("esc-real-m-dysample", {**REAL, "upsampler": "dysample"}),
        ("esc-real-m-conv", REAL),
        (
            "esc-real-m-transpose-conv",
            {**REAL, "upsampler": "transpose+conv", "upsampler_dim": 64},
        ),
        ("esc-real-m-lda", {**REAL, "upsampler": "lda", "upsampler_dim": 64}),
        ("esc-real-m-pa-up", {**REAL, "upsampler": "pa_up", "upsampler_dim": 64}),
        ("esc-lte", {"upsampler": "lte", "image_skip": "none"}),
        (
            "esc-rib",
            {"norm_before_last_conv": True, "position_bias": "implicit", "attention_gate": True},
        ),
    ],
)
def test_what_tells_a_variant_from_esc_is_what_the_paper_says(name, special):
    """Beside its numbers; every other field is ESC's."""
    plain, config = VARIANTS["esc"].to_dict(), VARIANTS[name].to_dict()
    different = {field for field in plain if config[field] != plain[field]} - SIZES
    assert {field: config[field] for field in different} == special


@pytest.mark.parametrize(
    ("scale", "unshuffle"), [(1, 4), (2, 2), (3, 1), (4, 1), (8, 1)], ids=lambda n: f"x{n}"
)
@pytest.mark.parametrize(
    "name", ["esc-real-m", "esc-real-m-pixelshuffle", "esc-real-m-pixelshuffledirect"]
)
def test_esc_real_m_turns_pixels_into_channels_below_x3(name, scale, unshuffle):
    """So that its upsampler works at 4; the plain restorer and ESC-Real do not."""
    assert variant(name, scale=scale).unshuffle == unshuffle
    assert variant("esc-real-m-conv", scale=1).unshuffle == 1
    assert variant("esc-real", scale=2).unshuffle == 1


@pytest.mark.parametrize(
    "name", ["esc-real-m-transpose-conv", "esc-real-m-lda", "esc-real-m-pa-up"]
)
def test_trainner_reduxs_networks_keep_pixels_unless_asked_otherwise(name):
    """Its unshuffle_mod is off by default; with it x1 is possible, too."""
    assert variant_scales(name) == (2, 3, 4)
    assert variant(name, scale=2).unshuffle == 1
    assert variant(name, scale=2, unshuffle=2).inner_scale == 4
    assert variant(name, scale=1, unshuffle=4).inner_scale == 4
    with pytest.raises(ConfigurationError, match="features by 1"):
        variant(name, scale=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_made_for_every_scale_it_was_published_for(name):
    """`variant_scales` lists no scale that cannot be built."""
    assert [variant(name, scale=scale).scale for scale in variant_scales(name)] == list(
        variant_scales(name)
    )


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
    assert f"The names are {', '.join(VARIANTS)}." in message


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
