"""How many prepared convolutions PyTorch keeps."""

import os

_ENTRIES = "128"
"""Enough for the convolutions of some twenty sizes of image; PyTorch's default of 1024 fills some
100 MB in a folder of a few hundred sizes (``docs/attention-back-ends.md``)."""


def bound_convolution_caches() -> None:
    """Let memory level off early where images have many sizes.

    PyTorch reads these at its first convolution, so a command calls this before; a program that
    uses the library decides for itself, as does who has set them.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, _ENTRIES)
