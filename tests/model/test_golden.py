"""The network against recordings of the reference implementation."""

import pytest
import torch

from escsr.model import ESC
from escsr.model.attention_backends import EAGER_BACKENDS
from escsr.weights.official import to_ours
from tests.golden_files import (
    GOLDEN_TOLERANCE,
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    answer,
    read_golden,
    relative_error,
    tolerance,
)


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
@pytest.mark.parametrize("name", [*SMALL_GOLDEN, *LARGE_GOLDEN])
def test_the_network_answers_as_the_reference_did(name, backend):
    """With the reference's weights, ours gives the reference's output."""
    golden = read_golden(name)
    network = ESC(golden.config, attention_backend=backend).eval()
    network.load_state_dict(to_ours(golden.reference_state))
    with torch.no_grad():
        ours = answer(network, golden)
    assert ours.shape == golden.output.shape
    assert relative_error(ours, golden.output) < tolerance(golden)


@pytest.mark.parametrize("name", ["esc_tiny_x2_batch3", "esc_fp_x4_batch2"])
def test_a_batch_answers_as_its_images_do_alone(name):
    """The reference's evaluation takes one image at a time; ours need not."""
    golden = read_golden(name)
    network = ESC(golden.config).eval()
    network.load_state_dict(to_ours(golden.reference_state))
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in golden.input])
    assert relative_error(alone, golden.output) < GOLDEN_TOLERANCE
