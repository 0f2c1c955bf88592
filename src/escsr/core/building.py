"""Turn ``source/`` into one library; it needs only Python, as the package's build uses it.

``level.cpp`` is compiled once for each level of instructions that the machine may have, and the
library takes the best at run time. It links the C library alone, so that one file serves every
Linux with the same C library, if it is compiled by ziglang.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "source"
BUILT_WITH_PACKAGE = Path(__file__).parent / "built"
"""Where the library lies that was compiled when the package was built."""

ZIGLANG = "ziglang>=0.13"
"""A package that brings a compiler, for machines without one."""

_COMPILERS = ("clang++", "g++", "c++", "ziglang")
"""Which compiler is taken where several are installed: the first. The last is a package."""

_FLAGS = (
    "-O3 -std=c++17 -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-math-errno "
    "-fno-trapping-math -fvisibility=hidden -Wno-psabi"
)
"""No -ffast-math: sums and exponentials need their additions in the order written."""

_SECONDS_TO_COMPILE = 600
_OLDEST_GLIBC = "2.17"
"""Of 2012; what manylinux2014 asks for."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """Instructions that ``level.cpp`` is compiled for."""

    name: str
    lanes: int
    """float32 in a vector."""
    processor: str = ""
    """For -march; empty for what the compiler takes by itself."""
    flags: tuple[str, ...] = ()


_X86_64 = (
    Level(name="sse42", lanes=4, processor="x86-64-v2"),
    Level(name="avx2", lanes=8, processor="x86-64-v3"),
    # By itself clang cuts vectors of 512 bits in two, for processors that slow down under them.
    Level(
        name="avx512",
        lanes=16,
        processor="x86-64-v4",
        flags=("-mprefer-vector-width=512",),
    ),
)
_NEON = (Level(name="neon", lanes=4),)
_LEVELS: dict[str, tuple[Level, ...]] = {
    "x86_64": _X86_64,
    "amd64": _X86_64,
    "aarch64": _NEON,
    "arm64": _NEON,
    "wasm32": (Level(name="simd128", lanes=4, flags=("-msimd128",)),),
}
"""For each kind of machine, the least first: where two levels have a function of one name after
all, the linker keeps the first, which then runs on every processor."""
_GENERIC = (Level(name="generic", lanes=4),)


@dataclass(frozen=True)
class Compiler:
    """How to call a compiler of C++."""

    command: tuple[str, ...]
    is_zig: bool = False
    target: str = ""
    """What ziglang compiles for; empty for machines like this one."""


class CompilingError(RuntimeError):
    """There is no compiler, or it failed."""


def compile_core(library: Path, compiler: Compiler | None = None) -> None:
    """Compile, which takes up to a minute or two; others see the whole library or none.

    Args:
        library: the file to make; its folder is made too.
        compiler: None for the one that ``find_compiler`` finds.
    Raises:
        CompilingError: as it says.
        OSError: the folder cannot be written.
    """
    compiler = compiler or find_compiler()
    if compiler is None:
        raise CompilingError(lack_of_compiler())
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as folder:
        objects = compile_objects(Path(folder), compiler)
        made = Path(folder) / library.name
        link(compiler, objects, made)
        made.replace(library)


def compile_objects(
    folder: Path,
    compiler: Compiler,
    *,
    levels: Sequence[Level] | None = None,
    flags: Sequence[str] = (),
) -> list[Path]:
    """Compile every source, and ``level.cpp`` for each level.

    Args:
        folder: where the objects are put.
        compiler: for this machine, or for another.
        levels: the least first; None for those of this machine.
        flags: more of them.
    Returns:
        The objects in the order to link them in.
    Raises:
        CompilingError: as it says.
    """
    levels = levels or levels_of(this_machine())
    common = [*_flags(compiler), *flags, *(f"-DESCSR_HAS_{level.name}" for level in levels)]
    jobs = {
        folder / f"{source.stem}.o": [*common, "-c", str(source)]
        for source in sorted(SOURCE.glob("*.cpp"))
        if source.stem != "level"
    }
    for level in levels:
        command = [*common, *_level_flags(compiler, level), "-c", str(SOURCE / "level.cpp")]
        jobs[folder / f"level-{level.name}.o"] = command
    with ThreadPoolExecutor(max_workers=min(_usable_processors(), 8)) as executor:
        # Levels take longest, so they begin.
        started = [
            executor.submit(_run, [*compiler.command, "-x", "c++", *job, "-o", str(made)], folder)
            for made, job in reversed(jobs.items())
        ]
        try:
            for job in started:
                job.result()
        finally:
            executor.shutdown(cancel_futures=True)
    return list(jobs)


def link(compiler: Compiler, objects: Sequence[Path], library: Path) -> None:
    """Link objects with the C library alone, whatever else the compiler would bring for C++.

    Raises:
        CompilingError: as it says.
    """
    if sys.platform == "darwin":
        libraries = [] if compiler.is_zig else ["-nostdlib++"]
    elif sys.platform == "win32":
        libraries = [] if compiler.is_zig else ["-static-libgcc"]
    else:
        libraries = ["-Wl,-z,defs", "-Wl,--as-needed", "-static-libgcc", "-lm", "-lpthread"]
    # -O3 spares ziglang the compiling of its library for finding undefined behaviour.
    command = [*compiler.command, "-shared", "-O3", *_target(compiler)]
    command += [*(str(path) for path in objects), *libraries, "-o", str(library)]
    _run(command, library.parent)


def built_library() -> Path:
    """Where the package has the library, if it was built with this source."""
    return BUILT_WITH_PACKAGE / library_name()


def library_name() -> str:
    """The name of the library's file, with the digest of what it is made of.

    A library made of another source has another name, and is never taken for it.
    """
    if sys.platform == "win32":
        return f"escsr-{digest_of_source()}.dll"
    return f"libescsr-{digest_of_source()}.{'dylib' if sys.platform == 'darwin' else 'so'}"


@functools.cache
def digest_of_source() -> str:
    """Of the source, and of how and for what kind of machine it is compiled."""
    hashed = hashlib.sha256(f"{_FLAGS} {sys.platform} {levels_of(this_machine())}".encode())
    # Nothing else that an editor or a system may leave beside them.
    for source in sorted([*SOURCE.rglob("*.cpp"), *SOURCE.rglob("*.h")]):
        hashed.update(source.relative_to(SOURCE).as_posix().encode())
        hashed.update(source.read_bytes().replace(b"\r\n", b"\n"))
    return hashed.hexdigest()[:16]


def this_machine() -> str:
    """The kind of processor that this Python is for."""
    return platform.machine().lower() if sys.maxsize > 2**32 else "32 bits"


def levels_of(machine: str) -> tuple[Level, ...]:
    """What the core is compiled for on a kind of machine, the least first."""
    return _LEVELS.get(machine, _GENERIC)


def find_compiler() -> Compiler | None:
    """The compiler to use: CXX or CC; an installed one that can compile the core; ziglang."""
    named = os.environ.get("CXX")
    if named:
        command = _command_of(named)
        return Compiler(command) if command else None
    for name in filter(None, (os.environ.get("CC"), *_preferred())):
        if name == "ziglang":
            if importlib.util.find_spec(name) is not None:
                return Compiler((sys.executable, "-m", name, "cc"), is_zig=True)
        elif (command := _command_of(name)) and _is_able(Compiler(command)):
            return Compiler(command)
    return None


def lack_of_compiler() -> str:
    """In words, with what to do about it."""
    named = os.environ.get("CXX")
    if named:
        return f"CXX names the C++ compiler {named!r}, which is not here (correct or unset it)"
    return (
        "there is no compiler here for C++17 and all levels of instructions (install clang++ 12 "
        f"or g++ 11 or newer, or name one in CXX, or: pip install '{ZIGLANG}')"
    )


def _preferred() -> tuple[str, ...]:
    # On Windows g++ keeps vectors on a stack that is not aligned for them, and clang++ takes
    # Microsoft's options.
    return ("ziglang",) if sys.platform == "win32" else _COMPILERS


def _command_of(name: str) -> tuple[str, ...] | None:
    """The words of a command whose first is here; None where it is not."""
    commands = [(name,), tuple(name.split())]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def _is_able(compiler: Compiler) -> bool:
    """Whether a compiler knows the best level, finds the C library, and can link."""
    text = "#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <time.h>\n"
    best = levels_of(this_machine())[-1]
    with tempfile.TemporaryDirectory(prefix="escsr-") as folder:
        source, made = Path(folder) / "able.cpp", Path(folder) / "able"
        source.write_text(f'{text}extern "C" double able(double x) {{ return exp(x); }}\n')
        compiled = source.with_suffix(".o")
        flags = [*_flags(compiler), *_level_flags(compiler, best)]
        try:
            _run([*compiler.command, *flags, "-c", str(source), "-o", str(compiled)], Path(folder))
            link(compiler, [compiled], made)
        except CompilingError:
            return False
    return True


def _flags(compiler: Compiler) -> list[str]:
    flags = [*_FLAGS.split(), *_target(compiler)]
    if sys.platform != "win32":
        flags.append("-fPIC")
    if compiler.is_zig:
        flags.append("-g0")  # which is everybody else's default
    return flags


def _level_flags(compiler: Compiler, level: Level) -> list[str]:
    named = [f"-DESCSR_LEVEL={level.name}", f"-DESCSR_LANES={level.lanes}", *level.flags]
    if level.processor:
        processor = level.processor.replace("-", "_") if compiler.is_zig else level.processor
        named.append(f"-march={processor}")
    return named


def _target(compiler: Compiler) -> list[str]:
    """For ziglang, which compiles for any machine: every one of this kind, not this very one."""
    if not compiler.is_zig:
        return []
    if compiler.target:
        return ["-target", compiler.target]
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(this_machine(), this_machine())
    if machine not in ("x86_64", "aarch64"):
        return ["-mcpu=baseline"]
    if sys.platform == "linux":
        has_glibc = platform.libc_ver()[0] == "glibc"
        return ["-target", f"{machine}-linux-" + (f"gnu.{_OLDEST_GLIBC}" if has_glibc else "musl")]
    if sys.platform == "darwin":
        return ["-target", f"{machine}-macos"]
    return ["-target", f"{machine}-windows-gnu"] if sys.platform == "win32" else ["-mcpu=baseline"]


def _run(command: list[str], folder: Path) -> None:
    """Run a compiler.

    Raises:
        CompilingError: it cannot be started, fails, or does not end.
    """
    # ziglang compiles parts of the C library too; they go away with the folder.
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), **os.environ}
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", environment["ZIG_GLOBAL_CACHE_DIR"])
    if sys.platform == "darwin":
        oldest = str(sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET") or "11.0")
        environment.setdefault("MACOSX_DEPLOYMENT_TARGET", oldest)
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=_SECONDS_TO_COMPILE,
            check=False,
        )
    except OSError as error:
        raise CompilingError(f"{command[0]} cannot be started ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise CompilingError(f"{command[0]} took over {_SECONDS_TO_COMPILE} s") from error
    if result.returncode != 0:
        raise CompilingError(f"{command[0]} failed: {_first_error(result.stderr)}")


def _first_error(output: str) -> str:
    lines = output.strip().splitlines()
    telling = (line for line in lines if "error" in line or "undefined" in line)
    return next(telling, lines[0] if lines else "no message")


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
