"""The command in a process of its own: interruption, the log, and what leaves through pipes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import MakePicture
from .test_upscale import names_in

Process = Callable[..., subprocess.CompletedProcess[str]]


def is_writing_second(out: Path) -> bool:
    """Whether the first result is there and the second is being written."""
    sizes = [path.stat().st_size for path in out.glob(".*") if path.exists()]
    return (out / "a.png").exists() and any(sizes)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something happened; the process must not end before."""
    deadline = time.monotonic() + 90
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened in 90 s"
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends signals differently")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_half_files(
    number: signal.Signals, weights: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    """What was finished stays, the unfinished file vanishes, and the summary says both."""
    make_picture("in/a.png")
    make_picture("in/b.png", width=2000, height=2000)
    make_picture("in/c.png")
    out = tmp_path / "out"
    command = ["upscale", tmp_path / "in", "-o", out, "-n", weights, "--tile", "64"]
    process = subprocess.Popen(
        [sys.executable, "-m", "escsr", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: is_writing_second(out), process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert names_in(out) == ["a.png"]
    assert "a.png: done" in stdout
    assert "Interrupted: 1 done, 2 not done." in stderr
    assert "Traceback" not in stderr


def test_the_log_says_device_precision_and_tiles(
    escsr_process: Process, weights: Path, make_picture: MakePicture
) -> None:
    """``--verbose`` says how the work was done, on stderr."""
    photo = make_picture()
    told = escsr_process("upscale", photo, "-n", weights, "--tile", "16", "--device", "cpu", "-v")
    assert told.returncode == 0
    assert "on cpu in float32, 2 tiles of at most 16 pixels" in told.stderr


def test_an_encoding_without_the_letters_of_a_name_ends_nothing(
    weights: Path, make_picture: MakePicture
) -> None:
    """A terminal that knows Western letters alone shows escapes."""
    photo = make_picture("写真.png")
    done = subprocess.run(
        [sys.executable, "-m", "escsr", "upscale", str(photo), "-n", str(weights)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u5199\\u771f_x2.png: done" in done.stdout
    assert photo.with_name("写真_x2.png").exists()


def test_upscaling_loads_no_compiler_and_nothing_else_that_is_slow(
    weights: Path, make_picture: MakePicture
) -> None:
    """Start-up is torch's own import and little more; torch's compiler takes longer than both."""
    program = (
        "import sys\n"
        "from escsr.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "slow = {'torch._dynamo', 'torch._inductor', 'rich.progress', 'matplotlib', 'onnx'}\n"
        "print('slow:', sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "upscale", str(make_picture()), "-n", str(weights)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "done" in done.stdout, done.stderr
    assert "slow: []" in done.stdout


def ended_under_ulimit(
    megabytes: int, weights: Path, photo: Path, output: Path
) -> subprocess.CompletedProcess[str]:
    """Run ``escsr upscale`` in a shell that limits the addresses of its processes."""
    command = [sys.executable, "-m", "escsr", "upscale", "-n", weights, photo, "-o", output]
    return subprocess.run(
        ["sh", "-c", f'ulimit -v {megabytes * 1000}; exec "$@"', "sh", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
def test_too_little_memory_for_anything_is_one_line(
    weights: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    """What is free and what is needed: 225 MB of addresses just hold the program and libvips."""
    photo = make_picture("in/a.png", width=300, height=200)
    done = ended_under_ulimit(225, weights, photo, tmp_path / "out/a.png")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(r"About \d+ MB of memory are free, but .* needs at least \d+ MB", done.stderr)
    assert not (tmp_path / "out" / "a.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
def test_too_little_memory_for_an_image_is_one_line_and_no_file(
    weights: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    """60 MB are left when the program is loaded: libvips needs them, so the work never begins."""
    program = (
        "import resource, sys\n"
        "from escsr.cli import upscale_run\n"
        "from escsr.cli.app import app\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))\n"
        "app(sys.argv[1:])\n"
    )
    photo, output = make_picture("in/a.png"), tmp_path / "out" / "a.png"
    command = ["upscale", "-n", str(weights), str(photo), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"a\.png: FAILED: .*(memory|thread)", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert names_in(tmp_path / "out") == []
