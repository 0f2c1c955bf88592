"""Importing what a command needs, faster."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_quickly() -> Iterator[None]:
    """Import without looking for garbage in between, nor among modules later.

    Modules stay until the program ends; but torch makes so many objects that Python, looking
    through them again and again, adds a third to its import (``docs/speed.md``). A program that has
    torch already, such as a test, keeps its garbage in view.
    """
    was_enabled, is_first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if is_first:
            gc.freeze()
        if was_enabled:
            gc.enable()
