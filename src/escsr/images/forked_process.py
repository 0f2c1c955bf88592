"""Refuse libvips in a process that was forked from one whose libvips has worked."""

import os

from escsr.errors import ImageError

_process: int | None = None
"""The first process that put libvips to work; a forked one inherits it."""


def require_threads_of_libvips() -> None:
    """Call before libvips computes anything.

    Its threads do not come along in a fork, but what it knows of them does, so that it would wait
    for them for ever.

    Raises:
        ImageError: this process was forked after libvips had worked.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise ImageError(
            "Image files cannot be read, written or resized here: this process was forked from one "
            "that had already done so, and libvips' threads did not come along. Start processes by "
            'multiprocessing.get_context("spawn"), or fork before the first image.'
        )
