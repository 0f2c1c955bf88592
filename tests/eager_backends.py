"""The attention back-ends that need no compiler."""

from escsr.model.attention.backends import AttentionBackend

EAGER_BACKENDS: tuple[AttentionBackend, ...] = ("naive", "sdpa", "chunked", "auto")
"""They take any floating dtype and have gradients, on every device."""
