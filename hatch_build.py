"""Compile the native kernels while the package is built, where there is a compiler.

Without one, or with ESCSR_WITHOUT_KERNELS set, the package is built without; it works all the same.
"""

import importlib.util
import os
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = Path("src/escsr/inference/native")


class KernelsHook(BuildHookInterface):
    """Puts a library for each level of processors beside the source, and so into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and give the wheel the tag of this platform."""
        if self.target_name != "wheel" or os.environ.get("ESCSR_WITHOUT_KERNELS"):
            return
        if sys.platform == "win32":
            return
        compiling = _load(Path(self.root) / _NATIVE / "compiling.py")
        for level, flag in compiling.LEVELS.get(platform.machine(), {}).items():
            library = compiling.kernels_for_level(level)
            if not library.is_file():
                try:
                    compiling.compile_kernels(library, flag)
                except (compiling.CompilingError, OSError) as error:
                    self.app.display_warning(f"escsr is built without {level} kernels: {error}")
                    continue
            inside = f"escsr/inference/native/built/{library.name}"
            build_data["force_include"][str(library)] = inside
            build_data["pure_python"] = False
        if not build_data["pure_python"]:
            build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("compiling", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
