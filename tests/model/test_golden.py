"""The network against recordings of the reference implementation."""

from dataclasses import replace

import pytest
import torch

from escsr.engines.folding import fold
from escsr.model import ESC
from escsr.model.attention.backends import FOLDED_BACKENDS, available_backends
from escsr.model.attention.flash_bias import RankRule
from escsr.weights.official import to_ours
from tests.eager_backends import EAGER_BACKENDS
from tests.golden_files import (
    ATTENTION_GOLDEN,
    GOLDEN_TOLERANCE,
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    answer,
    read_golden,
    relative_error,
    tolerance,
)

WINDOW_OF_32 = "esc_real_m_nearest_conv_x4"


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "auto") for name in [*SMALL_GOLDEN, *LARGE_GOLDEN]),
        *(
            (name, backend)
            for name in [*ATTENTION_GOLDEN, "esc_x4"]
            for backend in EAGER_BACKENDS
            if backend != "auto"
        ),
    ],
)
def test_the_network_answers_as_the_reference_did(name, backend):
    """With the reference's weights, ours gives the reference's output.

    Every network, and every back-end on each shape of attention: one knows nothing of the other.
    """
    golden = read_golden(name)
    network = ESC(golden.config, attention_backend=backend).eval()
    network.load_state_dict(to_ours(golden.reference_state))
    with torch.no_grad():
        ours = answer(network, golden)
    assert ours.shape == golden.output.shape
    assert relative_error(ours, golden.output) < tolerance(golden)


# Of windows of 32 the decomposition, in float64, takes most of a minute.
@pytest.mark.parametrize("name", [name for name in ATTENTION_GOLDEN if name != WINDOW_OF_32])
def test_factors_of_full_rank_answer_as_the_reference_did(name):
    """The folded copy under "flashbias", with all ranks that there are."""
    golden = read_golden(name)
    network = ESC(golden.config)
    network.load_state_dict(to_ours(golden.reference_state))
    factored = fold(network, attention_backend="flashbias", flash_bias=RankRule(rank=10**6))
    with torch.no_grad():
        ours = answer(factored, golden)
    assert relative_error(ours, golden.output) < tolerance(golden)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
# PyTorch's own, when flex's compiler is imported.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("backend", FOLDED_BACKENDS)
@pytest.mark.parametrize("name", SMALL_GOLDEN)
def test_a_gpu_answers_as_the_reference_did(name, backend):
    """In true float32, every back-end that can run there: the recordings are a CPU's."""
    if obstacle := available_backends("cuda")[backend]:
        pytest.skip(obstacle)
    golden = read_golden(name)
    network = ESC(golden.config)
    network.load_state_dict(to_ours(golden.reference_state))
    folded = fold(network, attention_backend=backend, flash_bias=RankRule(rank=10**6)).cuda()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        ours = answer(folded, replace(golden, input=golden.input.cuda())).cpu()
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
