"""What the networks cost, against the paper and against a counter that knows nothing of ours."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from escsr.model import ESC, ESCConfig, count_macs, count_parameters, variant
from tests.model.networks import FEW_PARAMETERS, random_image, small_config

LR_SIZES = {2: (360, 640), 3: (240, 427), 4: (180, 320)}
"""(height, width) of the published figures: 1280x720 divided by the scale."""


def _network_without_memory(name: str, scale: int) -> ESC:
    with torch.device("meta"):
        return ESC(variant(name, scale=scale))


@pytest.mark.parametrize(
    ("name", "scale", "parameters"),
    [
        ("esc", 2, 946_728),
        ("esc", 3, 955_383),
        ("esc", 4, 967_500),
        ("esc-light", 2, 603_600),
        ("esc-light", 3, 612_255),
        ("esc-light", 4, 624_372),
        ("esc-fp", 2, 523_675),
        ("esc-fp", 3, 530_170),
        ("esc-fp", 4, 539_263),
    ],
)
def test_parameters_are_exactly_the_papers(name, scale, parameters):
    """Not one value more or less."""
    assert count_parameters(_network_without_memory(name, scale)) == parameters


@pytest.mark.parametrize(("scale", "millions"), [(2, 12.456), (3, 12.482), (4, 12.518)])
def test_esc_xl_has_the_published_millions(scale, millions):
    """The paper gives three decimals."""
    assert round(count_parameters(_network_without_memory("esc-xl", scale)) / 1e6, 3) == millions


def test_esc_tiny_fits_into_its_box():
    """The network that ships has at most 150 thousand parameters at every scale."""
    assert all(
        count_parameters(_network_without_memory("esc-tiny", s)) <= 150_000 for s in (2, 3, 4)
    )


@pytest.mark.parametrize(
    ("name", "scale", "published"),
    [
        ("esc", 2, 592.0),
        ("esc", 3, 267.6),
        ("esc", 4, 149.2),
        ("esc-light", 2, 359.4),
        ("esc-light", 3, 162.8),
        ("esc-light", 4, 91.0),
        ("esc-fp", 2, 239.8),
        ("esc-fp", 3, 110.0),
        ("esc-fp", 4, 60.8),
    ],
)
def test_macs_are_the_published_ones(name, scale, published):
    """Within 0.5 % of the "#FLOPs" column, in 10^9."""
    macs = count_macs(variant(name, scale=scale), *LR_SIZES[scale])
    assert macs / 1e9 == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("fields", [{}, {"norm_in_conv_layers": True}, FEW_PARAMETERS], ids=str)
@pytest.mark.parametrize(("height", "width"), [(8, 9), (7, 11), (1, 1)])
def test_macs_agree_with_torchs_own_counter(fields, height, width):
    """Ours, less what torch does not count, is what torch counts while the network runs.

    Of odd widths: of even ones two pixels may go through the large kernel at a time, which does a
    little more than the count says.
    """
    config = small_config(**fields)
    network = ESC(config, attention_backend="naive")
    with FlopCounterMode(display=False) as counter:
        network(random_image(1, 3, height, width))
    uncounted = _counted_by_us_alone(config) * height * width
    assert count_macs(config, height, width) - uncounted == counter.get_total_flops() // 2


def _counted_by_us_alone(config: ESCConfig) -> int:
    """Operations per pixel that the paper's count holds and torch's does not, or less."""
    norms = config.num_blocks * (3 + config.num_conv_layers * config.norm_in_conv_layers)
    norms += config.norm_before_last_conv
    pooled = 1
    # The paper adds ESC-FP's dynamic kernel into the large one; the network convolves twice.
    convolved_twice = 9 if config.large_kernel == "decomposed" else 0
    layers = config.num_blocks * config.num_conv_layers
    return 5 * config.dim * norms + layers * config.pdim * (pooled - convolved_twice)
