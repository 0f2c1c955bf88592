"""The Triton kernel of window attention, without a GPU: its answers, and that it compiles."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from escsr.engines.folding import fold
from escsr.errors import ConfigurationError
from escsr.model import ESC
from escsr.model.attention.backends import available_backends, require_available, require_backend
from escsr.model.attention.triton_attention import HALF_LAUNCHES, attend_in_windows, fitted
from tests.golden_files import GOLDEN_TOLERANCE
from tests.model.attention.interpreted_attention import CASES, GOLDEN
from tests.model.attention.test_backends import TOLERANCE
from tests.model.networks import small_config

ROOT = Path(__file__).parents[3]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed (pip install triton, on Linux)",
)

TRITON = tuple(
    int(part)
    for found in importlib.metadata.distributions(name="triton")
    for part in found.version.split(".")[:2]
)
"""Its version, so far as it counts; empty where there is none."""


def output_of(module: str, *, interpret: bool) -> str:
    """What a program of this package prints, in a process of its own, warnings being errors."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-m", module],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Of all cases, in Triton's interpreter."""
    return json.loads(output_of("tests.model.attention.interpreted_attention", interpret=True))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_agrees_with_naive_attention_in_float64(
    name: str, errors: dict[str, float]
) -> None:
    """Windows, sides, heads, types and biases, through the module that a folded network has."""
    assert errors[name] < TOLERANCE[CASES[name].dtype]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_a_folded_network_answers_as_the_reference_did(name: str, errors: dict[str, float]) -> None:
    """Reflection, bias, factors and gate within whole networks."""
    assert errors[name] < GOLDEN_TOLERANCE


@needs_triton
@pytest.mark.slow
def test_an_engine_runs_it(errors: dict[str, float]) -> None:
    """By the name "triton"."""
    assert errors["an engine"] < GOLDEN_TOLERANCE


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(
    () < TRITON < (3, 4), reason="before 3.4 Triton takes what it compiles otherwise"
)
def test_it_compiles_for_gpus_and_takes_each_exponential_once() -> None:
    """For compute capability 8.0 and 9.0: no more than the block's exponentials and some rows'.

    A load of the bias in a layout of its own once made the compiler take them twice, and spill.
    """
    built = json.loads(output_of("tests.model.attention.compiled_attention", interpret=False))
    assert len(built) >= 6
    for name, figures in built.items():
        assert figures["exponentials"] < 2 * figures["scores_per_thread"], name
        assert figures["spilled_bytes"] == 0, name
        assert figures["shared_bytes"] <= 99 * 1024, name


def test_without_a_gpu_it_says_why_it_cannot_run() -> None:
    """Where the interpreter is off; and float64 nowhere."""
    reason = available_backends("cpu")["triton"]
    assert reason is not None
    with pytest.raises(ConfigurationError, match=r"triton cannot run here.*Use one of naive, sd"):
        require_available("triton", torch.device("cpu"))
    with pytest.raises(ConfigurationError, match=r"triton cannot run here.*always work"):
        attend_in_windows(torch.zeros(1, 48, 3, 3), None, num_heads=1, window_size=8)


def test_a_network_that_learns_cannot_have_it() -> None:
    """It has no gradients; the message says how to have it."""
    with pytest.raises(ConfigurationError, match=r"when folded.*Upscaler"):
        require_backend("triton")


def test_folding_leaves_no_expanded_bias_and_half_precision_keeps_the_table() -> None:
    """The table's numbers stay float32 in a copy that is float16; nothing of T x T is held."""
    network = ESC(small_config())
    folded = fold(network, attention_backend="triton").half()
    tokens = network.config.window_size**2
    assert all(buffer.shape[-1] != tokens for buffer in folded.buffers())
    ours = folded.get_submodule("blocks.0.attention.position_bias")
    assert torch.equal(ours(), network.get_parameter("blocks.0.attention.position_bias.table"))


def test_what_is_folded_already_is_refused() -> None:
    """Its bias is expanded, and the kernel reads a table."""
    with pytest.raises(ConfigurationError, match="expanded already"):
        fold(fold(ESC(small_config())), attention_backend="triton")


def test_blocks_are_not_longer_than_windows() -> None:
    """64 tokens need a block of 64, 25 one of 32; none is below 16, the least of a product."""
    assert fitted(HALF_LAUNCHES[0], 8).block_queries == 64
    assert fitted(HALF_LAUNCHES[0], 5).block_keys == 32
    assert fitted(HALF_LAUNCHES[0], 2).block_queries == 16
