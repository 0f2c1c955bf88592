"""The core as an engine, and what all engines share; without torch."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.engines.core_engine import CoreEngine, available_backends, choose_backend, uses_core
from escsr.engines.engine import (
    BACKENDS,
    Engine,
    EngineOptions,
    Floats,
    padded_to_multiple,
    reflected_positions,
)
from escsr.engines.opening import open_any_network
from escsr.errors import CheckpointError, ConfigurationError
from escsr.family.axis_view import AxisView
from escsr.weights.official import to_ours
from tests.golden_files import (
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    Golden,
    read_golden_arrays,
    relative_error,
    tolerance,
)
from tests.networks import (
    batches,
    engine_of,
    nearest_engine,
    random_weights,
    saved,
    smallest,
    smallest_config,
    tiny,
)


def answer_of(engine: Engine, golden: Golden[Floats]) -> Floats:
    """The output as it was recorded: ESC+LTE's between normalisation and its inverse."""
    if not golden.config.is_arbitrary_scale:
        return engine.run(golden.input)
    image = golden.input * np.float32(0.5) + np.float32(0.5)
    sides = zip(image.shape[-2:], golden.output.shape[-2:], strict=True)
    views = tuple(AxisView.whole(length=side, output_length=result) for side, result in sides)
    return (engine.run(image, "float32", views) - np.float32(0.5)) / np.float32(0.5)


@pytest.mark.parametrize("name", [*SMALL_GOLDEN, *LARGE_GOLDEN])
def test_the_core_answers_as_the_reference_did(name: str) -> None:
    """With the reference's weights, within rounding of its output."""
    golden = read_golden_arrays(name)
    engine = CoreEngine(golden.config, to_ours(golden.reference_state))
    assert relative_error(answer_of(engine, golden), golden.output) < tolerance(golden)


def test_a_batch_equals_its_images() -> None:
    """Each image gets its own dynamic kernel; to the last bit."""
    engine = engine_of(tiny(2))
    images = batches(3, 20, 24)
    for image, result in zip(images, engine.run(images), strict=True):
        assert np.array_equal(engine.run(image[None])[0], result)


def test_broken_weights_are_told_of() -> None:
    """No image is better than a black one: NaN is refused, and what overflows while it runs."""
    config = smallest_config()
    weights = random_weights(config)
    weights["deep.weight"] *= np.float32(1e38)
    with pytest.raises(CheckpointError, match="weights are broken"):
        CoreEngine(config, weights).run(batches(1, 9, 9))
    weights["deep.weight"][:] = np.nan
    with pytest.raises(CheckpointError, match=r"deep\.weight holds NaN"):
        CoreEngine(config, weights)


def test_an_engine_of_the_core_can_be_pickled() -> None:
    """For other processes."""
    engine = engine_of(smallest())
    image = batches(1, 9, 12)
    assert np.array_equal(pickle.loads(pickle.dumps(engine)).run(image), engine.run(image))


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    """Before any weights are loaded."""
    with pytest.raises(ConfigurationError, match="'fast'; allowed are auto, native, eager, refere"):
        EngineOptions(backend="fast")  # pyright: ignore[reportArgumentType]


def test_reasons_stand_beside_what_cannot_run() -> None:
    """On a GPU the core cannot; all else can everywhere."""
    on_gpu = available_backends("cuda")
    assert set(on_gpu) == set(BACKENDS)
    assert on_gpu["native"] is not None
    assert on_gpu["reference"] is on_gpu["eager"] is None
    assert set(available_backends("cpu").values()) == {None}


def test_the_core_runs_on_a_cpu_unless_something_else_is_asked_for() -> None:
    """Whatever keeps it from that is said where it was asked for by name."""
    assert choose_backend("auto", "cpu") == choose_backend("native", "cpu") == "native"
    assert choose_backend("eager", "cpu") == "eager"
    assert choose_backend("reference", "cpu") == "reference"
    for options, reason in (
        ({"precision": "float16"}, "float16 was asked for"),
        ({"attention": "naive"}, "not by naive"),
        ({"device": "mps"}, "the device is mps"),
    ):
        assert not uses_core(EngineOptions(**{"device": "cpu", **options}))  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=f'{reason}.*backend="auto"'):
            uses_core(EngineOptions(**{"device": "cpu", "backend": "native", **options}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"padding": "zero"}, "padding is 'zero'; allowed are none, window"),
        ({"precision": "int8"}, "auto, float32, bfloat16, float16"),
        ({"attention": "slow"}, "attention_backend is 'slow'; allowed are auto, sdpa"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"num_threads": 1.5}, "num_threads is 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match=said):
        EngineOptions(**options)  # type: ignore[arg-type]


def test_the_number_of_threads_changes_no_bit() -> None:
    """One and several."""
    image = batches(1, 40, 50)
    results = [engine_of(smallest(), num_threads=count).run(image) for count in (1, 3)]
    assert np.array_equal(*results)


def test_windows_are_filled_by_reflection_and_the_result_is_cropped() -> None:
    """At the bottom and right, so the network sees 24x32 pixels of 19x30."""
    image = batches(1, 19, 30)
    padded = engine_of(smallest(), padding="window").run(image)
    extended = np.pad(image, ((0, 0), (0, 0), (0, 5), (0, 2)), mode="reflect")
    assert np.array_equal(padded, engine_of(smallest()).run(extended)[..., :38, :60])
    assert np.abs(padded - engine_of(smallest()).run(image)).max() > 1e-4


def test_a_network_without_windows_cannot_be_padded_to_them() -> None:
    """The error says which padding it can have."""
    with pytest.raises(ConfigurationError, match=r'no attention windows.*padding="none"'):
        type(nearest_engine())(np.copy, options=EngineOptions(device="cpu", padding="window"))


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    multiple=st.integers(1, 30),
)
def test_padding_reflects_as_numpy_does(height: int, width: int, multiple: int) -> None:
    """Again and again where a side is shorter than its padding; a side of 1 is repeated."""
    image = batches(1, height, width)
    more = [-side % multiple for side in (height, width)]
    expected = np.pad(image, ((0, 0), (0, 0), (0, more[0]), (0, more[1])), mode="reflect")
    assert np.array_equal(padded_to_multiple(image, multiple), expected)


def test_positions_beyond_the_end_go_back_and_forth() -> None:
    """Worked by hand for an axis of 4 pixels, and of one."""
    assert reflected_positions(np.arange(9), 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert reflected_positions(np.arange(3), 1).tolist() == [0, 0, 0]


def test_a_network_says_what_it_is() -> None:
    """By its name, and by its file."""
    named = open_any_network("esc-tiny", scale=3)
    assert (named.label, named.scale, named.architecture) == ("esc-tiny", 3, "esc-tiny")
    assert named.path is not None
    assert named.licence
    path = smallest(3)
    by_path = open_any_network(path)
    assert (by_path.label, by_path.scale, by_path.architecture) == (path.stem, 3, "ESC")
    assert by_path.parameters == sum(a.size for a in random_weights(smallest_config(3)).values())
    assert by_path.sha256 is not None
    assert len(by_path.sha256) == 64
    assert by_path.config == smallest_config(3)
    assert open_any_network(str(path)).sha256 == by_path.sha256


def test_another_factor_than_a_files_is_refused() -> None:
    """It is not changed unasked."""
    with pytest.raises(CheckpointError, match="holds a x3 network, and x2 was asked for"):
        open_any_network(smallest(3), scale=2)


def test_a_damaged_file_of_ours_is_no_ones_else() -> None:
    """It is refused with the reason, not given to another reader."""
    config = smallest_config()
    path = saved(config, random_weights(config, seed=99))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=path.name):
        open_any_network(path)
