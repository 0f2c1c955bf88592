"""What the tests of the native kernels share: the kernels, or the reason why there are none."""

import pytest

from escsr.inference.native.library import native_library, native_obstacle


@pytest.fixture
def kernels() -> None:
    """The kernels, compiled where the package was not built with them; else the test skips."""
    if reason := native_obstacle("cpu"):
        pytest.skip(f"no native kernels: {reason}")
    native_library()
