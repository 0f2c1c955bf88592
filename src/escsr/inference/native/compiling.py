"""Turn ``source/*.cpp`` into a library; it needs only Python, as the package's build uses it."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).parent / "source"
_FLAGS = "-O3 -std=c++17 -shared -fPIC -pthread -fno-math-errno -fno-trapping-math -Wno-psabi"
"""No -ffast-math: the exponential needs its additions in the order written."""
_SECONDS_TO_COMPILE = 300

BUILT_WITH_PACKAGE = Path(__file__).parent / "built"
"""Where the kernels lie that were compiled when the package was built."""

LEVELS: dict[str, dict[str, str]] = {
    "x86_64": {"avx512": "-march=x86-64-v4", "avx2": "-march=x86-64-v3"},
    "aarch64": {"neon": "-march=armv8-a"},
    "arm64": {"neon": "-mcpu=apple-m1"},
}
"""For each kind of machine, what a package is built for: names of levels and their flags, the best
first."""


class CompilingError(RuntimeError):
    """There is no compiler, or it failed."""


def find_compiler() -> list[str] | None:
    """The C++ compiler, with its arguments: CXX, else c++, g++ or clang++."""
    named = os.environ.get("CXX")
    commands = [[named], named.split()] if named else [["c++"], ["g++"], ["clang++"]]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def lack_of_compiler() -> str:
    """In words, with what to do about it."""
    named = os.environ.get("CXX")
    if named:
        return f"CXX names the C++ compiler {named!r}, which is not here (correct or unset it)"
    return "there is no C++ compiler here (install c++, g++ or clang++, or name one in CXX)"


def kernels_for_level(level: str) -> Path:
    """Where the package has the kernels for a level, if it was built with them."""
    flag = LEVELS.get(platform.machine(), {}).get(level, "")
    return BUILT_WITH_PACKAGE / f"kernels-{level}-{digest_of_source(flag)}.so"


def flag_for_this_processor() -> str:
    """Compile for the very processor that compiles."""
    is_arm_mac = sys.platform == "darwin" and platform.machine() == "arm64"
    return "-mcpu=native" if is_arm_mac else "-march=native"


def digest_of_source(*more: str) -> str:
    """Of the kernels' source, how it is compiled, and whatever else matters."""
    texts = [_FLAGS, *more]
    # Nothing else that an editor or a system may leave beside them.
    sources = sorted([*_SOURCE.glob("*.cpp"), *_SOURCE.glob("*.h")])
    texts += [source.read_text(encoding="utf-8") for source in sources]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def compile_kernels(library: Path, processor_flag: str) -> None:
    """Compile, which takes some seconds; others see the whole library or none.

    Args:
        library: the file to make; its folder is made too.
        processor_flag: which instructions the compiler may use.
    Raises:
        CompilingError: as it says.
        OSError: the folder cannot be written.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CompilingError(lack_of_compiler())
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        sources = [str(source) for source in sorted(_SOURCE.glob("*.cpp"))]
        command = [*compiler, *_FLAGS.split(), processor_flag, *sources, "-o", str(made)]
        try:
            result = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS_TO_COMPILE,
                check=False,
            )
        except OSError as error:
            raise CompilingError(f"{compiler[0]} cannot be started ({error})") from error
        except subprocess.TimeoutExpired as error:
            raise CompilingError(f"{compiler[0]} took over {_SECONDS_TO_COMPILE} s") from error
        if result.returncode != 0:
            raise CompilingError(f"{compiler[0]} failed: {_first_error(result.stderr)}")
        made.replace(library)


def _first_error(output: str) -> str:
    lines = output.strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")
