"""What all tests share."""

import getpass
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no defect, and CI draws the same examples each time.
settings.register_profile("escsr", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("escsr")

# PyTorch keeps kernels compiled for one level of instructions where it looks for those of another.
level = os.environ.get("ATEN_CPU_CAPABILITY", "own")
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/escsr-inductor-{getpass.getuser()}-{level}"
)

# A shell's background jobs, and what they start, ignore Ctrl-C; the tests of it must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the numbers recorded from the reference implementation lie."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images; a test that needs it is skipped where there is none."""
    name = os.environ.get("ESCSR_DATA")
    if not name:
        pytest.skip("ESCSR_DATA is not set; it names the folder of training and test images")
    folder = Path(name)
    if not folder.is_dir():
        pytest.skip(f"ESCSR_DATA names {folder}, which is not a folder")
    return folder
