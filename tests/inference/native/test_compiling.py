"""Compiling and loading the kernels, and what is said where that cannot be."""

import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from escsr.errors import ConfigurationError
from escsr.inference import backends
from escsr.inference.backends import choose_backend
from escsr.inference.native import compiling, library
from escsr.inference.native.compiling import compile_kernels, find_compiler, kernels_for_level
from escsr.model.openmp import openmp_among
from tests.inference.networks import smallest

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no kernels on Windows yet")

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for kernels, of a package that was built without any."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(compiling, "BUILT_WITH_PACKAGE", tmp_path / "built")
    monkeypatch.setenv("ESCSR_CACHE", str(folder))
    _forget()
    yield folder
    _forget()


def _forget() -> None:
    """What is remembered of this machine, and what has been said."""
    library.native_library.cache_clear()
    library._library_here.cache_clear()
    backends._tell_once.cache_clear()


def without_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A PATH with nothing on it."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder))


@needs_compiler
def test_kernels_are_compiled_once_when_asked_for(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By "auto" never; it says once how to get them, and takes them once they are there."""
    hasty = tmp_path / "hasty"
    hasty.write_text(f'#!/bin/sh\nexec {" ".join(find_compiler() or [])} "$@" -O0\n')
    hasty.chmod(0o755)
    monkeypatch.setenv("CXX", f"{hasty} -DWITH_AN_ARGUMENT")
    with caplog.at_level(logging.INFO, logger="escsr"):
        assert [choose_backend("auto", CPU) for _ in range(2)] == ["eager", "eager"]
        assert not cache.exists()
        assert len(caplog.records) == 1
        assert 'backend="native" compiles' in caplog.text
        assert choose_backend("native", CPU) == "native"
        assert f"Compiling the native kernels into {cache}, once." in caplog.text
        (made,) = cache.iterdir()
        assert choose_backend("auto", CPU) == "native"
        assert choose_backend("native", CPU) == "native"
    assert len(caplog.records) == 2
    assert list(cache.iterdir()) == [made]
    assert library.native_library().escsr_lanes() in (8, 16)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/bin/false", r"/bin/false failed: no message\. Use backend=\"eager\""),
        ("/no/such/c++", r"CXX names the C\+\+ compiler '/no/such/c\+\+', which is not here"),
        ("{folder}/broken", r"broken cannot be started .*Use backend=\"eager\""),
    ],
)
def test_a_compiler_that_does_not_compile_is_named(
    compiler: str,
    message: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what to use instead; "auto" runs all the same."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", compiler.format(folder=tmp_path))
    with pytest.raises(ConfigurationError, match=message):
        choose_backend("native", CPU)
    assert choose_backend("auto", CPU) == "eager"
    assert not cache.exists() or not list(cache.iterdir())


def test_without_a_compiler_eager_runs_and_native_says_what_is_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told to compile who cannot."""
    without_compiler(monkeypatch, cache)
    with caplog.at_level(logging.INFO, logger="escsr"):
        assert choose_backend("auto", CPU) == "eager"
    assert not caplog.records
    message = r"built without its kernels, and there is no C\+\+ compiler here \(install .*auto"
    with pytest.raises(ConfigurationError, match=message):
        choose_backend("native", CPU)


@needs_compiler
def test_the_first_error_of_a_compiler_is_told(tmp_path: Path) -> None:
    """Among all that it writes."""
    with pytest.raises(compiling.CompilingError, match=r"failed: .*error.*no-such-processor"):
        compile_kernels(tmp_path / "kernels.so", "-march=no-such-processor")


def test_a_compiler_may_write_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is replaced."""
    compiler = tmp_path / "compiler"
    compiler.write_bytes(b"#!/bin/sh\nprintf 'error: unm\\366glich' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(compiling.CompilingError, match="error: unm\ufffdglich"):
        compile_kernels(tmp_path / "kernels.so", "-O0")


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    """With the variable that names another."""
    cache.write_text("a file, where a folder should be")
    with pytest.raises(ConfigurationError, match=rf"{cache} .*name another folder in ESCSR_CACHE"):
        choose_backend("native", CPU)
    assert choose_backend("auto", CPU) == "eager"


@needs_compiler
def test_a_user_without_a_home_is_told_of_the_variable(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services may have none; "auto" does not need it."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ESCSR_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert choose_backend("auto", CPU) == "eager"
    with pytest.raises(ConfigurationError, match=r"no home .*name a folder in ESCSR_CACHE"):
        choose_backend("native", CPU)


def test_kernels_that_do_not_load_are_not_taken_by_themselves(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Compiled for another system, or damaged: "auto" says so once and runs without."""
    path = library._library_here()
    assert path is not None
    cache.mkdir()
    path.write_bytes(b"no library")
    with caplog.at_level(logging.INFO, logger="escsr"):
        assert [choose_backend("auto", CPU) for _ in range(2)] == ["eager", "eager"]
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    # Who runs with eager already is not told to.
    assert "Use backend" not in caplog.text
    with pytest.raises(ConfigurationError, match=path.name):
        choose_backend("native", CPU)


def test_other_source_is_other_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library carries a digest of what it was made from, so none is ever stale."""
    before = kernels_for_level("avx2")
    (tmp_path / "attention.cpp").write_text("int changed;", encoding="utf-8")
    monkeypatch.setattr(compiling, "_SOURCE", tmp_path)
    assert kernels_for_level("avx2").name != before.name


def test_other_flags_are_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one level only: the others stay."""
    machine = platform.machine()
    monkeypatch.setitem(compiling.LEVELS, machine, {"one": "-O1", "other": "-O1"})
    one, other = kernels_for_level("one"), kernels_for_level("other")
    monkeypatch.setitem(compiling.LEVELS, machine, {"one": "-O2", "other": "-O1"})
    assert kernels_for_level("one").name != one.name
    assert kernels_for_level("other").name == other.name


def test_kernels_of_the_package_serve_where_the_caches_do_not_load(cache: Path) -> None:
    """A cache that another system wrote, or that is damaged, is no reason to be slow."""
    of_package = Path(compiling.__file__).parent / "built"
    for level in compiling.LEVELS.get(platform.machine(), {}):
        path = kernels_for_level(level)
        if (of_package / path.name).is_file():
            path.parent.mkdir(exist_ok=True)
            shutil.copy(of_package / path.name, path)
    if library._compiled_with_package() is None:
        pytest.skip("not built with kernels for this processor")
    damaged = library._library_here()
    assert damaged is not None
    cache.mkdir()
    damaged.write_bytes(b"no library")
    assert choose_backend("auto", CPU) == "native"
    assert library.native_library().escsr_lanes() in (8, 16)


def test_the_openmp_of_torch_is_its_own() -> None:
    """Other packages bring one too, in folders beside torch's."""
    packages = Path(torch.__file__).resolve().parents[1]
    other, system = f"{packages}/scikit_learn.libs/libgomp-1.so", "/usr/lib/libgomp.so.1"
    torch_vision = f"{packages}/torchvision.libs/libgomp-1.so"
    for own in (f"{packages}/torch/lib/libgomp-2.so.1", f"{packages}/torch.libs/libgomp-3.so"):
        loaded = {other, system, torch_vision, own, f"{packages}/torch/lib/libc10.so"}
        assert openmp_among(loaded) == [own]
    assert openmp_among({system}) == [system]


@pytest.mark.skipif(not kernels_for_level("avx2").is_file(), reason="not built with AVX2 kernels")
def test_a_processor_without_avx512_gets_vectors_of_8(tmp_path: Path) -> None:
    """The kernels' tests pass with them too: in a process of its own, where PyTorch says AVX2."""
    here = Path(__file__).parent
    files = [here / f"test_{name}.py" for name in ("attention_kernel", "layer_kernel", "vectors")]
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": "avx2",
        "ESCSR_CACHE": str(tmp_path),
        "ESCSR_EXPECTED_LANES": "8",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    root = Path(__file__).parents[3]
    result = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert "skipped" not in result.stdout


def test_kernels_are_for_processors_alone() -> None:
    """A GPU is told so, whether it is there or not."""
    with pytest.raises(ConfigurationError, match=r"for a CPU, not for cuda.*backend=\"auto\""):
        choose_backend("native", torch.device("cuda"))
    assert choose_backend("auto", torch.device("cuda")) == "eager"


def test_a_failed_choice_is_known_before_weights_are_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Upscaler refuses at once."""
    from escsr import Upscaler

    monkeypatch.setenv("CXX", "/no/such/c++")
    with pytest.raises(ConfigurationError, match="CXX names"):
        Upscaler(smallest(), device="cpu", backend="native")


def test_levels_are_known_for_the_machines_people_have() -> None:
    """On another, nothing is built with the package, and the compiler is asked when wanted."""
    assert list(compiling.LEVELS["x86_64"]) == ["avx512", "avx2"]
    if platform.machine() not in compiling.LEVELS:
        assert library._compiled_with_package() is None
