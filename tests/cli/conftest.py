"""What the tests of the command line share: small weights, small pictures, and the command."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from escsr.cli.app import app
from escsr.family import ESCConfig
from escsr.images.writer import write_image
from escsr.weights import Provenance, save_state
from tests.networks import random_weights

Escsr = Callable[..., Result]
"""Runs the command in this process."""

MakePicture = Callable[..., Path]
"""Writes a small picture and returns its path."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a very small x2 network, random but always the same."""
    config = ESCConfig(
        scale=2,
        dim=16,
        pdim=4,
        num_blocks=1,
        num_conv_layers=1,
        window_size=16,
        num_heads=2,
        large_kernel_size=5,
    )
    path = tmp_path_factory.mktemp("weights") / "small-x2.safetensors"
    provenance = Provenance(licence="CC0-1.0", training_data="none: random", date="2025-01-01")
    save_state(path, config, random_weights(config), provenance=provenance)
    return path


@pytest.fixture
def escsr() -> Escsr:
    """Run ``escsr`` with some arguments in this process."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def upscale(escsr: Escsr, weights: Path) -> Escsr:
    """Run ``escsr upscale`` with the small network in this process."""

    def run(*arguments: str | Path) -> Result:
        return escsr("upscale", "-n", weights, *arguments)

    return run


@pytest.fixture
def escsr_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``escsr`` with some arguments in a process of its own."""

    def run(*arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "escsr", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture
def make_picture(tmp_path: Path) -> MakePicture:
    """Write a picture of smooth colours below the test's folder."""

    def make(
        name: str = "photo.png", *, width: int = 24, height: int = 16, channels: int = 3
    ) -> Path:
        rows, columns = np.mgrid[0:height, 0:width]
        planes = [(rows * 7 + columns * (3 + c) + 40 * c) % 256 for c in range(channels)]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.stack(planes, axis=-1).astype(np.uint8))
        return path

    return make


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """Take away what ``-v`` does to the log of this process."""
    log = logging.getLogger("escsr")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers
