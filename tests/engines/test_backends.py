"""Ways to run a whole network: all of them answer as the reference did."""

import pytest
import torch
from torch import Tensor, nn

from escsr import Upscaler
from escsr.engines.eager import Engine
from escsr.engines.opening import BACKENDS, Backend, accelerate, available_backends, prepare
from escsr.errors import ConfigurationError
from escsr.family.axis_view import AxisView
from escsr.model import ESC
from escsr.weights.official import to_ours
from tests.golden_files import (
    GOLDEN_TOLERANCE,
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    Golden,
    read_golden,
    relative_error,
    tolerance,
)
from tests.model.networks import small_network
from tests.upscaling.networks import NearestEnlarger, smallest

CPU = torch.device("cpu")


def answer_of(engine: Engine, golden: Golden) -> Tensor:
    """The output as it was recorded: ESC+LTE's between normalisation and its inverse."""
    if not golden.config.is_arbitrary_scale:
        return engine.run(golden.input, torch.float32)
    image = golden.input * 0.5 + 0.5
    sides = zip(image.shape[-2:], golden.output.shape[-2:], strict=True)
    views = tuple(AxisView.whole(length=side, output_length=result) for side, result in sides)
    return (engine.run(image, torch.float32, views) - 0.5) / 0.5


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "native") for name in [*SMALL_GOLDEN, *LARGE_GOLDEN]),
        *((name, "reference") for name in [*SMALL_GOLDEN, "esc_fp_x2"]),
    ],
)
def test_every_backend_answers_as_the_reference_did(name: str, backend: Backend) -> None:
    """With the reference's weights, within rounding of its output; "eager" is folding's test.

    By the paper's formulas, which take longest, of the large ones ESC-FP alone: it has another form
    of the large kernel, the others only more of what the small ones have.
    """
    if reason := available_backends(CPU)[backend]:
        pytest.skip(reason)
    golden = read_golden(name)
    network = ESC(golden.config)
    network.load_state_dict(to_ours(golden.reference_state))
    engine = Engine(network, scale=network.scale, device=CPU, backend=backend)
    assert relative_error(answer_of(engine, golden), golden.output) < tolerance(golden)


@pytest.mark.parametrize("kind", ["dense", "decomposed"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_kernel_of_one_pixel_leaves_room_for_the_dynamic_one(
    backend: Backend, kind: str
) -> None:
    """Where both are added up; on a map of more than one tile of 32 pixels."""
    if reason := available_backends(CPU)[backend]:
        pytest.skip(reason)
    network = smallest(2, large_kernel_size=1, large_kernel=kind)
    image = torch.rand(1, 3, 41, 70)
    with torch.no_grad():
        right = network(image)
    result = Engine(network, scale=2, device=CPU, backend=backend).run(image, torch.float32)
    assert relative_error(result, right) < GOLDEN_TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_esc_runs_as_it_is(backend: Backend) -> None:
    """Networks of others know none of this."""
    if reason := available_backends(CPU)[backend]:
        pytest.skip(reason)
    image = torch.rand(1, 3, 5, 7)
    result = Engine(NearestEnlarger(), scale=2, device=CPU, backend=backend).run(
        image, torch.float32
    )
    assert torch.equal(result, NearestEnlarger()(image))


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    """Before any weights are loaded."""
    with pytest.raises(ConfigurationError, match="'fast'; allowed are auto, reference, eager, nat"):
        Upscaler(smallest(), backend="fast")  # pyright: ignore[reportArgumentType]


def test_reasons_stand_beside_what_cannot_run() -> None:
    """On a GPU the kernels cannot; all else can everywhere."""
    on_gpu = available_backends(torch.device("cuda"))
    assert set(on_gpu) == set(BACKENDS)
    assert on_gpu["native"] is not None
    assert on_gpu["reference"] is on_gpu["eager"] is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_preparing_leaves_the_network_as_it_is(backend: Backend) -> None:
    """It may be trained on."""
    if reason := available_backends(CPU)[backend]:
        pytest.skip(reason)
    network = small_network(dim=16, window_size=16).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    accelerate(prepare(network, backend))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [type(module) for module in network.modules()] == kinds
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_formulation_of_the_paper_attends_naively_and_folds_nothing() -> None:
    """Whatever the network was made with: it is what others are measured against."""
    engine = Engine(small_network(), scale=2, device=CPU, backend="reference")
    assert (engine.backend, engine.attention_backend) == ("reference", "naive")
    assert not engine.is_layered


def test_an_esc_within_another_network_runs_natively() -> None:
    """As folding reaches it there, so do the kernels."""
    inner = small_network(dim=16, window_size=16)
    wrapped = nn.Sequential(nn.Identity(), inner)
    image = torch.rand(1, 3, 20, 20)
    results = [
        Engine(wrapped, scale=2, device=CPU, backend=backend).run(image, torch.float32)
        for backend in ("eager", "native")
    ]
    assert not torch.equal(*results)
    # Twice the rounding that one back-end may have.
    assert relative_error(results[1], results[0]) < 4e-5
