"""Help and version answer at once, without what only the work needs."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from escsr.version import __version__

from .conftest import Escsr


@pytest.mark.parametrize("arguments", [["--help"], ["upscale", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Seconds of torch, numpy and libvips are not spent on a page of text; nor is rich."""
    program = (
        "import atexit, sys\n"
        f"sys.argv = ['escsr', *{arguments!r}]\n"
        "heavy = {'torch', 'numpy', 'pyvips', 'rich', 'PIL'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        "from escsr.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_help_names_the_commands_and_their_options(escsr: Escsr) -> None:
    """Both spellings of help are the same."""
    page = escsr("-h").stdout
    assert all(command in page for command in ("upscale", "inspect", "models"))
    page = escsr("upscale", "--help").stdout
    options = ["--output", "--scale", "--model", "--tile", "--recursive", "--dry-run", "--json"]
    assert all(option in page for option in options)
    assert escsr("upscale", "-h").stdout == page


def test_the_version_is_the_packages(
    escsr_process: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """``python -m escsr`` is the command too."""
    assert escsr_process("--version").stdout == f"escsr {__version__}\n"


def test_an_unknown_command_is_a_usage_error(escsr: Escsr) -> None:
    """The nearest command is named."""
    result = escsr("upscal", "a.jpg")
    assert result.exit_code == 2
    assert "upscale" in result.stderr
