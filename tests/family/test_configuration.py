"""The configuration: every field is checked and says so."""

import dataclasses
import inspect
import json
import math

import pytest

from escsr.errors import ConfigurationError
from escsr.family import VARIANTS, ESCConfig
from tests.model.configurations import small_config

NOT_A_COUNT = [0, -1, 1.5, "4", None, True, math.nan]


@pytest.mark.parametrize("value", NOT_A_COUNT, ids=repr)
@pytest.mark.parametrize(
    "field",
    [
        *("scale", "dim", "pdim", "num_blocks", "window_size", "num_heads"),
        *("upsampler_dim", "dysample_groups", "unshuffle"),
        *("texture_dim", "texture_mlp_dim", "position_rank", "position_hidden_dim"),
    ],
)
def test_counts_are_integers_of_one_or_more(field, value):
    """The message names the field, what came and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        small_config(**{field: value})
    assert f"{field} is {value!r}; it must be an integer of 1 or more" in str(caught.value)


@pytest.mark.parametrize("value", [-1, 1.5, "4", None, False], ids=repr)
@pytest.mark.parametrize("field", ["num_conv_layers", "position_frequencies", "texture_mlp_layers"])
def test_some_numbers_are_integers_of_zero_or_more(field, value):
    """A block may do without ConvAttention layers, but not with half of one."""
    with pytest.raises(ConfigurationError) as caught:
        small_config(**{field: value})
    assert f"{field} is {value!r}; it must be an integer of 0" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "integer of 1 or more"), (-13, "integer of 1"), (12, "odd"), (13.0, "integer")],
)
def test_the_large_kernel_is_odd(value, words):
    """A kernel needs a centre."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        small_config(large_kernel_size=value)
    assert f"large_kernel_size is {value!r}" in str(caught.value)


@pytest.mark.parametrize("value", [0, -1.25, 0.1, math.inf, math.nan, "2", None, True], ids=repr)
@pytest.mark.parametrize("field", ["expansion", "first_expansion"])
def test_expansions_are_numbers_that_leave_a_channel(field, value):
    """With 8 channels, a tenth leaves none."""
    with pytest.raises(ConfigurationError) as caught:
        small_config(**{field: value})
    assert f"{field} is {value!r}; it must be a number of 1/8 or more" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pdim": 9}, ["pdim is 9", "dim is 8"]),
        ({"num_heads": 3}, ["num_heads is 3", "dim is 8", "divides"]),
        ({"image_skip": "bilinear"}, ["image_skip is 'bilinear'", "nearest, bicubic"]),
        ({"image_skip": None}, ["image_skip is None", "nearest, bicubic"]),
        ({"large_kernel": "sparse"}, ["large_kernel is 'sparse'", "dense, decomposed"]),
        ({"norm_in_conv_layers": "no"}, ["norm_in_conv_layers is 'no'", "true or false"]),
        ({"norm_before_last_conv": 1}, ["norm_before_last_conv is 1", "true or false"]),
        ({"feature_skip": None}, ["feature_skip is None", "true or false"]),
        ({"attention_gate": "yes"}, ["attention_gate is 'yes'", "true or false"]),
        ({"dynamic_kernel": 0}, ["dynamic_kernel is 0", "true or false"]),
        ({"share_large_kernel": []}, ["share_large_kernel is []", "true or false"]),
        ({"upsampler": "conv"}, ["upsampler is 'conv'", "pixelshuffledirect, pixelshuffle"]),
        ({"position_bias": "rib"}, ["position_bias is 'rib'", "table, implicit"]),
        ({"first_mixer": "attention"}, ["first_mixer is 'attention'", "window, convolution"]),
        ({"layer_mixer": None}, ["layer_mixer is None", "window, convolution"]),
        (
            {"upsampler": "dysample"},
            ["image_skip is 'nearest'", "upsampler is 'dysample'", 'set image_skip to "none"'],
        ),
        (
            {"upsampler": "dysample", "image_skip": "none", "upsampler_dim": 6},
            ["dysample_groups is 4", "upsampler_dim is 6", "divides it"],
        ),
        (
            {"upsampler": "lda", "image_skip": "none", "upsampler_dim": 12},
            ["upsampler_dim is 12", "2 groups", "multiple of 8"],
        ),
        (
            {"unshuffle": 2},
            ["image_skip is 'nearest'", "unshuffle is 2", 'set image_skip to "none"'],
        ),
        (
            {"upsampler": "lte", "image_skip": "none", "texture_dim": 7},
            ["texture_dim 7", "must be even"],
        ),
        (
            {"upsampler": "lte", "image_skip": "none", "unshuffle": 2},
            ["unshuffle 2", "unshuffle 1"],
        ),
    ],
    ids=str,
)
def test_fields_that_do_not_fit_are_named(fields, words):
    """The message names both sides of what does not fit, and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        small_config(**fields)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 1), (5, 1), (6, 1), (3, 2), (7, 1)])
@pytest.mark.parametrize("kind", ["pixelshuffle", "nearest+conv", "conv+nearest", "pa_up"])
def test_a_stack_enlarges_by_3_and_by_powers_of_2(kind, scale, unshuffle):
    """Others are refused; what counts is the factor from features to pixels."""
    fields = {"upsampler": kind, "image_skip": "none"}
    with pytest.raises(ConfigurationError) as caught:
        small_config(scale=scale, unshuffle=unshuffle, **fields)
    message = str(caught.value)
    assert f"upsampler is {kind!r} and enlarges the features by {scale * unshuffle}" in message
    assert "by 3 and by powers of 2" in message
    for possible in (2, 3, 4, 8):
        assert small_config(scale=possible, **fields).inner_scale == possible
    assert small_config(scale=1, unshuffle=4, **fields).inner_scale == 4


@pytest.mark.parametrize(
    ("kind", "possible", "others", "words"),
    [
        ("transpose+conv", [2, 3, 4], [1, 5, 6, 8], "by 2, 3 and 4"),
        ("lda", [2, 3, 5, 6, 8], [1], "by 2 and more"),
    ],
)
def test_some_upsamplers_enlarge_by_few_factors_or_all(kind, possible, others, words):
    """Not by 1, which is one convolution."""
    fields = {"upsampler": kind, "image_skip": "none"}
    for scale in possible:
        assert small_config(scale=scale, **fields).inner_scale == scale
    assert small_config(scale=1, unshuffle=4, **fields).inner_scale == 4
    for scale in others:
        with pytest.raises(ConfigurationError) as caught:
            small_config(scale=scale, **fields)
        assert f"enlarges the features by {scale}; it can {words}" in str(caught.value)
        assert "pixelshuffledirect" in str(caught.value)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_a_configuration_survives_json(config):
    """to_dict holds plain values, and from_dict builds the same configuration from them."""
    assert ESCConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_names_take_their_defaults():
    """from_dict fills in what is not given: the default is ESC x4."""
    assert ESCConfig.from_dict({}) == VARIANTS["esc"]


def test_unknown_names_are_refused():
    """from_dict names what it does not know, and what it knows."""
    with pytest.raises(ConfigurationError) as caught:
        ESCConfig.from_dict({"scale": 2, "upscaling_factor": 2})
    assert "upscaling_factor" in str(caught.value)
    assert "Known are scale, dim" in str(caught.value)


def test_a_configuration_cannot_be_changed():
    """It is frozen and can be a key."""
    config = small_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.scale = 3
    assert {config: 1}[small_config()] == 1


def test_every_field_is_documented():
    """Each field has its docstring in the source."""
    lines = iter(inspect.getsource(ESCConfig).splitlines())
    fields = {field.name for field in dataclasses.fields(ESCConfig)}
    for line in lines:
        name = line.strip().partition(":")[0]
        if name in fields:
            assert next(lines).strip().startswith('"""'), name
            fields.remove(name)
    assert not fields
