"""Whatever the configuration, size, batch and precision: what every network of the family keeps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from escsr.engines.folding import fold
from escsr.family.configuration import WITH_OWN_WIDTH
from escsr.model import ESC, ESCConfig
from escsr.model.attention.backends import AttentionBackend
from escsr.model.attention.flash_bias import RankRule
from escsr.weights.building import empty_network
from escsr.weights.recognition import recognise
from tests.golden_files import relative_error
from tests.model.configurations import configurations
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles.network import Oracle

FULL_RANK = RankRule(rank=64)
"""Windows are 8x8 at most."""
TOLERANCES = {
    # Some forty layers, each of which rounds its result: epsilon times a margin for what of it adds
    # up, of the largest value. Another formula, or another image's kernel, is off by 1e-2 or more.
    torch.float64: ROUNDING_FLOAT64,
    torch.float32: 64 * 2**-23,
    # Scores are rounded as well, before an exponential.
    torch.float16: 32 * 2**-10,
    torch.bfloat16: 32 * 2**-7,
}
LARGEST_AREA = {
    # Of an image in pixels, so that an example takes less than a second on one core; float16 has
    # no fast convolution on a CPU.
    torch.float64: 4000,
    torch.float32: 22500,
    torch.float16: 300,
    torch.bfloat16: 1000,
}
SIDES = st.one_of(st.integers(1, 10), st.integers(1, 40), st.integers(1, 150))


def random_network(config: ESCConfig, seed: int, dtype: torch.dtype) -> ESC:
    """Every weight drawn, none of them invisible."""
    network = ESC(config, attention_backend="naive").eval()
    randomise(network, seed=seed)
    return network.to(dtype)


@settings(deadline=None, max_examples=20, phases=[Phase.generate])
@given(
    config=configurations(),
    height=st.integers(1, 6),
    width=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_every_network_is_the_papers(config: ESCConfig, height: int, width: int, seed: int) -> None:
    """Equal to the oracle, written from the paper alone."""
    network = random_network(config, seed, torch.float64)
    image = random_image(1, 3, height, width, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        ours = network(image)[0]
    right = Oracle(config, weights_as_arrays(network)).enlarge(image[0].numpy())
    assert relative_error(ours, torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@settings(deadline=None, max_examples=20, phases=[Phase.generate])
@given(
    config=configurations(),
    batch=st.integers(1, 3),
    sides=st.tuples(SIDES, SIDES),
    seed=st.integers(0, 9),
)
def test_every_network_keeps_its_promises(
    dtype: torch.dtype, config: ESCConfig, batch: int, sides: tuple[int, int], seed: int
) -> None:
    """The shape is right, images of a batch do not see each other, and all back-ends agree.

    Among them the folded copy, and flash attention with the factorised bias at full rank.
    """
    cost = 4 if config.needs_position else 1
    sides = shortened(sides, LARGEST_AREA[dtype] // cost)
    network = random_network(config, seed, dtype)
    images = random_image(batch, 3, *sides, seed=seed, dtype=dtype)
    with torch.no_grad():
        specified = network(images)
        others = {"one by one": torch.cat([network(image[None]) for image in images])}
        others["sdpa"] = with_backend(network, "sdpa")(images)
        others["chunked"] = with_backend(network, "chunked")(images)
        others["flashbias"] = fold(network, attention_backend="flashbias", flash_bias=FULL_RANK)(
            images
        )
    assert specified.dtype == dtype
    assert specified.isfinite().all()
    assert specified.shape == (batch, 3, config.scale * sides[0], config.scale * sides[1])
    for name, other in others.items():
        assert relative_error(other.double(), specified.double()) < TOLERANCES[dtype], name


def shortened(sides: tuple[int, int], area: int) -> tuple[int, int]:
    """The longer side may stay, the other makes room."""
    first, second = sides
    if first * second <= area:
        return sides
    return (first, max(1, area // first)) if first >= second else (max(1, area // second), second)


def with_backend(network: ESC, backend: AttentionBackend) -> ESC:
    """The same network, on the same weights."""
    other = ESC(network.config, attention_backend=backend).eval()
    other.load_state_dict(network.state_dict(), assign=True)
    return other


UNTOLD = {
    "upsampler_dim": lambda c: c.upsampler not in WITH_OWN_WIDTH,
    "dysample_groups": lambda c: c.upsampler != "dysample",
    "texture_dim": lambda c: c.upsampler != "lte",
    "texture_mlp_dim": lambda c: c.upsampler != "lte" or c.texture_mlp_layers == 0,
    "texture_mlp_layers": lambda c: c.upsampler != "lte",
    "position_rank": lambda c: not attends(c) or c.position_bias == "table",
    "position_hidden_dim": lambda c: not attends(c) or c.position_bias == "table",
    "position_frequencies": lambda c: not attends(c) or c.position_bias == "table",
    "image_skip": lambda c: c.upsampler == "pixelshuffledirect",
    "norm_in_conv_layers": lambda c: c.num_conv_layers == 0,
    "expansion": lambda c: c.num_conv_layers == 0,
}
"""Fields that no tensor tells, and when: what a network has no use for, and its image skip."""


def attends(config: ESCConfig) -> bool:
    """Whether there is window attention anywhere."""
    return config.first_mixer == "window" or (
        config.layer_mixer == "window" and config.num_conv_layers > 0
    )


@settings(deadline=None, max_examples=100)
@given(config=configurations())
def test_every_network_is_recognised_from_its_tensors(config: ESCConfig) -> None:
    """With a header, whole; without, but for what is said to be assumed. Either can be built."""
    state = empty_network(config).state_dict()
    found = recognise(state, stated=config)
    untold = [name for name, is_untold in UNTOLD.items() if is_untold(config)]
    told = {name: getattr(config, name) for name in (*found.assumed, *untold)}
    assert replace(found.config, **told) == config
    built = empty_network(found.config).state_dict()
    unsure = {"window_size", "scale", "dysample_groups"} & set(found.assumed)
    assert unsure or {k: v.shape for k, v in built.items()} == {
        k: v.shape for k, v in state.items()
    }
