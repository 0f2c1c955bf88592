"""Compiling the core, and what is said where that cannot be."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from escsr.core import building
from escsr.core.building import CompilingError, compile_core, find_compiler, lack_of_compiler
from escsr.core.library import core_path


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, without any named compiler and without ziglang."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the core's source that a test may change."""
    copy = tmp_path / "source"
    shutil.copytree(building.SOURCE, copy)
    monkeypatch.setattr(building, "SOURCE", copy)
    building.digest_of_source.cache_clear()
    yield copy
    building.digest_of_source.cache_clear()


def put_command(folder: Path, name: str, script: str) -> None:
    """A command that is a shell script."""
    command = folder / name
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_a_library_of_another_source_has_another_name(source: Path) -> None:
    """So that it is never taken for a newer one; what an editor leaves behind does not matter."""
    names = {building.library_name()}
    for changed in ("level.cpp", "escsr.h", "kernels/vectors.h"):
        path = source / changed
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        building.digest_of_source.cache_clear()
        names.add(building.library_name())
    assert len(names) == 4
    (source / "level.cpp~").write_text("an older one")
    building.digest_of_source.cache_clear()
    assert building.library_name() in names


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")
def test_the_library_needs_the_c_library_alone() -> None:
    """No library of C++, nor a compiler's own."""
    listed = subprocess.run(["readelf", "-d", core_path()], capture_output=True, encoding="utf-8")
    needed = [line.partition("[")[2] for line in listed.stdout.splitlines() if "(NEEDED)" in line]
    assert needed
    for name in needed:
        assert name.startswith(("libc.", "libm.", "libpthread.", "ld-linux")), name


def test_without_a_compiler_it_says_what_to_install(commands: Path, tmp_path: Path) -> None:
    """Compilers, or the package that is one."""
    assert find_compiler() is None
    with pytest.raises(CompilingError, match=r"no compiler here.*pip install 'ziglang"):
        compile_core(tmp_path / "made" / "library.so")
    assert not (tmp_path / "made").exists()


def test_ziglang_is_taken_where_no_other_compiler_is(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the Python that runs."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    compiler = find_compiler()
    assert compiler is not None
    assert compiler.is_zig
    assert compiler.command == (sys.executable, "-m", "ziglang", "cc")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_compilers_that_cannot_compile_the_core_are_passed_over(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a clang++ without headers is, or a g++ that does not know AVX-512."""
    put_command(commands, "clang++", 'echo "fatal error: math.h: No such file" >&2; exit 1')
    put_command(commands, "c++", "exit 0")
    compiler = find_compiler()
    assert compiler is not None
    assert compiler.command == ("c++",)
    put_command(commands, "mine", "exit 0")
    monkeypatch.setenv("CC", "mine -m64")
    compiler = find_compiler()
    assert compiler is not None
    assert compiler.command == ("mine", "-m64")


def test_a_named_compiler_that_is_not_here_is_an_error(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one to work around."""
    monkeypatch.setenv("CXX", "nonsense++")
    assert find_compiler() is None
    assert "CXX names the C++ compiler 'nonsense++'" in lack_of_compiler()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_compiler_that_fails_leaves_no_library(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first error is told."""
    put_command(commands, "c++", "echo 'warning: x' >&2; echo 'level.cpp:1: error: y' >&2; exit 1")
    monkeypatch.setenv("CXX", "c++")
    library = tmp_path / "made" / "library.so"
    with pytest.raises(CompilingError, match=r"c\+\+ failed: level.cpp:1: error: y"):
        compile_core(library)
    assert list(library.parent.iterdir()) == []
