"""Compile the core while the package is built.

Where there is no compiler, the build asks for ziglang, which is one. A build that cannot make the
core fails.
"""

import functools
import importlib.util
import os
import platform
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CORE = Path("src/escsr/core")


class CompilingHook(BuildHookInterface):
    """Puts compiled libraries beside their source, and so into the wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for a compiler where there is none."""
        if self.target_name != "wheel":
            return []
        building = _load(Path(self.root) / _CORE / "building.py")
        if building.built_library().is_file() or building.find_compiler() is not None:
            return []
        # A compiler that is named but not here is a mistake to tell of, not one to work around.
        return [] if os.environ.get("CXX") else [building.ZIGLANG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and give the wheel the tag of this platform."""
        if self.target_name != "wheel":
            return
        self._add_core(build_data)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def _add_core(self, build_data: dict[str, Any]) -> None:
        building = _load(Path(self.root) / _CORE / "building.py")
        library = building.built_library()
        if not library.is_file():
            try:
                building.compile_core(library)
            except (building.CompilingError, OSError) as error:
                sys.exit(f"escsr cannot be built without its core, and {error}")
        build_data["force_include"][str(library)] = f"escsr/core/built/{library.name}"


def _platform() -> str:
    """As wheels name it; a Mac's library is for the kind of processor that compiled it."""
    name = sysconfig.get_platform().replace("universal2", platform.machine())
    return name.replace("-", "_").replace(".", "_")


@functools.cache
def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"escsr_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
