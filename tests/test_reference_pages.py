"""The pages that list all environment variables and all errors really list them all."""

import re
from pathlib import Path

import escsr.errors

ROOT = Path(__file__).parents[1]
VARIABLE = re.compile(r"[\"'](ESCSR_[A-Z_]+|XDG_CACHE_HOME|TMPDIR|[A-Z]+_CACHE_CAPACITY)[\"']")


def test_every_environment_variable_is_listed() -> None:
    """Those that the package, its core and its tests read."""
    sources = [
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("src/**/*.cpp"),
        *ROOT.glob("tests/*.py"),
        ROOT / "hatch_build.py",
    ]
    read = {name for path in sources for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert {"ESCSR_CPU", "ESCSR_CACHE", "ESCSR_DATA", "TMPDIR"} <= read
    page = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


def test_every_error_is_listed() -> None:
    """With the words of its own."""
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    errors = {name for name in vars(escsr.errors) if name.endswith("Error")}
    assert [
        name for name in sorted(errors) if f"`{name}`" not in page and name != "EscsrError"
    ] == []
    assert "escsr.EscsrError" in page
