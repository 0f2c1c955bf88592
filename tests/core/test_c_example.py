"""The program of ``docs/examples`` in C enlarges a picture as Python does."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from escsr.core.building import SOURCE, find_compiler
from escsr.core.library import core_path
from escsr.core.network import Network
from escsr.weights.box import find_bundled
from escsr.weights.checkpoint import open_checkpoint

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "enlarge_ppm.c"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or find_compiler() is None, reason="no compiler here"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled with the package's header and library."""
    folder = tmp_path_factory.mktemp("example")
    library = shutil.copy(core_path(), folder)
    compiler = find_compiler()
    assert compiler is not None
    command = [*compiler.command, "-x", "c", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]
    command += ["-I", str(SOURCE), str(EXAMPLE), "-x", "none", library, f"-Wl,-rpath,{folder}"]
    made = folder / "enlarge_ppm"
    subprocess.run([*command, "-o", str(made)], check=True)
    return made


def write_ppm(path: Path, pixels: np.ndarray) -> None:
    """(H, W, 3) uint8."""
    path.write_bytes(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())


def test_the_c_example_enlarges_as_python_does(program: Path, tmp_path: Path) -> None:
    """Byte for byte: it is the same library."""
    pixels = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    write_ppm(tmp_path / "in.ppm", pixels)
    weights = find_bundled("esc-tiny", 2)
    out = tmp_path / "out.ppm"
    subprocess.run([program, weights, tmp_path / "in.ppm", out], check=True)
    checkpoint = open_checkpoint(weights)
    network = Network(checkpoint.config, checkpoint.weights())
    image = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    values = network(image)[0].transpose(1, 2, 0) * np.float32(255) + np.float32(0.5)
    header, _, content = out.read_bytes().partition(b"255\n")
    assert header == b"P6 68 42 "
    assert content == values.clip(0, 255).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("weights", "picture", "message"),
    [
        (b"no network", b"P6 1 1 255\nabc", "safetensors"),
        (None, b"P5 1 1 255\na", "This is no P6."),
        (None, b"P6 2 1 255\nabc", "The picture ends too early."),
    ],
)
def test_the_c_example_tells_what_is_wrong(
    program: Path, tmp_path: Path, weights: bytes | None, picture: bytes, message: str
) -> None:
    """With the core's own message, or one of its few."""
    network, image = find_bundled("esc-tiny", 2), tmp_path / "in.ppm"
    if weights is not None:
        network = tmp_path / "weights.safetensors"
        network.write_bytes(weights)
    image.write_bytes(picture)
    out = tmp_path / "out.ppm"
    result = subprocess.run(
        [program, network, image, out], stderr=subprocess.PIPE, encoding="utf-8", check=False
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert not out.exists()
