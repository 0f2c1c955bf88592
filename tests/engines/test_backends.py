"""Ways to run a whole network of torch's: all of them answer as the network itself does."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from escsr.engines.eager import TorchEngine, engine_of_module
from escsr.engines.engine import BACKENDS, Backend, Engine, EngineOptions, Floats
from escsr.engines.opening import open_any_network
from escsr.errors import ConfigurationError
from escsr.family.axis_view import AxisView
from escsr.model import ESC
from escsr.weights import load_model
from escsr.weights.official import to_ours
from tests.golden_files import (
    GOLDEN_TOLERANCE,
    SMALL_GOLDEN,
    Golden,
    read_golden,
    relative_error,
    tolerance,
)
from tests.model.networks import small_network
from tests.networks import batches, smallest


class NearestEnlarger(nn.Module):
    """Repeats pixels."""

    scale = 2

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)


def engine(network: nn.Module, *, scale: int = 2, **options: Any) -> Engine:
    """On the CPU; options as of ``EngineOptions``."""
    return engine_of_module(network, scale=scale, options=EngineOptions(device="cpu", **options))


def answer_of(engine: Engine, golden: "Golden[Tensor]") -> Tensor:
    """The output as it was recorded: ESC+LTE's between normalisation and its inverse."""
    if not golden.config.is_arbitrary_scale:
        return torch.from_numpy(engine.run(golden.input.numpy()))
    image = (golden.input * 0.5 + 0.5).numpy()
    sides = zip(image.shape[-2:], golden.output.shape[-2:], strict=True)
    views = tuple(AxisView.whole(length=side, output_length=result) for side, result in sides)
    return (torch.from_numpy(engine.run(image, "float32", views)) - 0.5) / 0.5


@pytest.mark.parametrize("name", [*SMALL_GOLDEN, "esc_fp_x2"])
def test_the_papers_formulas_answer_as_the_reference_did(name: str) -> None:
    """With the reference's weights, within rounding of its output.

    The core's answers are tested in ``test_core_engine``, folding's in ``test_golden``. By the
    paper's formulas, which take longest, of the large ones ESC-FP alone: it has another form of the
    large kernel, the others only more of what the small ones have.
    """
    golden = read_golden(name)
    network = ESC(golden.config)
    network.load_state_dict(to_ours(golden.reference_state))
    reference = engine(network, scale=network.scale, backend="reference")
    assert relative_error(answer_of(reference, golden), golden.output) < tolerance(golden)


@pytest.mark.parametrize("kind", ["dense", "decomposed"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_kernel_of_one_pixel_leaves_room_for_the_dynamic_one(
    backend: Backend, kind: str
) -> None:
    """Where both are added up; on a map of more than one tile of 32 pixels."""
    network = load_model(smallest(2, large_kernel_size=1, large_kernel=kind))
    image = torch.from_numpy(batches(1, 41, 70))
    with torch.no_grad():
        right = network(image)
    result = engine(network, backend=backend).run(image.numpy())
    assert relative_error(torch.from_numpy(result), right) < GOLDEN_TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_esc_runs_as_it_is(backend: Backend) -> None:
    """Networks of others know none of this."""
    image = batches(1, 5, 7)
    result = engine(NearestEnlarger(), backend=backend).run(image)
    assert np.array_equal(result, image.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_leaves_the_network_as_it_is(backend: Backend) -> None:
    """It may be trained on."""
    network = small_network(dim=16, window_size=16).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    engine(network, backend=backend).run(batches(1, 20, 20))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [type(module) for module in network.modules()] == kinds
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_formulation_of_the_paper_attends_naively_and_folds_nothing() -> None:
    """Whatever the network was made with: it is what others are measured against."""
    reference = engine(small_network(), backend="reference")
    assert isinstance(reference, TorchEngine)
    assert (reference.name, reference.attention_backend) == ("reference", "naive")
    assert reference.exact_network is None


def test_an_esc_within_another_network_runs_on_the_core() -> None:
    """As folding reaches it there, so does the core."""
    wrapped = nn.Sequential(nn.Identity(), small_network(dim=16, window_size=16))
    image = batches(1, 20, 20)
    engines = [engine(wrapped, backend=backend) for backend in ("eager", "native")]
    assert [one.name for one in engines] == ["eager", "native"]
    assert engine(wrapped).name == "native"
    results: list[Floats] = [one.run(image) for one in engines]
    assert not np.array_equal(*results)
    # Twice the rounding that one back-end may have.
    assert relative_error(results[1], results[0]) < 4e-5


@pytest.mark.parametrize("wrap", [False, True])
def test_an_attention_of_the_networks_own_keeps_it_from_the_core(wrap: bool) -> None:
    """It was chosen on purpose; asking for the core as well contradicts it."""
    network: nn.Module = small_network(backend="naive")
    network = nn.Sequential(network) if wrap else network
    chosen = engine(network, attention=None)
    assert isinstance(chosen, TorchEngine)
    assert (chosen.name, chosen.attention_backend) == ("eager", "naive")
    with pytest.raises(ConfigurationError, match='Use backend="eager"'):
        engine(network, backend="native", attention=None)


def test_a_module_says_its_factor_and_size() -> None:
    """A whole number of 1 or more, as its attribute."""
    opened = open_any_network(NearestEnlarger())
    assert (opened.label, opened.scale, opened.parameters) == ("NearestEnlarger", 2, 0)
    assert opened.sha256 is None
    for scale in (None, 0, 2.0, True):
        network = nn.Identity()
        network.scale = scale
        with pytest.raises(ConfigurationError, match=f"scale={scale}"):
            open_any_network(network)
