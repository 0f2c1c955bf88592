"""open_network: from a name or a file to a network that runs without torch."""

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import escsr
from escsr.core.network import Axis, Network
from escsr.errors import CheckpointError, ConfigurationError, ImageValueError
from escsr.family.weight_shapes import count_weights
from escsr.weights.arrays import as_tensor
from escsr.weights.box import find_bundled
from tests.golden_files import (
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    golden_path,
    read_golden_arrays,
    tolerance,
)
from tests.networks import random_weights

Floats = np.ndarray[Any, np.dtype[np.float32]]
PROGRAM = Path(__file__).parent / "torchless_goldens.py"
LEVELS = ["avx512", "avx2", "sse4.2", "neon", "generic"]


@pytest.fixture(scope="module")
def tiny() -> Network:
    """The network of the box."""
    return escsr.open_network("esc-tiny")


def picture(*shape: int, seed: int = 1) -> Floats:
    """Noise in [0, 1]."""
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every golden file at hand as the reference's file of weights, in turns of both kinds.

    Without torch, which writes the one kind, all are of the other.
    """
    folder = tmp_path_factory.mktemp("goldens")
    names = [name for name in (*SMALL_GOLDEN, *LARGE_GOLDEN) if golden_path(name) is not None]
    described: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(names):
        golden = read_golden_arrays(name)
        image, expected = golden.input, golden.output
        allowed = tolerance(golden) * float(np.abs(expected).max())
        if golden.config.is_arbitrary_scale:  # recorded between normalisation and its inverse
            image, expected, allowed = image * 0.5 + 0.5, expected * 0.5 + 0.5, allowed * 0.5
        is_pickle = number % 2 == 1 and importlib.util.find_spec("torch") is not None
        weights = f"{name}.{'pth' if is_pickle else 'safetensors'}"
        if is_pickle:
            import torch

            tensors = {key: as_tensor(array) for key, array in golden.reference_state.items()}
            torch.save({"params_ema": tensors}, folder / weights)
        else:
            save_file(golden.reference_state, folder / weights)
        np.save(folder / f"{name}.image.npy", image)
        np.save(folder / f"{name}.expected.npy", expected)
        is_implicit = golden.config.position_bias == "implicit"
        described[name] = {
            "weights": weights,
            "image": f"{name}.image.npy",
            "expected": f"{name}.expected.npy",
            "allowed": allowed,
            "config": golden.config.to_dict(),
            "told": {"window_size": golden.config.window_size} if is_implicit else {},
        }
    (folder / "cases.json").write_text(json.dumps(described))
    return folder


def run_without_torch(folder: Path, level: str) -> dict[str, Any]:
    """What the program says; skips where this processor lacks the instructions."""
    found = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        env={**os.environ, "ESCSR_CPU": level},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0 and "ESCSR_CPU is" in found.stderr:
        pytest.skip(f"no {level} here")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("level", LEVELS)
def test_the_goldens_are_answered_without_torch(cases: Path, level: str) -> None:
    """All of them in one process where torch cannot be imported, on each level of instructions."""
    found = run_without_torch(cases, level)
    assert found["instructions"] == level
    assert len(found["errors"]) >= len(SMALL_GOLDEN)
    assert {name: error for name, error in found["errors"].items() if error > 1} == {}


def test_opening_and_running_imports_nothing_heavy() -> None:
    """A fresh process takes a quarter of a second, half of it numpy's import (docs/speed.md)."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, escsr\n"
        "escsr.open_network('esc-tiny')(np.zeros((1, 3, 64, 64), np.float32))\n"
        "heavy = {'safetensors.torch', 'pyvips', 'rich', 'typer', 'pydantic'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_image_of_a_batch_is_run_by_itself(tiny: Network) -> None:
    """As alone; other floating-point types and orders in memory are converted."""
    images = picture(3, 3, 9, 14)
    together = tiny(images)
    assert all(np.array_equal(together[i], tiny(images[i : i + 1])[0]) for i in range(3))
    assert np.array_equal(tiny(images.astype(np.float64)), together)
    assert np.array_equal(tiny(np.asfortranarray(images)), together)
    assert np.array_equal(tiny(np.flip(np.flip(images, 3).copy(), 3)), together)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((3, 8, 8), np.float32, r"shape \(3, 8, 8\); it takes a batch"),
        ((1, 1, 8, 8), np.float32, "three equal channels"),
        ((0, 3, 8, 8), np.float32, "holds no image"),
        ((1, 3, 0, 8), np.float32, "8x0 pixels"),
        ((1, 3, 8, 8), np.uint8, "array of uint8.*Divide 8-bit values by 255"),
        ((1, 3, 8, 8), np.bool_, "array of bool"),
    ],
)
def test_what_is_no_image_is_refused(
    tiny: Network, shape: tuple[int, ...], dtype: type, words: str
) -> None:
    """In the words of the torch module."""
    with pytest.raises(ImageValueError, match=words):
        tiny(np.zeros(shape, dtype))


def test_a_size_that_the_network_does_not_make_is_refused(tiny: Network) -> None:
    """By 4 alone; whole numbers alone."""
    with pytest.raises(ConfigurationError, match="enlarges by 4, to"):
        tiny(picture(1, 3, 8, 8), output_size=(20, 20))
    for size in ((20.0, 20), (True, 20), (0, 3), (3,), "ab"):
        with pytest.raises(ConfigurationError, match="two whole numbers"):
            tiny(picture(1, 3, 8, 8), output_size=size)  # type: ignore[arg-type]


def test_options_are_those_of_load_model() -> None:
    """Names, scales and overrides."""
    assert escsr.open_network("ESC_Tiny-x2").scale == 2
    with pytest.raises(ConfigurationError, match="says x2 and scale says 4"):
        escsr.open_network("esc-tiny-x2", scale=4)
    with pytest.raises(ConfigurationError, match="Unknown option 'windows'"):
        escsr.open_network("esc-tiny", windows=8)


def test_a_file_of_ours_is_opened_by_its_bytes(tiny: Network) -> None:
    """The core reads it itself."""
    network = Network.from_bytes(find_bundled("esc-tiny", 4).read_bytes())
    assert network.config == tiny.config
    images = picture(1, 3, 20, 17)
    assert np.array_equal(network(images), tiny(images))
    assert np.array_equal(pickle.loads(pickle.dumps(network))(images), tiny(images))
    with pytest.raises(CheckpointError):
        Network.from_bytes(b"no weights")


def test_a_network_says_what_it_is(tiny: Network) -> None:
    """Beside its configuration."""
    assert (tiny.scale, tiny.window_pixels) == (4, 16)
    assert tiny.num_parameters == count_weights(tiny.config)
    assert tiny.instructions in (*LEVELS, "simd128")


def test_a_network_serves_many_threads_and_processes(tiny: Network) -> None:
    """At once; pickled; and after a fork."""
    images = [picture(1, 3, 24 + i, 31, seed=i) for i in range(8)]
    alone = [tiny(image, num_threads=1) for image in images]
    with ThreadPoolExecutor(4) as executor:
        together = list(executor.map(lambda image: tiny(image, num_threads=2), images))
    assert all(map(np.array_equal, alone, together))
    assert np.array_equal(pickle.loads(pickle.dumps(tiny))(images[0]), alone[0])
    program = (
        "import os, escsr, numpy as np\n"
        "n = escsr.open_network('esc-tiny'); x = np.full((1, 3, 40, 40), 0.5, np.float32)\n"
        "y = n(x, num_threads=2); child = os.fork()\n"
        "if not child: os._exit(0 if np.array_equal(n(x, num_threads=2), y) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    if hasattr(os, "fork"):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_progress_is_told_and_what_it_raises_ends_the_work(tiny: Network) -> None:
    """Shares grow over the whole batch."""
    shares: list[float] = []
    tiny(picture(2, 3, 200, 200), on_progress=shares.append)
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)

    def refuse(share: float) -> None:
        raise ZeroDivisionError(share)

    with pytest.raises(ZeroDivisionError):
        tiny(picture(1, 3, 600, 600), on_progress=refuse)
    assert tiny(picture(1, 3, 8, 8)).shape == (1, 3, 32, 32)


def test_ctrl_c_ends_a_run_at_once(tiny: Network) -> None:
    """Whenever it comes; other threads of Python run meanwhile, and the handler is put back."""
    before = signal.getsignal(signal.SIGINT)
    image, interrupted = picture(1, 3, 3000, 3000), 0
    for number in range(3):
        timer = threading.Timer(0.3 + 0.1 * number, signal.raise_signal, [signal.SIGINT])
        begun = time.monotonic()
        timer.start()
        try:
            tiny(image, num_threads=1)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        # Half a second, and a margin for a machine that does other things.
        assert time.monotonic() - begun < 3.5
    assert interrupted == 3
    assert signal.getsignal(signal.SIGINT) is before


class InMemory:
    """Storage of features that counts."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.written = 0

    def read(self, offset: int, values: memoryview) -> None:
        """As of Storage."""
        values[:] = self.content[offset : offset + len(values)]

    def write(self, offset: int, values: memoryview) -> None:
        """As of Storage."""
        self.content[offset : offset + len(values)] = values
        self.written += len(values)


def test_rows_are_made_as_the_whole_is(tiny: Network) -> None:
    """From rows that a function reads, with features in memory and in storage."""
    image = picture(3, 70, 50)
    whole = tiny(image[None])[0]
    needs = tiny.plan((70, 50), with_storage=True, limit_bytes=1)
    storage = InMemory(needs.storage_bytes)
    for kept in (None, storage):
        with tiny.begin(
            (70, 50), lambda a, b: image[:, a:b], storage=kept, limit_bytes=1 if kept else 0
        ) as job:
            parts = [job.rows(top, min(280, top + 37)) for top in range(0, 280, 37)]
            with pytest.raises(ConfigurationError, match="has rows 0 to 280"):
                job.rows(0, 281)
        with pytest.raises(ConfigurationError, match="closed"):
            job.rows(0, 1)
        assert np.abs(np.concatenate(parts, 1) - whole).max() < 2e-5
    assert 0 < storage.written


def test_what_callbacks_raise_is_raised(tiny: Network) -> None:
    """And rows of another size are refused."""

    def fail(top: int, bottom: int) -> Floats:
        raise FileNotFoundError(f"rows {top} to {bottom}")

    with pytest.raises(FileNotFoundError, match="rows 0 to"):
        tiny.begin((40, 40), fail)
    with pytest.raises(ImageValueError, match="were asked for"):
        tiny.begin((40, 40), lambda a, b: np.zeros((3, b - a, 41), np.float32))


def test_a_part_for_any_size_is_that_part_of_the_whole() -> None:
    """Of rows and columns, by their place in the image."""
    config = read_golden_arrays("esc_lte_tiny_x2.5").config
    network = Network(config, random_weights(config))
    image = picture(1, 3, 13, 18)
    rows, columns = (
        Axis(length=length, output_length=2 * length, output_start=2) for length in (13, 18)
    )
    part = network(image, output_size=(9, 11), axes=(rows, columns))
    assert np.abs(part - network(image, (26, 36))[..., 2:11, 2:13]).max() < 5e-5
