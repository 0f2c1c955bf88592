"""Finding and loading the core, and that its functions are declared as in ``escsr.h``."""

import ctypes
import ctypes.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from escsr.core import building, library
from escsr.core.building import CompilingError
from escsr.errors import ConfigurationError

HEADER = re.sub(
    r"/\*.*?\*/", "", (building.SOURCE / "escsr.h").read_text(encoding="utf-8"), flags=re.DOTALL
)
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "escsr_error": library.Error,
    "escsr_array": library.Array,
    "escsr_description": library.Description,
    "escsr_axis": library.Axis,
    "escsr_options": library.Options,
    "escsr_rows": library.Rows,
    "escsr_storage": library.Storage,
    "escsr_needs": library.Needs,
}
POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
BYTES_OF_TYPE = {
    "int32_t": 4,
    "int64_t": 8,
    "size_t": POINTER_BYTES,
    "escsr_progress": POINTER_BYTES,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for the core, of a package that was built without it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(building, "BUILT_WITH_PACKAGE", tmp_path / "built")
    monkeypatch.setenv("ESCSR_CACHE", str(folder))
    library.core_library.cache_clear()
    yield folder
    library.core_library.cache_clear()


def fields_in_header(name: str) -> list[tuple[str, int]]:
    """Names and sizes of a structure's fields."""
    (body,) = re.findall(rf"typedef struct {name} {{(.*?)\n}} {name};", HEADER, flags=re.DOTALL)
    fields: list[tuple[str, int]] = []
    for statement in filter(None, (part.strip() for part in body.split(";"))):
        if callback := re.match(r"int \(\*(\w+)\)", statement):
            fields.append((callback[1], POINTER_BYTES))
        else:
            kind, pointer, field, count = re.fullmatch(
                r"(?:const )?(\w+) (\*?)(\w+)(?:\[(\d+)\])?", statement
            ).groups()  # type: ignore[union-attr]
            size = int(count) if kind == "char" and count else BYTES_OF_TYPE.get(kind, 0)
            fields.append((field, POINTER_BYTES if pointer else size))
    return fields


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_are_as_in_the_header(name: str) -> None:
    """The same fields in the same order, of the same sizes."""
    ours = [(field[0], ctypes.sizeof(field[1])) for field in STRUCTURES[name]._fields_]
    assert ours == fields_in_header(name)


def test_all_structures_of_the_header_are_declared() -> None:
    """Those that are not opaque."""
    assert set(re.findall(r"typedef struct (\w+) {", HEADER)) == set(STRUCTURES)


def test_functions_are_as_in_the_header() -> None:
    """The same ones, which take as many arguments."""
    declared = re.findall(r"ESCSR_API (\w+) (\w+)\((.*?)\);", HEADER, flags=re.DOTALL)
    in_header = {
        name: (result, 0 if arguments == "void" else arguments.count(",") + 1)
        for result, name, arguments in declared
    }
    results = {"escsr_status": ctypes.c_int, "int32_t": ctypes.c_int32, "void": None}
    assert {
        name: (result, len(arguments)) for name, (result, arguments) in library._FUNCTIONS.items()
    } == {name: (results[result], count) for name, (result, count) in in_header.items()}


def test_the_version_and_the_codes_are_as_in_the_header() -> None:
    """ESCSR_STOPPED is STOPPED here."""
    (version,) = re.findall(r"#define ESCSR_INTERFACE_VERSION (\d+)", HEADER)
    assert int(version) == library.INTERFACE_VERSION
    codes = re.findall(r"ESCSR_(\w+) = (\d+)", HEADER)
    assert len(codes) == 10
    for name, code in codes:
        assert getattr(library, name) == int(code), name


def test_the_core_is_compiled_once_where_it_is_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the cache, where the next process finds it."""
    monkeypatch.undo()
    there = library.core_path()
    compiled: list[Path] = []

    def copy(path: Path) -> None:
        compiled.append(path)
        path.parent.mkdir(parents=True)
        shutil.copy(there, path)

    monkeypatch.setattr(building, "BUILT_WITH_PACKAGE", cache / "nothing")
    monkeypatch.setenv("ESCSR_CACHE", str(cache))
    monkeypatch.setattr(library, "compile_core", copy)
    paths = [library.core_path() for _ in range(2)]
    assert paths == [cache / building.library_name()] * 2
    assert compiled == paths[:1]
    assert library.core_library().escsr_interface_version() == library.INTERFACE_VERSION


def test_a_core_that_cannot_be_compiled_is_an_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why."""

    def fail(path: Path) -> None:
        raise CompilingError("there is no compiler here")

    monkeypatch.setattr(library, "compile_core", fail)
    with pytest.raises(ConfigurationError, match="core cannot be used here: there is no compiler"):
        library.core_library()


def test_a_cache_that_cannot_be_written_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable that names another."""
    cache.write_text("a file where a folder should be")
    monkeypatch.setattr(library, "compile_core", lambda path: path.parent.mkdir())
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*ESCSR_CACHE"):
        library.core_library()


def test_a_library_of_something_else_is_refused() -> None:
    """One that loads, without the functions."""
    other = ctypes.util.find_library("m")
    if other is None:
        pytest.skip("no library of the C library's to be found")
    with pytest.raises(OSError, match="is no core of escsr's"):
        library.load_library(Path(other))
