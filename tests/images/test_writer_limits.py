"""What only another process can show: full disks, interrupts, memory."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from escsr.errors import ImageWriteError
from escsr.images.writer import write_image

WRITE_NOISE = """
import sys, numpy
from escsr.images.writer import ImageWriter
def noise(path, width, height):
    rows = numpy.random.default_rng(0).integers(0, 256, (64, width, 3), numpy.uint8)
    with ImageWriter(path, width=width, height=height, channels=3, bit_depth=8) as writer:
        for start in range(0, height, 64):
            writer.write_rows(rows[: min(64, height - start)])
"""


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITE_NOISE + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a matter of POSIX")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_a_file_that_may_not_grow_is_an_error_that_names_the_space(
    tmp_path: Path, suffix: str
) -> None:
    """Where the system refuses more bytes, the error says how many are needed; no file stays."""
    code = """
import resource, signal
from escsr.errors import ImageWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    noise(sys.argv[1], 300, 300)
except ImageWriteError as error:
    print("told:", error)
"""
    done = _run(code, tmp_path / f"a{suffix}")
    assert "told:" in done.stdout, done.stderr
    assert "It needs up to 0.3 MB" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs Linux and root")
    options = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(options, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_full_disk_is_an_error_that_names_the_space(small_disk: Path, suffix: str) -> None:
    """On a disk that fills up, the error says so and what is needed; no file stays."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    with pytest.raises(ImageWriteError, match=r"No space left.* up to 0\.5 MB"):
        write_image(small_disk / f"a{suffix}", noise)
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="users are a matter of POSIX")
def test_a_folder_without_permission_is_an_error() -> None:
    """A folder that only others may write to, or even look into, says so before the work."""
    become = "import os; os.setuid(65534)" if os.geteuid() == 0 else ""
    code = f"""
from escsr.errors import ImageWriteError
from escsr.images.writer import check_output
{become}
try:
    check_output(sys.argv[1], width=64, height=64, channels=3, bit_depth=8)
except ImageWriteError as error:
    print("told:", error)
"""
    # Outside pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as folder:
        for mode, told in ((0o555, "may not be written to"), (0o000, "Permission denied")):
            Path(folder).chmod(mode)
            done = _run(code, Path(folder) / "a.png")
            Path(folder).chmod(0o755)
            assert told in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_interrupt_ends_the_work_and_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    """Ctrl-C in the midst of a large picture stops promptly, with nothing left behind."""
    code = """
import os, signal, threading
threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    noise(sys.argv[1], 16000, 16000)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = _run(code, tmp_path / f"a{suffix}")
    assert "interrupted" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("suffix", "height"), [(".jpg", 6_000), (".png", 3_000), (".tif", 3_000)])
def test_memory_does_not_grow_with_the_picture(tmp_path: Path, suffix: str, height: int) -> None:
    """Pictures of 216 and 432 MB are written in less than 140 MB above the start.

    Seen: 84 (PNG, JPEG) and 101 MB (TIFF), the same for twice as many rows.
    """
    code = """
import re, pathlib
def peak():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", text)[1]) / 1024
start = peak()
noise(sys.argv[1], 24000, int(sys.argv[2]))
print("grown by", peak() - start)
"""
    done = _run(code, tmp_path / f"a{suffix}", height)
    assert "grown by" in done.stdout, done.stderr
    assert float(done.stdout.split()[-1]) < 140


@pytest.mark.slow
def test_a_tiff_above_4_gb_is_a_big_tiff(tmp_path: Path) -> None:
    """Above 3.9 GB uncompressed, offsets get 64 bits, although this picture compresses to little.

    The picture itself is flat, so it takes seconds and a few megabytes on disk.
    """
    code = """
from escsr.images.files import probe_image
path, width, height = sys.argv[1], 40_000, 33_000
rows = numpy.full((1000, width, 3), 77, numpy.uint8)
with ImageWriter(path, width=width, height=height, channels=3, bit_depth=8) as writer:
    for _ in range(33):
        writer.write_rows(rows)
print(open(path, "rb").read(4), probe_image(path, max_pixels=2**31).height)
"""
    done = _run(code, tmp_path / "a.tif")
    assert r"b'II+\x00' 33000" in done.stdout, done.stderr
