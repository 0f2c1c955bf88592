"""An Upscaler in other processes: pickled, copied, spawned, forked."""

import copy
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import escsr
from escsr.errors import ImageError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.upscaling import Upscaler
from tests.networks import smallest

IMAGE = np.random.default_rng(3).integers(0, 256, (40, 44, 3), np.uint8)

ANSWER = """
import pickle, sys
image, upscaler = pickle.load(sys.stdin.buffer)
pickle.dump(upscaler(image), sys.stdout.buffer)
"""


def upscaler_of(kind: str, folder: Path, **options: Any) -> Upscaler:
    """By a bundled name, a file's path, or a network."""
    if kind == "name":
        return Upscaler("esc-tiny", scale=2, device="cpu", **options)
    if kind == "network":
        pytest.importorskip("torch")
        return Upscaler(escsr.load_model(smallest(2)), device="cpu", **options)
    path = folder / "small.safetensors"
    path.write_bytes(smallest(2).read_bytes())
    return Upscaler(path, device="cpu", **options)


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
@pytest.mark.parametrize("kind", ["name", "path", "network"])
def test_pickled_and_copied_upscalers_answer_the_same(
    tmp_path: Path, kind: str, backend: Any
) -> None:
    """Unused and used ones, and where the file that the weights came from is gone."""
    if backend != "auto":
        pytest.importorskip("torch")
    upscaler = upscaler_of(kind, tmp_path, backend=backend)
    unused = pickle.dumps(upscaler)
    result = upscaler(IMAGE)
    for file in tmp_path.iterdir():
        file.unlink()
    copies = [pickle.loads(unused), pickle.loads(pickle.dumps(upscaler)), copy.deepcopy(upscaler)]
    for other in copies:
        assert np.array_equal(other(IMAGE), result)
        assert (other.model_name, other.scales) == (upscaler.model_name, upscaler.scales)
    assert copies[2] is not upscaler


def test_a_pickled_upscaler_of_a_bundled_model_holds_no_weights() -> None:
    """Its name says which; it is loaded where it arrives."""
    upscaler = Upscaler("esc-tiny", device="cpu")
    upscaler(IMAGE)
    assert len(pickle.dumps(upscaler)) < 2000


def test_pickled_and_copied_networks_answer_the_same() -> None:
    """What load_model returns."""
    torch = pytest.importorskip("torch")
    network = escsr.load_model("esc-tiny", scale=2)
    image = torch.rand(1, 3, 16, 18, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
        for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
            assert torch.equal(other(image), expected)
            assert other.config == network.config


def test_an_upscaler_sent_to_a_new_process_answers_the_same(tmp_path: Path) -> None:
    """As multiprocessing's spawn, joblib, Dask and Ray do it."""
    upscaler = upscaler_of("path", tmp_path)
    expected = upscaler(IMAGE)
    process = subprocess.run(
        [sys.executable, "-c", ANSWER],
        input=pickle.dumps((IMAGE, upscaler)),
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert np.array_equal(pickle.loads(process.stdout), expected)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch's operations work in two threads, whatever the machine; without it nothing does."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What work returns or raises in a forked process; a process that hangs is killed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def answer() -> None:
        try:
            sender.send(work())
        except Exception as error:
            sender.send(error)
        os._exit(0)  # without pytest's endings

    process = context.Process(target=answer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
        process.start()
    try:
        assert receiver.poll(60), "the forked process hangs"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_forked_process_answers_after_its_parent_has_worked(
    two_threads: None, backend: Any
) -> None:
    """The same; and the parent goes on, and so does a second child."""
    if backend == "eager":
        pytest.importorskip("torch")
    upscaler = Upscaler(smallest(2), device="cpu", backend=backend)
    expected = upscaler(IMAGE)
    for _ in range(2):
        assert np.array_equal(in_a_fork(lambda: upscaler(IMAGE)), expected)
        assert np.array_equal(upscaler(IMAGE), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_network_answers_after_its_parent_has_worked(two_threads: None) -> None:
    """A network of load_model, without an Upscaler."""
    torch = pytest.importorskip("torch")
    network = escsr.load_model(smallest(2))
    image = torch.rand(1, 3, 40, 44, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
        assert np.array_equal(in_a_fork(lambda: network(image).numpy()), expected.numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_files_in_a_forked_process_are_refused_by_name(tmp_path: Path) -> None:
    """Reading, writing and resizing would wait for libvips' threads, which are not there."""
    write_image(tmp_path / "a.png", IMAGE)
    read_image(tmp_path / "a.png")
    upscaler = Upscaler(smallest(2), device="cpu")
    work: list[Callable[[], Any]] = [
        lambda: upscaler.upscale_file(tmp_path / "a.png", tmp_path / "b.png"),
        lambda: write_image(tmp_path / "c.png", IMAGE),
        lambda: upscaler(IMAGE, scale=1.5),
    ]
    for one in work:
        error = in_a_fork(one)
        assert isinstance(error, ImageError)
        assert "spawn" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
