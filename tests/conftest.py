"""What all tests share."""

import getpass
import importlib.util
import os
import re
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


HAS_TORCH = importlib.util.find_spec("torch") is not None
_NEEDS_TORCH = "needs torch: pip install 'escsr[torch]'"
_IMPORTS_TORCH = re.compile(
    r"^(?:import (?:torch|safetensors\.torch)|from (?:torch|safetensors\.torch)|"
    r"from escsr\.(?:model|training|analysis|rivals|evaluation)\b|"
    r"from escsr\.engines\.(?:eager|folding|published|frequency_domain)\b|"
    r"from tests\.(?:model(?!\.configurations)|training|oracles|eager_backends)\b)",
    re.MULTILINE,
)


class TorchModule(pytest.Module):
    """A module of tests that imports torch, or what is made of it, by itself."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Skip it, with the reason."""
        pytest.skip(_NEEDS_TORCH, allow_module_level=True)


def _imports_torch(path: Path) -> bool:
    return path.is_file() and bool(_IMPORTS_TORCH.search(path.read_text(encoding="utf-8")))


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Where torch is not installed, skip tests that say in their own imports that they need it.

    What escsr itself imports is not looked at: where that is torch and should not be, tests fail.
    """
    if HAS_TORCH or not _imports_torch(module_path):
        return None
    return TorchModule.from_parent(parent, path=module_path)


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
