"""Configurations through the core's C interface: what ``ESCConfig`` takes, and nothing else."""

import json
import random
import re
from typing import Any

import pytest

from escsr.core.library import INVALID_CONFIGURATION, MISSING_WEIGHTS
from escsr.errors import ConfigurationError
from escsr.model import ESCConfig
from tests.core.c_interface import Answer, open_arrays


def answer_of(configuration: str | dict[str, Any]) -> Answer:
    """What the core says of a configuration without arrays."""
    with open_arrays(configuration, {}) as network:
        return network.answer


def python_message(configuration: dict[str, Any]) -> str:
    """What ``ESCConfig`` says, in JSON's spelling; empty where it takes it."""
    try:
        ESCConfig.from_dict(configuration)
    except ConfigurationError as error:
        message = re.sub(r"(is|with) '([^']*)'", r'\1 "\2"', str(error))
        words = {"True": "true", "False": "false", "None": "null"}
        return re.sub(r"(?<=is )(True|False|None)\b", lambda found: words[found[0]], message)
    return ""


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 0},
        {"scale": -3},
        {"scale": 2.0},
        {"scale": "2"},
        {"scale": True},
        {"scale": None},
        {"dim": 65},
        {"pdim": 65},
        {"num_conv_layers": -1},
        {"large_kernel_size": 0},
        {"large_kernel_size": 12},
        {"expansion": 0.01},
        {"expansion": 0},
        {"first_expansion": -1.5},
        {"dynamic_kernel": 1},
        {"dynamic_kernel": "true"},
        {"image_skip": "bilinear"},
        {"image_skip": 3},
        {"layer_mixer": "attention"},
        {"upsampler": "dysample"},
        {"unshuffle": 2},
        {"upsampler": "pixelshuffle", "image_skip": "none", "scale": 5},
        {"upsampler": "nearest+conv", "image_skip": "none", "scale": 1},
        {"upsampler": "transpose+conv", "image_skip": "none", "scale": 8},
        {"upsampler": "pa_up", "image_skip": "none", "scale": 6},
        {"upsampler": "lda", "image_skip": "none", "scale": 1},
        {"upsampler": "lda", "image_skip": "none", "upsampler_dim": 20},
        {"upsampler": "dysample", "image_skip": "none", "dysample_groups": 5},
        {"upsampler": "lte", "image_skip": "none", "texture_dim": 5},
        {"upsampler": "lte", "image_skip": "none", "unshuffle": 2},
    ],
    ids=str,
)
def test_it_is_refused_in_the_words_of_python(changes: dict[str, Any]) -> None:
    """Each check of ``ESCConfig`` is the core's, too."""
    expected = python_message(changes)
    assert expected
    assert answer_of(changes) == Answer(INVALID_CONFIGURATION, expected)


VALUES: dict[str, list[Any]] = {
    "scale": [1, 2, 3, 4, 5, 8],
    "dim": [1, 16, 64, 60],
    "pdim": [1, 16, 17, 64],
    "num_blocks": [1, 2],
    "num_conv_layers": [0, 3],
    "window_size": [1, 31],
    "num_heads": [1, 2, 5, 64],
    "large_kernel_size": [1, 3, 4, 31],
    "expansion": [1, 1.25, 0.015625, 0.015624, 0.0625, 0.062],
    "first_expansion": [4, 0.5],
    "image_skip": ["none", "none", "none", "nearest", "bicubic", "None"],
    "large_kernel": ["dense", "decomposed"],
    "upsampler": [
        *("pixelshuffledirect", "pixelshuffle", "nearest+conv", "conv+nearest", "dysample"),
        *("lte", "transpose+conv", "lda", "pa_up", "nearest_conv"),
    ],
    "upsampler_dim": [1, 8, 48, 50],
    "dysample_groups": [1, 3, 4],
    "unshuffle": [1, 2, 4],
    "texture_dim": [1, 2],
    "texture_mlp_dim": [1],
    "texture_mlp_layers": [0],
    "position_bias": ["table", "implicit"],
    "position_rank": [1],
    "position_hidden_dim": [1],
    "position_frequencies": [0],
    "first_mixer": ["window", "convolution"],
    "layer_mixer": ["window", "convolution"],
    **{
        name: [True, False]
        for name in (
            *("norm_in_conv_layers", "norm_before_last_conv", "feature_skip"),
            *("attention_gate", "dynamic_kernel", "share_large_kernel"),
        )
    },
}
ODD_VALUES: list[Any] = [0, -1, 1.5, 16.0, "", "dense", True, False, None, [], {}, [1], {"a": 1}]


def test_it_takes_what_python_takes() -> None:
    """2,000 random configurations, about half of them refused."""
    refused, cases = 0, 2000
    assert list(VALUES) and set(VALUES) == set(ESCConfig().to_dict())
    for case in range(cases):
        chance = random.Random(case)
        configuration = {
            name: chance.choice(ODD_VALUES if chance.random() < 0.03 else VALUES[name])
            for name in chance.sample(list(VALUES), chance.randrange(12))
        }
        expected, answer = python_message(configuration), answer_of(configuration)
        status = INVALID_CONFIGURATION if expected else MISSING_WEIGHTS
        assert answer.status == status, (configuration, expected, answer)
        refused += status == INVALID_CONFIGURATION
    assert cases / 4 < refused < 3 * cases / 4


def test_all_fields_are_read_from_what_python_writes() -> None:
    """Whatever the order and the spaces."""
    text = json.dumps(dict(reversed(ESCConfig().to_dict().items())), indent=2)
    assert answer_of(text).message == (
        "The network has 30 layers by its configuration, and only 0 arrays are there."
    )


def test_unknown_names_are_told_with_the_known_ones() -> None:
    """All unknown ones, even beside values that cannot be, and as many known ones as fit."""
    answer = answer_of({"dims": 3, "scale": 0, "windows": 3})
    assert answer.status == INVALID_CONFIGURATION
    assert answer.message.startswith(
        "Unknown in a network's configuration: dims, windows. Known are scale, dim, pdim, "
    )
    many = answer_of({"x" * 70 + str(number): 3 for number in range(50)})
    assert re.match(
        r"Unknown in a network.s configuration: x{40}, x{40}, \.{4} Known", many.message
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The configuration is not in JSON: at byte 0 an object is expected."),
        ("[]", "The configuration is not in JSON: at byte 0 an object is expected."),
        ("{", "The configuration is not in JSON: at byte 1 a name in quotes is expected."),
        (
            '{"scale": 2,}',
            "The configuration is not in JSON: at byte 12 a name in quotes is expected.",
        ),
        ('{"scale": 02}', "The configuration is not in JSON: at byte 11 a comma or the end of an "),
        ('{"expansion": NaN}', "The configuration is not in JSON: at byte 14 a value is expected."),
        (
            "{'scale': 2}",
            "The configuration is not in JSON: at byte 1 a name in quotes is expected.",
        ),
        ('{"scale": 2, "scale": 2}', "scale is twice in the configuration."),
        ("{} {}", "The configuration is not in JSON: at byte 3 something follows the end."),
        ('{"scale": ' + "[" * 99, "The configuration is not in JSON: at byte 41 it is nested too"),
        ('{"scale": 1000000}', "scale is 1000000; this library runs networks with 1024 at most."),
        (
            '{"dim": 99999999999999999999}',
            "dim is 99999999999999999999; it must be an integer of 1",
        ),
        (
            '{"expansion": 1e9}',
            "expansion is 1e+09; this library runs networks with 1048576 hidden",
        ),
        (
            '{"expansion": 1e999}',
            "expansion is inf; this library runs networks with 1048576 hidden",
        ),
    ],
)
def test_text_that_is_no_configuration_is_refused(text: str, message: str) -> None:
    """With the place of what is wrong."""
    answer = answer_of(text)
    assert answer.status == INVALID_CONFIGURATION
    assert answer.message.startswith(message)
